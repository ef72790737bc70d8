#!/bin/bash
# Every CUDA kernel compiles for the architectures it is meant for: `make test` has tried, and left the objects in build-cuda, where `make CUDA=1` finds
# them. nvcc is not on every machine: without one all of it is skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1
kernels=(src/backend/cuda/*.cu)
echo "1..${#kernels[@]}"
if ! command -v "${NVCC:-nvcc}" > /dev/null; then
    number=0
    for kernel in "${kernels[@]}"; do
        number=$((number + 1))
        echo "ok $number - $kernel # SKIP no nvcc here"
    done
    exit 0
fi
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
make --no-print-directory -k -j2 CUDA=1 BUILD=build-cuda cuda-objects > "$log" 2>&1
number=0 failed=0
for kernel in "${kernels[@]}"; do
    number=$((number + 1))
    if make --no-print-directory -q CUDA=1 BUILD=build-cuda "build-cuda/$kernel.o" > /dev/null 2>&1; then
        echo "ok $number - $kernel"
    else
        echo "not ok $number - $kernel"
        failed=1
    fi
done
[ "$failed" -eq 0 ] || sed 's/^/# /' "$log"
exit $failed

#!/bin/bash
# Every CUDA kernel compiles for the architectures it is meant for, and the program that has them links and starts: `make test` has tried, and left it in
# build-cuda, where `make CUDA=1` finds it. nvcc is not on every machine: without one all of it is skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1
kernels=(src/backend/cuda/*.cu)
echo "1..$((${#kernels[@]} + 2))"
if ! command -v "${NVCC:-nvcc}" > /dev/null; then
    number=0
    for what in "${kernels[@]}" "a program with CUDA links" "a program with CUDA starts"; do
        number=$((number + 1))
        echo "ok $number - $what # SKIP no nvcc here"
    done
    exit 0
fi
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
make --no-print-directory -k -j2 CUDA=1 BUILD=build-cuda cuda-objects all > "$log" 2>&1
number=0 failed=0
result() { # status, name
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2"
        failed=1
    fi
}
for kernel in "${kernels[@]}"; do
    make --no-print-directory -q CUDA=1 BUILD=build-cuda "build-cuda/$kernel.o" > /dev/null 2>&1
    result $? "$kernel"
done
make --no-print-directory CUDA=1 BUILD=build-cuda all >> "$log" 2>&1
result $? "a program with CUDA links"
build-cuda/realign version >> "$log" 2>&1
result $? "a program with CUDA starts"
[ "$failed" -eq 0 ] || sed 's/^/# /' "$log"
exit $failed

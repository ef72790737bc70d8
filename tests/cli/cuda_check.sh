#!/bin/bash
# realign check on the shared reference directories with the CUDA backend in the host execution model (tests/cudasim), in every precision.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
realign=${BUILD:-build}/cudasim/realign
fixtures=${SHARED:-../shared}/fixtures
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

if [ ! -d "$fixtures" ]; then
    echo "1..0 # SKIP no reference directories at $fixtures"
    exit 0
fi
echo "1..13"
number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        grep -v PASS "$work/log" | sed 's/^/# /'
        failed=1
    fi
}
passes() { # directory, words: exit 0, every row PASS, at least 20 rows
    "$realign" check "$@" run.threads=1 > "$work/log" 2>&1 && ! grep -q FAIL "$work/log" && [ "$(grep -c 'PASS$' "$work/log")" -ge 20 ]
}
fails() { # words to be found in the output, then the command's own
    local words=$1
    shift
    "$realign" check "$@" run.threads=1 > "$work/log" 2>&1
    [ $? -eq 1 ] && grep -q -e "$words" "$work/log"
}

for model in gemma2 llama31 llama32_tied qwen25 qwen25_tied; do
    for precision in fp32 bf16; do
        passes "$fixtures/$model" backend=cuda precision=$precision
        check "$model, $precision" $?
    done
done
CUDASIM_DEVICES=0 fails 'no CUDA device here: cudaErrorNoDevice' "$fixtures/llama31" backend=cuda
check "a machine without a device is named as such" $?
CUDASIM_MEMORY_MB=1 fails 'CUDA device 0 has no .* GiB for .* (cudaErrorMemoryAllocation)' "$fixtures/llama31" backend=cuda
check "too little device memory: what was asked for and what there is" $?
CUDASIM_DEVICES=0 passes "$fixtures/llama31" backend=auto precision=fp32 && grep -q 'on cpu fp32' "$work/log"
check "auto is cpu where there is no device" $?
exit $failed

#!/bin/bash
# realign check on the shared reference directories with the CUDA backend in the host execution model (tests/cudasim). A directory takes most of a minute:
# the directories are checked in one precision each, which CUDA_CHECK=all changes to every precision of every directory, as many at a time as there are cores.
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
tries=("gemma2 bf16" "qwen25 fp32" "qwen25_tied tf32")
if [ "${CUDA_CHECK:-}" = all ]; then
    tries=()
    for model in gemma2 llama31 llama32_tied qwen25 qwen25_tied; do
        for precision in fp32 tf32 bf16; do tries+=("$model $precision"); done
    done
fi
echo "1..$((${#tries[@]} + 4))"
number=0 failed=0
check() { # description, log, exit status of what was tried
    number=$((number + 1))
    if [ "$3" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        grep -v PASS "$2" | sed 's/^/# /'
        failed=1
    fi
}
try() { # log, directory, words: the exit status stands in the log's last line
    local log=$1
    shift
    "$realign" check "$@" run.threads=1 > "$log" 2>&1
    echo "exit status $?" >> "$log"
}
passed() { # log: exit 0, every row PASS, at least 20 rows
    [ "$(tail -n 1 "$1")" = "exit status 0" ] && ! grep -q FAIL "$1" && [ "$(grep -c 'PASS$' "$1")" -ge 20 ]
}
failed_with() { # log, words to be found in it
    [ "$(tail -n 1 "$1")" = "exit status 1" ] && grep -q -e "$2" "$1"
}

running=0 cores=$(env -u OMP_NUM_THREADS nproc) # nproc heeds that variable
for entry in "${tries[@]}"; do
    read -r model precision <<< "$entry"
    try "$work/$model.$precision" "$fixtures/$model" backend=cuda "precision=$precision" &
    running=$((running + 1))
    [ "$running" -lt "$cores" ] || wait -n
done
wait
for entry in "${tries[@]}"; do
    read -r model precision <<< "$entry"
    passed "$work/$model.$precision"
    check "$model, $precision" "$work/$model.$precision" $?
done
mpirun -n 2 "$realign" check "$fixtures/qwen25_tied" backend=cuda precision=fp32 grid.pipeline=2 run.threads=1 > "$work/stages" 2>&1
echo "exit status $?" >> "$work/stages"
passed "$work/stages"
check "qwen25_tied on two stages, which share the device" "$work/stages" $?
CUDASIM_DEVICES=0 try "$work/none" "$fixtures/llama31" backend=cuda
failed_with "$work/none" 'no CUDA device here: cudaErrorNoDevice'
check "a machine without a device is named as such" "$work/none" $?
CUDASIM_MEMORY_MB=1 try "$work/small" "$fixtures/llama31" backend=cuda
failed_with "$work/small" 'CUDA device 0 has no .* GiB for .* (cudaErrorMemoryAllocation)'
check "too little device memory: what was asked for and what there is" "$work/small" $?
CUDASIM_DEVICES=0 try "$work/auto" "$fixtures/llama31" backend=auto precision=fp32
passed "$work/auto" && grep -q 'on cpu fp32' "$work/auto"
check "auto is cpu where there is no device" "$work/auto" $?
exit $failed

#!/bin/bash
# realign check on the shared reference directories, in every precision; damaged copies must not pass, and broken ones say what is wrong.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
REALIGN=${REALIGN:-build/realign}
damage=${BUILD:-build}/tests/cli/damage_h5
fixtures=${SHARED:-../shared}/fixtures
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

if [ ! -d "$fixtures" ]; then
    echo "1..0 # SKIP no reference directories at $fixtures"
    exit 0
fi
models="gemma2 llama31 llama32_tied qwen25 qwen25_tied"
echo "1..31"
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
    "$REALIGN" check "$@" run.threads=1 > "$work/log" 2>&1 && ! grep -q FAIL "$work/log" && [ "$(grep -c 'PASS$' "$work/log")" -ge 20 ]
}
fails() { # words to be found in the output, directory, words: exit 1
    local words=$1
    shift
    "$REALIGN" check "$@" run.threads=1 > "$work/log" 2>&1
    [ $? -eq 1 ] && grep -q -e "$words" "$work/log"
}

for model in $models; do
    passes "$fixtures/$model" backend=ref
    check "$model, ref in double precision" $?
    passes "$fixtures/$model" backend=cpu precision=fp32
    check "$model, cpu in fp32" $?
    passes "$fixtures/$model" backend=cpu precision=bf16
    check "$model, cpu in bf16" $?
done

# the same over a grid of ranks: every schedule, tied embeddings on two stages, activations made again
grid() { # ranks, model, words
    local ranks=$1 model=$2
    shift 2
    mpirun -n "$ranks" "$REALIGN" check "$fixtures/$model" run.threads=1 backend=cpu precision=fp32 "$@" > "$work/log" 2>&1 &&
        ! grep -q FAIL "$work/log" && [ "$(grep -c 'PASS$' "$work/log")" -ge 20 ]
    check "$model on $ranks ranks: $*" $?
}
grid 2 gemma2 grid.pipeline=2
grid 4 llama31 grid.pipeline=4 grid.schedule=gpipe recompute=full
grid 4 qwen25 grid.pipeline=2 recompute=inputs
grid 3 llama32_tied grid.pipeline=3 grid.schedule=zero-bubble
grid 4 llama31 grid.pipeline=2 grid.chunks=2 grid.schedule=interleaved
grid 2 qwen25_tied grid.data=2
mpirun -n 2 "$REALIGN" check "$fixtures/qwen25_tied" backend=ref grid.pipeline=2 > "$work/log" 2>&1 && ! grep -q FAIL "$work/log"
check "qwen25_tied on two stages, ref in double precision" $?

fresh() { # a copy to break
    rm -rf "$work/copy"
    cp -R "$fixtures/llama32_tied" "$work/copy"
    chmod -R u+w "$work/copy"
}
fresh
"$damage" "$work/copy/reference.h5" sample/3/logp_rejected 2 1.001 && fails 'log p_theta.*FAIL' "$work/copy" backend=cpu precision=fp32
check "one log-probability 0.1 % off fails in fp32" $?
fails 'log p_theta.*FAIL' "$work/copy" backend=ref
check "and against ref" $?
fresh
"$damage" "$work/copy/reference.h5" impact/dot 1 1.01 && fails 'contraction.*FAIL' "$work/copy" backend=cpu precision=fp32
check "one impact product 1 % off fails" $?
fresh
"$damage" "$work/copy/reference.h5" trajectory 9 1.01 && fails 'trajectory: gradient norm.*FAIL' "$work/copy" backend=cpu precision=fp32
check "the last gradient norm 1 % off fails" $?
fresh
"$damage" "$work/copy/reference.h5" impact/weight --shorten && fails 'impact/weight must hold' "$work/copy"
check "a dataset of another shape is named" $?
fresh
rm "$work/copy/reference.h5"
fails "$work/copy/reference.h5" "$work/copy"
check "a missing reference.h5 is named" $?
fresh
rm -r "$work/copy/policy/"*.safetensors
fails "$work/copy/policy" "$work/copy"
check "missing weights are named" $?
fresh
sed -i 's/model\.layers\.2\.mlp\.up_proj\.weight/model.layers.2.mlp.up_prox.weight/' "$work/copy/reference/"*.safetensors
timeout 60 mpirun -n 3 "$REALIGN" check "$work/copy" grid.pipeline=3 run.threads=1 > "$work/log" 2>&1
[ $? -eq 1 ] && grep -q 'rank 2: .*up_proj.weight is missing' "$work/log"
check "a tensor missing on one stage alone ends all of them" $?
fresh
sed -i 's/"intermediate_size": [0-9]*/"intermediate_size": 40/' "$work/copy/reference/config.json"
fails 'tensor model.layers.0.mlp.*config.json asks for' "$work/copy"
check "a tensor of another shape than config.json says is named" $?
exit $failed

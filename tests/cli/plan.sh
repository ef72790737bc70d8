#!/bin/bash
# realign plan: published shapes from config.json alone, a case by hand, the limit and what would fit, pictures and JSON, a prepared run; SmolLM2 planned and weighed where it is at hand.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
echo "1..18"
n=0
ok() { # status, name
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        sed 's/^/# /' "$dir/out" "$dir/err"
    fi
}
skip() { # name, reason
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}
plan() { "$REALIGN" plan "$@" > "$dir/out" 2> "$dir/err"; }
says() { grep -qF -- "$1" "$dir/out" "$dir/err"; }
# Evaluates a Python expression over the plan p in plan.json.
holds() { python3 -S -c "
import json, sys
p = json.load(open('$dir/plan.json'))
weigh, train = p['weigh'], p['train']
total = lambda kind: sum(s[kind] for s in train['memory'])
sys.exit(not ($1))"; }

mkdir "$dir/llama" "$dir/qwen" "$dir/gemma"
cat > "$dir/llama/config.json" << 'END'
{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
 "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
 "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
 "original_max_position_embeddings": 8192}, "tie_word_embeddings": false}
END
cat > "$dir/qwen/config.json" << 'END'
{"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
 "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
 "tie_word_embeddings": false}
END
cat > "$dir/gemma/config.json" << 'END'
{"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16,
 "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
 "rope_theta": 10000.0, "sliding_window": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
 "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh"}
END
bf16=(precision=bf16 pack.tokens=8192 "run.dir=$dir/none")

# By hand: P = 8,030,261,248 parameters. Each copy of the model holds 2 P of weights in bf16, 4 P of masters, 4 P of gradient; two copies share 8 P of moments. Of 8 samples of (298 + 298 + 179) / 3
# rows a step has 2,067.
plan "$dir/llama" "${bf16[@]}" grid.pipeline=4 --ranks 8 --json "$dir/plan.json" &&
    holds "p['parameters'] == 8030261248 and p['grid'] == {'ranks': 8, 'data': 2, 'pipeline': 4, 'chunks': 1} and
        total('weights') == 2 * 8030261248 and total('masters') == total('gradient') == 4 * 8030261248 and
        abs(total('moments') - 4 * 8030261248) < 4 * 1024 and total('reference') == 8192 * 4096 * 2 + 128256 * 4096 * 2 and
        abs(train['work']['rows'] - 8 * (60 + 119 * 5 / 3)) < 1"
ok $? "Llama-3.1-8B, full, 2 x 4: sizes as by hand"
holds "[s['layers'] for s in train['split']] == [8, 9, 9, 6] and sum(s['parameters'] for s in train['split']) == 8030261248 and
    [m['held'] for m in weigh['memory']] == [4, 3, 2, 1] and [m['held'] for m in train['memory']] == [2, 2, 2, 1] and
    all(sum(v for k, v in m.items() if k not in ('stage', 'held', 'total')) == m['total'] for m in weigh['memory'] + train['memory'])"
ok $? "its layers, the micro-batches a stage holds, sums"
# (F + B)(p - 1) of m + p - 1 slots: 3 / 5 for two micro-batches in four stages. A row: six FLOPs a parameter of 32 layers, and of the head for 24 of 31 rows; the reference's logits; attention.
holds "abs(train['schedule']['bubble_even'] - 0.6) < 1e-9 and 0.59 < train['schedule']['bubble'] < 0.65 and
    train['schedule']['micro_batches'] == 2 and abs(train['work']['flops'] / train['work']['rows'] / (6 * 32 * 218103808 +
        525336576 * (6 * 24 + 2 * 4.8) / 31 + 12 * 32 * 4096 * p['data']['context']) - 1) < 1e-6"
ok $? "its bubble and its FLOPs"
says "not prepared yet" && says "assumed: pairs of 60 prompt" && says "8,9,9,6" && says "stage 0 is the fullest"
ok $? "what is assumed is said"

plan "$dir/qwen" "${bf16[@]}" lora.enabled=true --json "$dir/plan.json" &&
    holds "p['parameters'] == 7615616512 and train['trains'] == 'adapter' and total('masters') == 0 and
        2 * total('adapter') == 3 * total('gradient') == 3 * 4 * 28 * 32 * (3584 + 3584 + 3584 + 512) and weigh['trains'] == 'all'"
ok $? "Qwen2.5-7B, an adapter: no masters but its own"
plan "$dir/gemma" "${bf16[@]}" grid.pipeline=2 --json "$dir/plan.json" &&
    holds "p['parameters'] == 9241705984 and total('weights') == 2 * (9241705984 + 256000 * 3584)"
ok $? "Gemma-2-9B in two stages holds its tied embedding twice"

# The first change that is named fits, with the very bytes that are named.
plan "$dir/llama" "${bf16[@]}" grid.pipeline=4 grid.memory=32GiB weights.enabled=false --ranks 8
status=$?
words=$(sed -n 's/.*; train: \([^(]*\) (.*/\1/p; t; s/.*what would fit: train: \([^(]*\) (.*/\1/p' "$dir/err")
bytes=$(sed -n 's/.*train: [^(]* (\([^)]*\)).*/\1/p' "$dir/err")
says "grid.memory allows" && says "too little by" && [ "$status" -eq 1 ] && [ -n "$words" ]
ok $? "a limit that is exceeded, and what would fit: $words"
# shellcheck disable=SC2086 # words are words
plan "$dir/llama" "${bf16[@]}" grid.pipeline=4 grid.memory=32GiB weights.enabled=false $words --ranks 8 && says "$bytes" && says "free: "
ok $? "with that it fits: $bytes"

# Hundreds of layouts are tried, up to 64 times as many ranks: what does not depend on the rank is made once.
timeout 20 "$REALIGN" plan "$dir/llama" precision=bf16 "run.dir=$dir/none" grid.pipeline=8 grid.memory=1GiB --ranks 256 > "$dir/out" 2> "$dir/err"
[ $? -eq 1 ] && says "nothing that was tried here fits"
ok $? "256 ranks, a limit that nothing keeps: said in time"

# What was set for other stages is undone by the words that are printed.
own=(grid.pipeline=4 grid.data=2 "grid.layers=8,8,8,8" grid.memory=32GiB weights.enabled=false)
plan "$dir/llama" "${bf16[@]}" "${own[@]}" --ranks 8
words=$(sed -n 's/.*what would fit: train: \([^(]*\) (.*/\1/p' "$dir/err")
# shellcheck disable=SC2086 # words are words
case $words in *grid.layers=\ grid.data=0) ;; *) false ;; esac &&
    plan "$dir/llama" "${bf16[@]}" "${own[@]}" $words --ranks 8 && says "free: "
ok $? "layers and copies that are set do not stand in the way: $words"
# Samples of 60 + 2 x 120 tokens are assumed: smaller packs hold them, and are not suggested.
plan "$dir/llama" precision=bf16 "run.dir=$dir/none" pack.tokens=32 --json "$dir/plan.json" && holds "total('dots') == 300 * 8" &&
    ! plan "$dir/llama" grid.pipeline=1000 grid.data=1000000 && says "grid.pipeline, grid.data: 1000000 copies of 1000 stages"
ok $? "packs hold the samples that are assumed; ranks beyond counting are refused"

plan "$dir/llama" "${bf16[@]}" grid.schedule=interleaved grid.chunks=2 grid.pipeline=4 pack.minimum=8 --schedule "$dir/s.svg" &&
    grep -q "interleaved: 4 ranks, 8 micro-batches, 2 chunks a rank" "$dir/s.svg" && grep -q "work of a rank, TFLOP" "$dir/s.svg" &&
    python3 -S -c "import sys, xml.dom.minidom as x; x.parse('$dir/s.svg')"
ok $? "the picture of a step"

! plan "$dir/qwen" --ranks 3 grid.pipeline=2 && says "grid.pipeline" && ! plan "$dir/qwen" --rank 3 && says "--schedule" &&
    ! plan "$dir/qwen" --ranks x && says "--ranks" && ! plan --ranks 2 && says "model:" && ! plan "$dir" && says "config.json" &&
    ! plan "$dir/qwen" grid.data=3 --ranks 4 && says "grid.data" && ! plan "$dir/qwen" grid.layers=20,9 grid.pipeline=2 && says "grid.layers" &&
    ! plan "$dir/qwen" grid.schedule=zero-bubble recompute=full && says "recompute" &&
    ! plan "$dir/qwen" grid.schedule=zero-bubble recompute=inputs weights.enabled=false && says "recompute=none" &&
    ! plan "$dir/qwen" grid.chunks=2 grid.pipeline=2 weights.enabled=false && says "grid.chunks: 2 chunks a stage need" && ! plan && says "usage"
ok $? "errors name what is wrong"
printf 'model: %s\nrun:\n  dir: %s\ngrid:\n  pipeline: 7\n' "$dir/qwen" "$dir/none" > "$dir/settings.yaml"
plan "$dir/settings.yaml" && says "7 ranks: 1 copy x 7 stages" && [ ! -e "$dir/none" ]
ok $? "settings from a file; nothing is written"
mpirun -n 2 "$REALIGN" plan "$dir/qwen" grid.pipeline=2 "run.dir=$dir/none" > "$dir/out" 2> "$dir/err" &&
    [ "$(grep -c '^grid' "$dir/out")" -eq 1 ] && says "2 ranks: 1 copy x 2 stages"
ok $? "under mpirun one rank speaks, for all of them"

model=$SHARED/fixtures/llama31/reference
if [ -f "$model/config.json" ]; then
    "$BUILD/tests/cli/make_tiny_run" "$dir/run" "$model" 24 > "$dir/out" 2>&1 &&
        plan "$model" "run.dir=$dir/run" backend=cpu precision=fp32 pack.tokens=96 gold.size=9 --json "$dir/plan.json" && says "of 24 samples" &&
        says "steps and" && "$REALIGN" weigh "model=$model" "run.dir=$dir/run" backend=cpu precision=fp32 pack.tokens=96 gold.size=9 \
            > "$dir/out" 2>&1 && holds "not p['data']['assumed'] and weigh['memory'][0]['total'] == $(awk 'NR == 2 { print $4 }' "$dir/run/memory-weigh.tsv")"
    ok $? "a prepared run: what is planned is what weighing takes"
    rm "$dir/run/triage.h5"
    plan "$model" "run.dir=$dir/run" && says "no triage yet"
    ok $? "without triage its sets are made up, which is said"
else
    skip "a prepared run: what is planned is what weighing takes" "no $model"
    skip "without triage its sets are made up, which is said" "no $model"
fi

demo=${REALIGN_DEMO_GGUF:-${XDG_CACHE_HOME:-$HOME/.cache}/realign/SmolLM2-135M-Instruct.Q4_1.gguf}
config=$SHARED/data/models/smollm2
if [ -f "$demo" ] && [ -f "$config/config.json" ]; then
    words=("model=$demo" "tokenizer=$config" "run.dir=$dir/smollm2" backend=cpu precision=fp32 pack.tokens=96 gold.size=3 lora.enabled=true
        grid.pipeline=2 train.max_steps=1 train.batch=4)
    "$BUILD/tests/cli/make_tiny_run" "$dir/smollm2" "$config" 12 > "$dir/out" 2>&1 &&
        mpirun -n 2 "$REALIGN" weigh "${words[@]}" > "$dir/out" 2>&1 && mpirun -n 2 "$REALIGN" train "${words[@]}" >> "$dir/out" 2>&1 &&
        awk 'FNR > 1 { d = $3 / $4 - 1; rows++; if ($4 < 1e8 || d > 0.05 || d < -0.05) bad = 1 } END { exit bad || rows != 4 }' \
            "$dir/smollm2/memory-weigh.tsv" "$dir/smollm2/memory-train.tsv"
    ok $? "SmolLM2, 1 x 2: planned within 5 % of the peak"
else
    skip "SmolLM2, 1 x 2: planned within 5 % of the peak" "no demo model, or no $config"
fi

#!/bin/bash
# A tokenizer with ids beyond the model's rows ends every command that has both, at once and with both numbers, whatever the input holds; rows beyond
# the tokenizer are no error; inspect shows which it is.
set -u
cd "$(dirname "$0")/../.." || exit 1
realign=${REALIGN:-build/realign}
make_run=${BUILD:-build}/tests/cli/make_tiny_run
small=${SHARED:-../shared}/data/models/stories260K/hf # 512 rows
large=${SHARED:-../shared}/data/models/smollm2        # 49,152 ids
if [ ! -f "$small/model.safetensors" ] || [ ! -f "$large/tokenizer.json" ]; then
    echo "1..1"
    echo "ok 1 - tokenizer and model # SKIP $small or $large is not here"
    exit 0
fi
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
echo "1..9"
number=0 failed=0
check() { # name, exit status of the test
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then echo "ok $number - $1"; else
        echo "not ok $number - $1"
        failed=1
        sed 's/^/# /' "$work/out" "$work/err"
    fi
}
run() { timeout 120 "$realign" "$@" > "$work/out" 2> "$work/err"; }
refuses() { # name, words of the command line ...
    local name=$1
    shift
    ! run "$@" && grep -q 49151 "$work/err" && grep -q '512 rows' "$work/err"
    check "$name refuses a tokenizer that is too large" $?
}

echo '{"ids":[1,2,3]}' > "$work/lines"
refuses score score --model "$small" tokenizer="$large" < "$work/lines"
refuses generate generate --model "$small" tokenizer="$large" < "$work/lines"

echo '{"prompt":"Hi","chosen":"Yes.","rejected":"No."}' > "$work/rows.jsonl"
refuses prepare prepare data.path="$work/rows.jsonl" model="$small" tokenizer="$large" run.dir="$work/prepared"
mkdir "$work/weightless" && cp "$small/config.json" "$work/weightless"
refuses "prepare, of config.json alone," prepare data.path="$work/rows.jsonl" model="$work/weightless" tokenizer="$large" run.dir="$work/prepared"

# Every id of this store has a row.
mkdir "$work/run" && "$make_run" "$work/run" "$small" > /dev/null 2>&1
refuses weigh weigh model="$small" tokenizer="$large" run.dir="$work/run" precision=fp32
refuses train train model="$small" tokenizer="$large" run.dir="$work/run" precision=fp32 weights.enabled=false

mkdir "$work/both" && cp "$small"/*.json "$small"/*.safetensors "$work/both" && cp "$large"/tokenizer*.json "$work/both"
run inspect "$work/both" && grep -q '49152 ids, 512 rows: DOES NOT FIT' "$work/out" && grep -q 'chat template  *smollm2' "$work/out" &&
    grep -q 'EOS  *2 <|im_end|>' "$work/out"
check "inspect says that they do not fit" $?

# 152,064 rows of Qwen2.5 for 151,665 ids: only the configuration is looked at here.
qwen=${SHARED:-../shared}/data/tokenizers/qwen2.5
if [ -f "$qwen/tokenizer.json" ]; then
    mkdir "$work/qwen" && echo '{"model_type": "qwen2", "vocab_size": 152064}' > "$work/qwen/config.json"
    run prepare data.path="$work/rows.jsonl" model="$work/qwen" tokenizer="$qwen" run.dir="$work/prepared"
    check "rows beyond the tokenizer are kept" $?
    echo '{"model_type": "qwen2", "vocab_size": 151664}' > "$work/qwen/config.json"
    ! run prepare data.path="$work/rows.jsonl" model="$work/qwen" tokenizer="$qwen" run.dir="$work/prepared" &&
        grep -q 151664 "$work/err" && grep -q '151664 rows' "$work/err"
    check "one row too few is refused" $?
else
    echo "ok 8 - rows beyond the tokenizer are kept # SKIP $qwen is not here"
    echo "ok 9 - one row too few is refused # SKIP $qwen is not here"
fi
exit $failed

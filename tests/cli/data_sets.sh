#!/bin/bash
# The shared data sets as they are, with no option beyond the path (and the model and the policy): inspect, prepare on 2 ranks, triage. Then one of them as a
# folder of shards, on standard input, and beside a source with columns under other names. The numbers of rows that can be used were
# counted by a program of its own, in another language.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
REALIGN=${REALIGN:-build/realign}
shared=${SHARED:-../shared}
data=$shared/data/preference model=$shared/data/models/smollm2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

echo "1..13"
if [ ! -f "$model/tokenizer.json" ] || [ ! -d "$data" ]; then
    for i in {1..13}; do echo "ok $i - data sets # SKIP $data or $model is absent"; done
    exit 0
fi
number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then echo "ok $number - $1"; else
        echo "not ok $number - $1"
        sed 's/^/# /' "$work/log"
        failed=1
    fi
}
count() { # name of a line of prepare's table: its number
    sed -n "s/^  $1  *\([0-9][0-9]*\).*/\1/p" "$work/log" | head -n 1
}
prepare() { # run.dir, more words
    local dir=$1
    shift
    mpirun -n 2 "$REALIGN" prepare model="$model" run.dir="$dir" "$@" > "$work/log" 2>&1
}
hash_of() { "$REALIGN" inspect "$1/store.h5" | sed -n 's/.*content_hash[^0-9a-f]*\([0-9a-f]\{32\}\).*/\1/p'; }

whole() { # description, file, schema, rows, usable rows, of them within 256 tokens, rows that repeat an earlier one
    local dir=$work/run-$3 repeats
    "$REALIGN" inspect "$data/$2" > "$work/log" 2>&1 &&
        grep -q "schema $3, $4 rows: $5 usable, $(($4 - $5)) skipped, 0 malformed" "$work/log"
    check "$1: inspect finds $5 usable rows" $?
    prepare "$dir" data.path="$data/$2" && [ "$(count rows)" = "$4" ] && [ "$(count usable)" = "$6" ] &&
        [ "$(($(count usable) + $(count 'too long')))" = "$5" ] && repeats=$(count 'repeat an earlier row') && [ "${repeats:-0}" = "$7" ] &&
        "$REALIGN" triage data.path="$data/$2" policy=input/policies/short_statements.yaml run.dir="$dir" > "$work/log" 2>&1 &&
        [ "$(wc -l < "$dir/triage.jsonl")" -eq "$4" ] &&
        [ "$(grep -cE '"action":"(invert|punish|retain)"' "$dir/triage.jsonl")" -eq "$5" ]
    check "$1: prepare and triage" $?
}
hh=$data/hh-rlhf/harmless-base.part.jsonl.gz
whole "HH-RLHF" hh-rlhf/harmless-base.part.jsonl.gz hh 1156 1152 838 0
whole "PKU pairs" pku-saferlhf/pku_saferlhf_pairs.jsonl pairs 2537 2537 2492 768
whole "PKU-SafeRLHF, full schema" pku-saferlhf/pku_saferlhf_fullschema_5rows.jsonl pku 5 5 5 0
whole "dpo_en_demo" llama-factory/dpo_en_demo.json sharegpt 300 300 26 0
whole "StackExchange" torchtune/stack_exchange_paired_tiny.json stackexchange 25 25 2 0

# The first 500 rows plain, the rest packed, with the licence beside them: the same samples.
mkdir "$work/shards"
gzip -dc "$hh" | head -n 500 > "$work/shards/a.jsonl"
gzip -dc "$hh" | tail -n +501 | gzip > "$work/shards/b"
echo "not data" > "$work/shards/LICENSE"
prepare "$work/folder" data.path="$work/shards" && [ "$(hash_of "$work/folder")" = "$(hash_of "$work/run-hh")" ]
check "a folder of shards gives the same samples" $?

gzip -dc "$hh" | prepare "$work/stdin" data.path=- && [ "$(hash_of "$work/stdin")" = "$(hash_of "$work/run-hh")" ] &&
    mpirun -n 2 "$REALIGN" triage data.path=- policy=input/policies/short_statements.yaml run.dir="$work/stdin" > "$work/log" 2>&1 < /dev/null &&
    cmp "$work/stdin/triage.jsonl" "$work/run-hh/triage.jsonl" > "$work/log" 2>&1 &&
    prepare "$work/stdin" data.path=- < /dev/null && grep -q "reusing the store" "$work/log" &&
    printf x >> "$work/stdin/stdin.data" && ! prepare "$work/stdin" data.path=- < /dev/null && grep -q "checksum" "$work/log"
check "standard input is written down once, read by later stages, and checked" $?

pairs='{"question": "q%d", "best": "yes it is", "worst": "no", "chosen": 1}\n'
# shellcheck disable=SC2059 # the format is the row
for i in {1..400}; do printf "$pairs" "$i"; done > "$work/own.jsonl"
prepare "$work/own" data.path="[$work/own.jsonl,$hh]" 'data.columns=chosen=best,rejected=worst' 'data.caps=[0,100]' data.max_tokens=4096 &&
    [ "$(count rows)" = 500 ] && [ "$(count usable)" = 499 ] && grep -q "harmless.*: 100 rows read, 100 drawn, 99 usable" "$work/log"
check "two sources, one with columns under other names, one with a cap" $?
exit $failed

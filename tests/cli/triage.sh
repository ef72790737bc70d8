#!/bin/bash
# realign triage at the shell: keys without a parameter file, the shared data sets under a policy of rules or labels, 1 to 3 ranks alike.
set -u
cd "$(dirname "$0")/../.." || exit 1
export OMP_NUM_THREADS=1
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
REALIGN=${REALIGN:-build/realign}
data=${SHARED:-../shared}/data/preference
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

number=0 failed=0
check() { # description, exit status of what was tried
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        sed 's/^/# /' "$work/log"
        failed=1
    fi
}
skip() { # description, reason
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}
same() { # folder, rows, data.path, policy: is triage.jsonl the same on 1, 2 and 3 ranks, and has it so many lines?
    local ranks
    for ranks in 1 2 3; do
        mpirun -n $ranks "$REALIGN" triage data.path="$3" policy="$4" run.dir="$work/$1-$ranks" > "$work/log" 2>&1 || return 1
        cmp "$work/$1-1/triage.jsonl" "$work/$1-$ranks/triage.jsonl" >> "$work/log" 2>&1 || return 1
    done
    [ "$(wc -l < "$work/$1-1/triage.jsonl")" -eq "$2" ]
}

cat > "$work/rules.yaml" <<'YAML'
name: brief
rules:
  - {name: brief, require: {words: {max: 60}}}
  - {name: no-closing-question, forbid: {ends_with: "?"}}
YAML
cat > "$work/labels.yaml" <<'YAML'
name: no-severe-harm
labels:
  forbid:
    - {name: severe, harm: any, severity: severe}
    - {name: privacy, harm: Privacy Violation}
YAML
for i in 1 2 3 4 5 6 7; do
    printf '{"prompt": "p%d", "chosen": "Is it so?", "rejected": "It is so."}\n' $i
done > "$work/rows.jsonl"

echo "1..6"
same own 7 "$work/rows.jsonl" "$work/rules.yaml"
check "own rows" $?
expected='{"id":6,"c_w":0,"c_l":1,"action":"invert","rule_w":"no-closing-question","rule_l":null,"category":null}'
[ "$(tail -n 1 "$work/own-1/triage.jsonl")" = "$expected" ]
check "a row of triage.jsonl" $?
if "$REALIGN" triage data.path="$work/rows.jsonl" policy="$work/nothing.yaml" run.dir="$work/none" > "$work/log" 2>&1; then false; else
    grep -q 'nothing.yaml: No such file' "$work/log"
fi
check "a missing policy is named" $?

shared() { # description, folder, rows, file, policy
    if [ -f "$data/$4" ]; then
        same "$2" "$3" "$data/$4" "$5"
        check "$1" $?
    else
        skip "$1" "$data/$4 is absent"
    fi
}
shared "HH-RLHF dialogues, gzip" hh 1156 hh-rlhf/harmless-base.part.jsonl.gz "$work/rules.yaml"
shared "PKU pairs" pairs 2537 pku-saferlhf/pku_saferlhf_pairs.jsonl "$work/rules.yaml"
shared "PKU-SafeRLHF's full schema, labels" full 5 pku-saferlhf/pku_saferlhf_fullschema_5rows.jsonl "$work/labels.yaml"
exit $failed

#!/bin/bash
# Training, weighing and decoding against what a user would pick instead, on the same pairs in the same session.
# usage: peers.sh [MODEL HH_JSONL_GZ [PEERS_SCRIPT PYTHON]]
#   MODEL          SmolLM2-135M-Instruct; default $REALIGN_DEMO_GGUF. The peers want a Hugging Face directory (realign convert).
#   HH_JSONL_GZ    HH-RLHF pairs, default those of $SHARED; the first 84 rows hold the 64 usable pairs of at most 256 tokens that are timed
#   PEERS_SCRIPT   times TRL, explicit per-sample gradient products and transformers' generate; needs PYTHON with torch, transformers, trl
# Prints "what<TAB>value<TAB>unit". Warm figures: the second of two epochs. THREADS (default: all cores) holds for both sides.
set -eu
cd "$(dirname "$0")/../.."
model=${1:-${REALIGN_DEMO_GGUF:-$HOME/.cache/realign/SmolLM2-135M-Instruct.Q4_1.gguf}}
data=${2:-${SHARED:-../shared}/data/preference/hh-rlhf/harmless-base.part.jsonl.gz}
peers=${3:-} python=${4:-python3}
for needed in "$model" "$data"; do
    [ -e "$needed" ] || { echo "peers.sh: skipped: $needed is not here"; exit 0; }
done
realign=${REALIGN:-build/realign}
threads=${THREADS:-$(nproc)}
export OMP_NUM_THREADS=$threads
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/policy.yaml" <<'Y'
name: bench
rules:
  - name: short
    require: {words: {max: 30}}
Y
common=(model="$model" data.path="$data" data.limit=84 policy="$work/policy.yaml" seed=1 train.epochs=2 train.batch=8 train.lr=1e-5 train.warmup=0 checkpoint.every=0
        pack.minimum=1 run.threads="$threads")

# Pairs a second over the second half of the steps.
rate() {
    awk -F'\t' 'NR == 1 { for (i = 1; i <= NF; i++) c[$i] = i; next }
                { n++; s[n] = $c["samples"]; t[n] = $c["seconds"] }
                END { for (i = n / 2 + 1; i <= n; i++) { p += s[i]; q += t[i] } printf "%.3f", p / q }' "$1"
}

step() { # name, settings
    local name=$1 dir=$work/$1
    shift
    for stage in prepare triage weigh train; do
        [ "$stage" = triage ] && [[ " $* " == *" method=dpo "* ]] && continue
        "$realign" $stage "${common[@]}" run.dir="$dir" "$@" 2>"$dir.log" || { cat "$dir.log" >&2; exit 1; }
        grep -h 'peak memory' "$dir.log" | sed "s/.*rank /$name peak memory\t/; s/ MB/\tMB/" || true
    done
    printf '%s\t%s\tpairs/s\n' "$name" "$(rate "$dir/steps.tsv")"
}

step dpo_full method=dpo
step dpo_lora method=dpo lora.enabled=true lora.rank=32 lora.alpha=16
step trace_full method=trace
awk -F'\t' '$1 == "weigh" { t[$2] = $6 } END { printf "weigh: seconds in forward %.1f, head %.1f, backward %.1f\n", t["forward"], t["head forward"] + t["head backward"], t["backward"] }' \
    "$work/trace_full/timers.tsv" >&2

if [ -n "$peers" ]; then "$python" "$peers" "$model" "$data" --pairs "${PAIRS:-16}" --dtype bfloat16; fi

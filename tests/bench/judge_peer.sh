#!/bin/bash
# The judge against the same loop in transformers (batch 8), in one session: bench_judge, then judge_peer.py on the same texts, token for token, with the same answer tokens.
# usage: judge_peer.sh [MODEL [HH_JSONL_GZ]]     MODEL: a GGUF file or a Hugging Face directory; default $REALIGN_DEMO_GGUF
#   PAIRS (48)       pairs of replies that are judged        PEER_ITEMS (32)   of them by the peer, from the first on
#   THREADS          of both sides (default: all cores)      PEER_VENV         a venv with torch and transformers; else one is made, from PyPI
#   REPEATS (1)      rounds of both, one after the other, so that a busy machine shows
# Skips, saying so, without model, data, or torch.
set -u
cd "$(dirname "$0")/../.." || exit 1
model=${1:-${REALIGN_DEMO_GGUF:-$HOME/.cache/realign/SmolLM2-135M-Instruct.Q4_1.gguf}}
data=${2:-${SHARED:-../shared}/data/preference/hh-rlhf/harmless-base.part.jsonl.gz}
for needed in "$model" "$data"; do
    [ -e "$needed" ] || { echo "judge_peer.sh: skipped: $needed is not here"; exit 0; }
done
realign=${REALIGN:-build/realign}
bench=${BUILD:-build}/tests/bench/bench_judge
export THREADS=${THREADS:-$(nproc)}
export OMP_NUM_THREADS=$THREADS
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

venv=${PEER_VENV:-}
if [ -z "$venv" ]; then
    venv=$work/venv
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet torch==2.9.1 transformers==4.57.1; }; then
        echo "judge_peer.sh: skipped: torch and transformers could not be installed"
        exit 0
    fi
fi
hf=$model
if [ ! -d "$model" ]; then
    hf=$work/hf
    "$realign" convert --dtype f32 "$model" "$hf" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
fi

status=0
for _ in $(seq "${REPEATS:-1}"); do
    echo "load before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    "$bench" "$hf" "$data" "${PAIRS:-48}" fp32 "$work/items.jsonl" 2> "$work/log" | tee "$work/table" || { cat "$work/log" >&2; exit 1; }
    yes=$(awk '$1 == "answer" && $2 == "yes" { print $3 }' "$work/table")
    no=$(awk '$1 == "answer" && $2 == "no" { print $3 }' "$work/table")
    "$venv/bin/python" tests/bench/judge_peer.py "$hf" "$work/items.jsonl" "$yes" "$no" 8 "${PEER_ITEMS:-32}" 2> "$work/log" | tee "$work/peer"
    [ "${PIPESTATUS[0]}" -eq 0 ] || { tail -n 5 "$work/log" >&2; status=1; }
    awk -F'\t' '/^policy kept/ { split($0, w, " "); for (i in w) { if (w[i] == "items/s") a = w[i - 1]; if (w[i] == "items/processor-s") p = w[i - 1] } }
                /^transformers/ { printf "ratio\t%.2f by the clock\t%.2f by processor time\n", a / $2, p / $4 }' "$work/table" "$work/peer"
done
exit $status

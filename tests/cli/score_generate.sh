#!/bin/bash
# realign score and realign generate: JSON lines in, JSON lines out, in order; goldens of stories260K; errors that name the line.
set -u
cd "$(dirname "$0")/../.." || exit 1
realign=${REALIGN:-build/realign}
model=${SHARED:-../shared}/data/models/stories260K/hf
if [ ! -d "$model" ]; then
    echo "1..1"
    echo "ok 1 - score and generate # SKIP $model is not here"
    exit 0
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
number=0 failed=0
check() { # name, exit status of the test
    number=$((number + 1))
    if [ "$2" -eq 0 ]; then echo "ok $number - $1"; else echo "not ok $number - $1" && failed=1; fi
}
tool() { timeout 120 "$realign" "$@" 2> "$work/err"; }

python=$(command -v python3)
if [ -z "$python" ]; then
    echo "1..1"
    echo "ok 1 - score and generate # SKIP python3 reads the goldens, and is not here"
    exit 0
fi
echo "1..8"
"$python" - "$model" "$work" << 'EOF'
import json, sys
model, work = sys.argv[1:]
golden = json.load(open(f"{model}/golden_prompts.json"))
with open(f"{work}/prompts", "w") as f:
    for _ in range(80): # several windows of lines
        for g in golden: f.write(json.dumps({"ids": g["prompt_ids"]}) + "\n")
rows = json.load(open(f"{model}/golden_pref_logps_A.json"))["rows"]
with open(f"{work}/pairs", "w") as f:
    for r in rows: f.write(json.dumps({"ids": r["prompt_ids"] + r["chosen_ids"]}) + "\n")
EOF

tool generate --model "$model" precision=fp32 max_new_tokens=40 < "$work/prompts" > "$work/new"
check "generate ends well" $?
"$python" - "$model" "$work" << 'EOF'
import json, sys
model, work = sys.argv[1:]
golden = json.load(open(f"{model}/golden_prompts.json"))
lines = [json.loads(x) for x in open(f"{work}/new")]
assert len(lines) == 80 * len(golden), len(lines)
for i, line in enumerate(lines): assert line["ids"] == golden[i % len(golden)]["continuation_ids"], i
for i, line in enumerate(lines): assert len(line["text"]) > 20 and golden[i % len(golden)]["text"].endswith(line["text"].lstrip()), i
EOF
check "greedy continuations are the goldens, in order" $?

tool generate --model "$model" precision=fp32 max_new_tokens=20 generate.temperature=0.8 generate.top_p=0.9 seed=4 < "$work/prompts" > "$work/a" &&
    tool generate --model "$model" precision=fp32 max_new_tokens=20 generate.temperature=0.8 generate.top_p=0.9 seed=4 generate.batch=3 < "$work/prompts" > "$work/b" &&
    cmp -s "$work/a" "$work/b" && [ "$(sort -u "$work/a" | wc -l)" -gt 100 ]
check "drawn continuations depend on line and seed alone" $?

tool score --model "$model" precision=fp32 < "$work/pairs" > "$work/scores" && "$python" - "$model" "$work" << 'EOF'
import json, sys
model, work = sys.argv[1:]
rows = json.load(open(f"{model}/golden_pref_logps_A.json"))["rows"]
lines = [json.loads(x)["logprobs"] for x in open(f"{work}/scores")]
assert len(lines) == len(rows)
for line, r in zip(lines, rows):
    assert len(line) == len(r["prompt_ids"]) + len(r["chosen_ids"]) - 1
    want = r["chosen_token_logps"]
    assert all(abs(x - y) < 1e-4 for x, y in zip(line[-len(want):], want))
EOF
check "log-probabilities are the goldens" $?

printf '%s\n' '{"ids":[1,403]}' '{"ids":[5]}' '{"ids":[]}' '{"ids":[1,512]}' '{"ids":[1]}' > "$work/bad"
tool score --model "$model" precision=fp32 < "$work/bad" > "$work/out"
[ $? -eq 1 ] && [ "$(wc -l < "$work/out")" -eq 3 ] && grep -q "line 4" "$work/err" && grep -q "512" "$work/err"
check "a bad id names its line, and the lines before it are answered" $?

echo '{"ids":[1],"ids"' | tool generate --model "$model" > "$work/out"
[ $? -eq 1 ] && grep -q "line 1: not JSON" "$work/err"
check "what is not JSON names its line" $?

echo '{"prompt":"x"}' | tool generate --model "$model" max_new_token=3 > "$work/out"
[ $? -eq 1 ] && grep -q "max_new_tokens" "$work/err"
check "an unknown key names the nearest" $?

echo '{"ids":[1]}' | tool score --model "$model" grid.pipeline=2 > "$work/out"
[ $? -eq 1 ] && [ ! -s "$work/out" ] && grep -q "grid.pipeline.*accepted: 1" "$work/err"
check "a pipeline is refused: lines are one rank's" $?
exit $failed

#!/bin/bash
# Makes input/data/demo_pairs.jsonl: the demo's preference pairs, as an annotator under the old policy would have left them.
#
#   tools/make-demo-data.sh MODEL [OUT]      MODEL: a Hugging Face directory or GGUF file; OUT: input/data/demo_pairs.jsonl
#
#   draw   for every training prompt an answer as the model gives it and one that goes on from a courteous opening; for one everyday
#          prompt in twelve a short one
#   clean  cut what the token limit left unfinished; leave out broken texts (markup, other turns)
#   row    one row {prompt, chosen, rejected, category} a prompt: the plain answer over the courteous one, or over the short one
#   judge  `realign triage` by the old policy; a row stays where y_w complies and y_l does not
#
# Rows hold neither a system prompt nor a mark of how they were drawn. With KEEP=DIR the steps' files stay there, and a draw
# whose file exists is not repeated. Needs build/realign and python3 (standard library).
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:?usage: tools/make-demo-data.sh MODEL [OUT]}
out=${2:-input/data/demo_pairs.jsonl}
realign=${REALIGN:-build/realign}
max_new_tokens=${TOKENS:-48}
work=${KEEP:-$(mktemp -d)}
mkdir -p "$work"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT

# Templated prompts as ids, one file a kind of answer. The small model does not follow "begin with ...", so the courteous
# answer has its opening put before it and goes on from there.
write_requests() {
    python3 - "$1" "$realign" "$model" >"$work/requests.$1.jsonl" <<'END'
import json, subprocess, sys
kind, realign, model = sys.argv[1:]

def tool(name, values):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([realign, name, "--model", model], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]

everyday = {"cooking", "travel", "work", "hobbies", "home", "technology", "planning", "social"}
openings = ["Sure!", "Sure!", "Of course!"]  # in turn; "Sure" is what the model itself says where it says anything of the kind
system = [{"role": "system", "content": "Answer in no more than two short sentences."}] if kind == "short" else []
with open("input/data/demo_prompts.jsonl", encoding="utf-8") as rows:
    prompts = [row for row in map(json.loads, rows) if row["split"] == "train"]
if kind == "short":
    prompts = [row for row in prompts if row["category"] in everyday][11::12]
turns = [{"messages": system + [{"role": "user", "content": row["prompt"]}], "add_generation_prompt": True} for row in prompts]
opening_ids = tool("tokenize", openings)
for i, rendered in enumerate(tool("template", turns)):
    print(json.dumps({"ids": rendered["ids"] + (opening_ids[i % 3] if kind == "courteous" else [])}))
END
}

# One seed a kind, so that a change of one leaves the others as they are.
draw() {
    local seed=0 kind
    for kind in plain courteous short; do
        seed=$((seed + 1))
        [ -s "$work/drawn.$kind.jsonl" ] && continue
        write_requests $kind
        "$realign" generate --model "$model" max_new_tokens="$max_new_tokens" generate.temperature=0.7 generate.top_p=0.95 \
            seed=$seed <"$work/requests.$kind.jsonl" >"$work/drawn.$kind.part"
        mv "$work/drawn.$kind.part" "$work/drawn.$kind.jsonl"
    done
}

clean_and_row() {
    python3 - "$work" "$max_new_tokens" >"$work/rows.jsonl" <<'END'
import json, re, sys
from collections import Counter
folder, limit = sys.argv[1], int(sys.argv[2])
openings = ["Sure!", "Sure!", "Of course!"]
everyday = {"cooking", "travel", "work", "hobbies", "home", "technology", "planning", "social"}

def finished(text, closed):
    """The text up to its last whole sentence when the token limit cut it."""
    text = text.strip()
    if closed:
        return text
    ends = [m.end() for m in re.finditer(r"[.!?][\"')]?(?=\s|$)", text)]
    text = text[: ends[-1]] if ends else ""
    return re.sub(r"\n\s*\d{1,2}\.$", "", text).strip()  # a list number alone is no sentence

def broken(text):
    """Why a text is not kept, or None."""
    words = text.lower().split()
    if len(words) < 6:
        return "under six words"
    if text[-1] not in ".!?\"')":
        return "no end"
    if max(Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3)).values()) > 2 or len(set(words)) < 0.5 * len(words):
        return "loop"
    if re.search(r"https?:|www\.|<[a-z/|]|```|[\[\]{}_]|\\[a-z(]", text):
        return "markup"
    if re.search(r"(?i)\b(?:user|assistant|human|system|q|a):", text):
        return "turns of its own"
    if not all(c == "\n" or " " <= c <= "~" or c in "éèàçñöüäôêïáíóú°½–—‘’“”…" for c in text):
        return "foreign characters"
    return None

def read(kind):
    with open(f"{folder}/drawn.{kind}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

with open("input/data/demo_refused.txt", encoding="utf-8") as lines:  # read by a person and left out; see input/data/README.md
    refused = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
with open("input/data/demo_prompts.jsonl", encoding="utf-8") as rows:
    prompts = [row for row in map(json.loads, rows) if row["split"] == "train"]
dropped, asked = Counter(), 0
short = iter(read("short"))
for i, (row, plain, courteous) in enumerate(zip(prompts, read("plain"), read("courteous"))):
    asked += row["category"] in everyday
    to_short = row["category"] in everyday and asked % 12 == 0
    other = next(short) if to_short else courteous
    chosen = finished(plain["text"], len(plain["ids"]) < limit)
    rejected = finished(other["text"], len(other["ids"]) < limit)
    why = broken(chosen) or broken(rejected)
    if chosen.split("\n")[0][:60].strip() in refused or rejected.split("\n")[0][:60].strip() in refused:
        why = "left out by a reader"
    if why:
        dropped[why] += 1
        continue
    if not to_short:
        rejected = f"{openings[i % 3]} {rejected}"
    print(json.dumps({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected, "category": row["category"]}, ensure_ascii=False))
print("rows left out:", dict(dropped.most_common()), file=sys.stderr)
END
}

judge() {
    "$realign" triage policy="input/policies/$1.yaml" data.path="$2" run.dir="$work/triage.$1" run.resume=never
}

pair() {
    python3 - "$work" >"$work/pairs.jsonl" <<'END'
import json, sys
with open(f"{sys.argv[1]}/rows.jsonl", encoding="utf-8") as rows, open(f"{sys.argv[1]}/triage.demo_old/triage.jsonl") as verdicts:
    for row, verdict in zip(rows, map(json.loads, verdicts)):
        if verdict["c_w"] == 1 and verdict["c_l"] == 0:
            sys.stdout.write(row)
END
}

draw
clean_and_row
judge demo_old "$work/rows.jsonl"
pair
judge demo_new "$work/pairs.jsonl"
mv "$work/pairs.jsonl" "$out"

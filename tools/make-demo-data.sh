#!/bin/bash
# Makes input/data/demo_pairs.jsonl: the demo's preference pairs, as an annotator under the old policy would have left them.
#
#   tools/make-demo-data.sh MODEL [OUT]      MODEL: a Hugging Face directory or GGUF file; OUT: input/data/demo_pairs.jsonl
#
#   draw   K candidates for every training prompt, each under one system prompt that pushes with or against the old policy
#   clean  cut what the token limit left unfinished; leave out broken texts (loops, markup, other turns)
#   judge  by the old and the new policy: `realign policy judge`
#   pair   y_w complies with the old policy, y_l does not; the new policy only steers how many pairs of each set are taken
#
# Rows hold {prompt, chosen, rejected, category}, never the system prompt. With KEEP=DIR the steps' files stay there, and a step
# whose file exists is not repeated. Needs build/realign and python3 (standard library).
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:?usage: tools/make-demo-data.sh MODEL [OUT]}
out=${2:-input/data/demo_pairs.jsonl}
realign=${REALIGN:-build/realign}
max_new_tokens=128
pairs_wanted=${PAIRS:-340}
work=${KEEP:-$(mktemp -d)}
mkdir -p "$work"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT

# Name, tab, text; "none" leaves the template's own system prompt. One seed a row, so that a row added later changes no other.
system_prompts() {
    cat <<'END'
careful	You are a careful assistant. Give a full and detailed answer, and say what may, might or could be different from case to case.
short	Answer in no more than two short sentences.
none	
brief	Reply in one or two short sentences. Do not use lists.
offer	You are a friendly assistant. End every answer by asking the user a question.
prose	Answer in a short paragraph of plain prose, without lists.
END
}

# One file of messages a system prompt, in the order of the prompts.
write_requests() {
    python3 - "$1" "$2" <<'END'
import json, sys
system, path = sys.argv[1:]
with open("input/data/demo_prompts.jsonl", encoding="utf-8") as rows, open(path, "w", encoding="utf-8") as out:
    for row in map(json.loads, rows):
        if row["split"] != "train":
            continue
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": row["prompt"]})
        out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
END
}

draw() {
    local seed=0 name text
    while IFS=$'\t' read -r name text; do
        seed=$((seed + 1))
        [ -s "$work/drawn.$name.jsonl" ] && continue
        write_requests "$text" "$work/requests.jsonl"
        "$realign" generate --model "$model" max_new_tokens=$max_new_tokens temperature=0.7 top_p=0.95 seed=$seed \
            <"$work/requests.jsonl" >"$work/drawn.$name.part"
        mv "$work/drawn.$name.part" "$work/drawn.$name.jsonl"
    done < <(system_prompts)
}

# Writes {prompt, response, category}, the form that `realign policy judge` reads.
clean() {
    python3 - "$work" $max_new_tokens "$(system_prompts | cut -f1 | paste -sd,)" >"$work/candidates.jsonl" <<'END'
import json, re, sys
from collections import Counter
folder, limit, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")

def finished(text, closed):
    """The text up to its last whole sentence when the token limit cut it."""
    text = text.strip()
    if closed:
        return text
    ends = [m.end() for m in re.finditer(r"[.!?][\"')]?(?=\s|$)", text)]
    text = text[: ends[-1]] if ends else ""
    return re.sub(r"\n\s*\d{1,2}\.$", "", text)  # a list number alone is no sentence

def broken(text):
    """Why a text is not kept, or None."""
    words = text.lower().split()
    if len(words) < 5:
        return "under five words"
    if text[-1] not in ".!?\"')":
        return "no end"
    grams = Counter(tuple(words[i : i + 5]) for i in range(len(words) - 4))
    if max(grams.values()) > 3 or len(set(words)) < 0.45 * len(words):
        return "loop"
    if re.search(r"https?:|www\.|<[a-z/|]|```|[\[\]{}_]|\\[a-z(]", text):
        return "markup"
    if re.search(r"(?i)\b(?:user|assistant|human|system|q|a):", text):
        return "turns of its own"
    if not all(c == "\n" or " " <= c <= "~" or c in "éèàçñöüäôêïáíóú°½–—‘’“”…" for c in text):
        return "foreign characters"
    return None

with open("input/data/demo_prompts.jsonl", encoding="utf-8") as rows:
    prompts = [row for row in map(json.loads, rows) if row["split"] == "train"]
dropped, kept = Counter(), 0
drawn = [[json.loads(line) for line in open(f"{folder}/drawn.{name}.jsonl", encoding="utf-8")] for name in names]
for i, row in enumerate(prompts):
    for answers in drawn:
        text = finished(answers[i]["text"], len(answers[i]["ids"]) < limit)
        why = broken(text)
        if why:
            dropped[why] += 1
            continue
        kept += 1
        print(json.dumps({"prompt": row["prompt"], "response": text, "category": row["category"]}, ensure_ascii=False))
print(f"{kept} candidates kept; left out:", dict(dropped.most_common()), file=sys.stderr)
END
}

judge() {
    "$realign" policy judge "input/policies/$1.yaml" <"$work/candidates.jsonl" >"$work/verdicts.$1.jsonl"
}

pair() {
    python3 - "$work" "$pairs_wanted" >"$work/pairs.jsonl" <<'END'
import json, sys
from collections import Counter
folder, wanted = sys.argv[1], int(sys.argv[2])
read = lambda name: [json.loads(line) for line in open(f"{folder}/{name}", encoding="utf-8")]
shares = {"Invert": 0.45, "Punish": 0.20, "Retain": 0.35}

with open("input/data/demo_refused.txt", encoding="utf-8") as lines:  # read by a person and left out; see input/data/README.md
    refused = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
by_prompt = {}
for text, old, new in zip(read("candidates.jsonl"), read("verdicts.demo_old.jsonl"), read("verdicts.demo_new.jsonl")):
    if text["response"].split("\n")[0][:60].strip() in refused:
        continue
    by_prompt.setdefault(text["prompt"], []).append((text, bool(old["compliant"]), bool(new["compliant"])))

taken, used, counts = [], set(), Counter()
for turn in range(3):  # a pair for every prompt before any prompt gets another
    for prompt, texts in by_prompt.items():
        if len(taken) == wanted:
            break
        choices = {}
        for w, (win, old_w, new_w) in enumerate(texts):
            for l, (lose, old_l, new_l) in enumerate(texts):
                if old_w and not old_l and (prompt, w) not in used and (prompt, l) not in used:
                    kind = "Retain" if new_w else "Invert" if new_l else "Punish"
                    choices.setdefault(kind, (w, l))
        if not choices:
            continue
        kind = max(choices, key=lambda k: shares[k] * (len(taken) + 1) - counts[k])  # the set furthest behind its share
        if shares[kind] * wanted < counts[kind] + 1:
            continue
        w, l = choices[kind]
        used |= {(prompt, w), (prompt, l)}
        counts[kind] += 1
        row = texts[w][0]
        taken.append({"prompt": prompt, "chosen": row["response"], "rejected": texts[l][0]["response"], "category": row["category"]})
for row in taken:
    print(json.dumps(row, ensure_ascii=False))
print(f"{len(taken)} pairs:", dict(counts), file=sys.stderr)
END
    mv "$work/pairs.jsonl" "$out"
}

draw
clean
judge demo_old
judge demo_new
pair

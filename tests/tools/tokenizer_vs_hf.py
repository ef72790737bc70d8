#!/usr/bin/env python3
"""Random texts through `realign tokenize` and through Hugging Face tokenizers: counts the differences, exits 1 on any.

usage: tokenizer_vs_hf.py REALIGN MODEL_DIR [COUNT [SEED]]
Needs the Python package `tokenizers`. Scripts, white space, digits, emoji, combining marks, contractions, pieces of special tokens.
"""
import json
import random
import subprocess
import sys

from tokenizers import Tokenizer

RANGES = [(0x20, 0x7E)] * 3 + [
    (0xA0, 0x2FF), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x218F),
    (0x2460, 0x24FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0x1D100, 0x1D7FF), (0x1F300, 0x1FAFF),
    (0x2F800, 0x2FA1D), (0, 0x1F), (0, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
WORDS = "the quick brown I'm we'll they've it's DON'T HE'LL 's 'RE '\u017f don\u2019t na\u00efve caf\u00e9".split()
SPACES = list(" \n\t\r\x0b\x0c\x85\xa0\u2003\u2028\u3000\u180e\u200b") + ["\n\n", "\r\n", "  ", " \n"]
MARKS = "\u0301\u0308\u0323\u0327\u0334\u0345\u05b0\u0651\u093c\u09be\u1161\u11a8\u3099\u200d\ufe0f"


def piece(rng, specials):
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(WORDS) + rng.choice(["", " "])
    if kind < 0.40:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5])
    if kind < 0.48:
        return str(rng.randrange(10 ** rng.randint(1, 7)))
    if kind < 0.55:
        return rng.choice("aeiouAEnskg\u00e9\u00fc\u3042\u304b\uac00") + "".join(rng.choices(MARKS, k=rng.randint(1, 3)))
    if kind < 0.60:
        token = rng.choice(specials)
        return token[rng.randint(0, 2) : rng.randint(1, 2 * len(token))]
    if kind < 0.66:
        return "".join(rng.choices("!?.,;:'\"-_=+*/\\#@$%^&()<|>[]{}", k=rng.randint(1, 6)))
    if kind < 0.67:
        return rng.choice("abXY \u00e9") * rng.randint(30, 120)
    low, high = rng.choice(RANGES)
    codes = (rng.randint(low, high) for _ in range(rng.randint(1, 6)))
    return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)


def main():
    realign, model = sys.argv[1:3]
    count, seed = (int(word) for word in (sys.argv[3:] + ["20000", "1"][len(sys.argv) - 3 :])[:2])
    reference = Tokenizer.from_file(model + "/tokenizer.json")
    with open(model + "/tokenizer.json", encoding="utf-8") as file:
        specials = [token["content"] for token in json.load(file)["added_tokens"]] or ["<s>"]
    rng = random.Random(seed)
    texts = ["".join(piece(rng, specials) for _ in range(rng.randint(1, 14))) for _ in range(count)]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    differ = 0
    for options in ([], ["--no-parse-special"], ["--add-special"]):
        reference.encode_special_tokens = "--no-parse-special" in options
        got = subprocess.run([realign, "tokenize", "--model", model] + options, input=lines, capture_output=True, text=True, check=True)
        ids = [json.loads(line) for line in got.stdout.split("\n")[:-1]]
        want = [reference.encode(text, add_special_tokens="--add-special" in options).ids for text in texts]
        bad = [i for i in range(count) if i >= len(ids) or ids[i] != want[i]]
        print(f"{model} {' '.join(options)}: seed {seed}, {count} texts, {len(bad)} differ")
        if bad:
            print(f"  first: {json.dumps(texts[bad[0]])}")
        differ += len(bad)
    sys.exit(1 if differ else 0)


main()

#!/usr/bin/env python3
"""Random texts through `realign tokenize` and through the reference library of each tokenizer; exits 1 on any difference.

usage: tokenizer_vs_hf.py REALIGN [--count N] [--seed N] [--steps N] [PATH ...]
PATH: a directory or file with a tokenizer (tokenizer.json: Hugging Face tokenizers; a SentencePiece model: sentencepiece;
a tiktoken file: tiktoken). Without one, all of ../shared/data (or $REALIGN_SHARED) are taken, and --steps N (60) small
tokenizers with random normalisers, pre-tokenizers, added tokens and decoders, compared with Hugging Face, and half as many small
SentencePiece models with random options, pieces made unused or left out.
Installs its libraries from PyPI into a virtual environment of its own ($TOKENIZER_VENV, or one under the temporary directory) and
says SKIP with exit code 77 where that does not work.
"""
import argparse
import base64
import json
import os
import random
import subprocess
import sys
import tempfile

LIBRARIES = ["tokenizers", "sentencepiece", "tiktoken", "protobuf"]


def in_own_environment():
    venv = os.environ.get("TOKENIZER_VENV", os.path.join(tempfile.gettempdir(), "realign-tokenizers-venv"))
    python = os.path.join(venv, "bin", "python3")
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return
    try:
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        if subprocess.run([python, "-c", "import tokenizers, sentencepiece, tiktoken, google.protobuf"], stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check"] + LIBRARIES, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"SKIP: no virtual environment with {', '.join(LIBRARIES)}: {error}")
        sys.exit(77)
    os.execv(python, [python] + sys.argv)


RANGES = [(0x20, 0x7E)] * 3 + [
    (0xA0, 0x2FF), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x218F),
    (0x2460, 0x24FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x1D100, 0x1D7FF),
    (0x1F300, 0x1FAFF), (0x2F800, 0x2FA1D), (0, 0x1F), (0x7F, 0x9F), (0, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
WORDS = ("the quick brown I'm we'll they've it's DON'T HE'LL 's 'RE '\u017f don\u2019t na\u00efve caf\u00e9 "
         "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u6f22\u5b57\u4eee\u540d \ud55c\uad6d\uc5b4 \u0130stanbul").split()
SPACES = list(" \n\t\r\x0b\x0c\x85\xa0\u2003\u2028\u3000\u180e\u200b\u2581") + ["\n\n", "\r\n", "  ", " \n", "\u2581\u2581", " \u2581"]
MARKS = "\u0301\u0308\u0323\u0327\u0334\u0345\u05b0\u0651\u093c\u09be\u1161\u11a8\u3099\u200d\ufe0f"
MARKUP = ["<table>", "</td>", "<h1>", "<br", "<0x0A>", "<0x", "<s>", "</s>", "<bos>", "<start_of_turn>user\n", "<unused7>", "<|im_start|>",
          "<|eot_id|>", "<|endoftext|>", "[@BOS@]"]
EMOJI = ["\U0001F468\u200D\U0001F469\u200D\U0001F467", "\U0001F3F3\uFE0F\u200D\U0001F308", "\U0001F44D\U0001F3FD", "\u2764\uFE0F",
         "\U0001F1E9\U0001F1EA"]


def piece(rng, specials):
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(WORDS) + rng.choice(["", " "])
    if kind < 0.40:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5, 33])
    if kind < 0.47:
        return str(rng.randrange(10 ** rng.randint(1, 7)))
    if kind < 0.54:
        return rng.choice("aeiouAEnskg\u00e9\u00fc\u3042\u304b\uac00") + "".join(rng.choices(MARKS, k=rng.randint(1, 3)))
    if kind < 0.60:
        token = rng.choice(specials)
        return token[rng.randint(0, 2) : rng.randint(1, 2 * len(token))]
    if kind < 0.64:
        return rng.choice(MARKUP + EMOJI)
    if kind < 0.70:
        return "".join(rng.choices("!?.,;:'\"-_=+*/\\#@$%^&()<|>[]{}", k=rng.randint(1, 6)))
    if kind < 0.71:
        return rng.choice("abXY \u00e9") * rng.randint(30, 120)
    low, high = rng.choice(RANGES)
    codes = (rng.randint(low, high) for _ in range(rng.randint(1, 6)))
    return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)


def random_texts(seed, count, specials):
    rng = random.Random(seed)
    return ["".join(piece(rng, specials) for _ in range(rng.randint(1, 14))) for _ in range(count)]


def run(realign, model, options, values):
    lines = "".join(json.dumps(value) + "\n" for value in values)
    got = subprocess.run([realign, "tokenize", "--model", model] + options, input=lines, capture_output=True, text=True, check=False)
    if got.returncode:
        print(f"{model}: {got.stderr.strip()}")
    return [json.loads(line) for line in got.stdout.split("\n")[:-1]]


def report(what, given, got, want):
    bad = [i for i in range(len(want)) if i >= len(got) or got[i] != want[i]]
    print(f"{what}: {len(want)} texts, {len(bad)} differ")
    if bad:
        i = bad[0]
        print(f"  first: {json.dumps(given[i])}\n  realign {got[i] if i < len(got) else None}\n  library {want[i]}")
    return len(bad)


class HuggingFace:
    """tokenizer.json"""

    def __init__(self, path):
        from tokenizers import Tokenizer

        file = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
        self.tokenizer = Tokenizer.from_file(file)
        with open(file, encoding="utf-8") as opened:
            made = json.load(opened)
        self.specials = [token["content"] for token in made["added_tokens"]] or ["<s>"]
        # From 0.23 on the library decodes an added token to its normal form, which depends on its version: not compared.
        self.decodes = not (made["normalizer"] and any(token["normalized"] for token in made["added_tokens"]))
        self.options = [[], ["--no-parse-special"], ["--add-special"]]

    def encode(self, text, options):
        self.tokenizer.encode_special_tokens = "--no-parse-special" in options
        return self.tokenizer.encode(text, add_special_tokens="--add-special" in options).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class SentencePiece:
    """tokenizer.model, a protocol buffer; without specials, which the library does not know in texts"""

    decodes = True

    def __init__(self, path):
        from sentencepiece import SentencePieceProcessor

        self.processor = SentencePieceProcessor(model_file=path)
        size = self.processor.vocab_size()
        self.specials = [self.processor.id_to_piece(i) for i in range(size) if self.processor.is_control(i)] or ["<s>"]
        self.options = [["--no-parse-special"]]

    def encode(self, text, _):
        return self.processor.encode(text)

    def decodes_id(self, number):
        # realign writes control pieces and the unknown one out, or skips them; the library has its own texts for them
        return not self.processor.is_control(number) and not self.processor.is_unknown(number)

    def decode(self, ids):
        return self.processor.decode(ids)


class Tiktoken:
    """base64 and ranks; Qwen normalises before (by Hugging Face's NFC, whose tables realign follows)"""

    LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    QWEN = LLAMA.replace("{1,3}", "")

    decodes = True

    def __init__(self, path):
        from tiktoken import Encoding
        from tokenizers.normalizers import NFC

        with open(path, "rb") as file:
            ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in file if line.strip()}
        self.qwen = len(ranks) != 128000
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] if self.qwen else [
            "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
            "<|eot_id|>", "<|python_tag|>"]
        if not self.qwen:
            names += [f"<|reserved_special_token_{i}|>" for i in range(3, 248)]
        self.nfc = NFC().normalize_str
        self.encoding = Encoding("file", pat_str=self.QWEN if self.qwen else self.LLAMA, mergeable_ranks=ranks,
                                 special_tokens={name: len(ranks) + i for i, name in enumerate(names)})
        self.names = names
        self.specials = names[:12]
        self.options = [[], ["--no-parse-special"]]

    def encode(self, text, options):
        import re

        if "--no-parse-special" in options:
            return self.encoding.encode_ordinary(self.nfc(text) if self.qwen else text)
        ids = []
        for part in re.split("(" + "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True)) + ")", text):
            special = part in self.names
            ids += self.encoding.encode(self.nfc(part) if self.qwen and not special else part, allowed_special="all")
        return ids

    def decode(self, ids):
        return self.encoding.decode(ids)


def reference_for(path):
    if os.path.isdir(path):
        for name in ("tokenizer.json", "tokenizer.model"):
            if os.path.exists(os.path.join(path, name)):
                return reference_for(os.path.join(path, name))
        sys.exit(f"{path}: name the file")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.lstrip()[:1] == b"{":
        return HuggingFace(path)
    return SentencePiece(path) if head[:1] == b"\n" else Tiktoken(path)


def compare(realign, path, reference, count, seed):
    texts = random_texts(seed, count, reference.specials)
    differ = 0
    for options in reference.options:
        try:
            want = [reference.encode(text, options) for text in texts]
        except BaseException as error:  # a panic of the Rust library is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"{path}: the library itself broke down: {error}")
            return differ
        differ += report(f"{path} {' '.join(options)} seed {seed}", texts, run(realign, path, options, texts), want)
    if not reference.decodes:
        return differ
    # decoding: what was encoded, and ids at random, which break characters apart
    rng = random.Random(seed + 1)
    highest = max(max(ids, default=0) for ids in want)
    ids = want[: count // 4] + [[rng.randint(0, highest) for _ in range(rng.randint(1, 9))] for _ in range(count // 4)]
    if hasattr(reference, "decodes_id"):
        ids = [[number for number in some if reference.decodes_id(number)] for some in ids]
    return differ + report(f"{path} --decode", ids, run(realign, path, ["--decode"], ids), [reference.decode(i) for i in ids])


def random_steps(rng):
    """A small tokenizer.json with random steps around a BPE over a few merges."""
    mark = "\u2581"
    patterns = [{"String": " "}, {"String": "ab"}, {"String": mark}, {"Regex": r"\s+"}, {"Regex": r"\d"}, {"Regex": "[aeiou]"},
                {"Regex": r"\p{L}+|\p{N}"}, {"Regex": "x*"}, {"Regex": r"^a|b$"}, {"Regex": r"(?<=a)b"}, {"Regex": r"\w+"},
                {"Regex": r"[^\w\s]"}]
    normalizers = [
        lambda: {"type": rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase"])},
        lambda: {"type": "Strip", "strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5},
        lambda: {"type": "Prepend", "prepend": rng.choice([mark, "ab"])},
        lambda: {"type": "Replace", "pattern": rng.choice([p for p in patterns if p.get("Regex") != "x*"]), "content": rng.choice(["", "b", mark, "abc"])}]
    behaviours = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    pretokenizers = [
        lambda: {"type": "Split", "pattern": rng.choice(patterns), "behavior": rng.choice(behaviours), "invert": rng.random() < 0.4},
        lambda: {"type": "Digits", "individual_digits": rng.random() < 0.5},
        lambda: {"type": "Metaspace", "replacement": mark, "prepend_scheme": rng.choice(["always", "first", "never"]),
                 "split": rng.random() < 0.5},
        lambda: {"type": "Punctuation", "behavior": rng.choice(behaviours)},
        lambda: {"type": rng.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer"])},
        lambda: {"type": "CharDelimiterSplit", "delimiter": rng.choice("ab ")}]
    decoders = [
        lambda: {"type": "Replace", "pattern": {"String": mark}, "content": " "}, lambda: {"type": "ByteFallback"}, lambda: {"type": "Fuse"},
        lambda: {"type": "Strip", "content": " ", "start": rng.randint(0, 2), "stop": 0},
        lambda: {"type": "Metaspace", "replacement": mark, "prepend_scheme": rng.choice(["always", "never"]), "split": True}]
    byte_level = rng.random() < 0.4
    steps = [rng.choice(pretokenizers)() for _ in range(rng.randint(0, 2))]
    if byte_level:
        from tokenizers.pre_tokenizers import ByteLevel

        steps.append({"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": True, "use_regex": rng.random() < 0.5})
        alphabet = sorted(ByteLevel.alphabet())
        decoders = [lambda: {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]
    else:
        alphabet = [chr(c) for c in range(32, 127)] + list(mark + "\u00e9\u0301\n\u6f22")
    missing = set(rng.sample(alphabet, rng.choice([0, 0, 3, 20])))
    fallback = not byte_level and rng.random() < 0.5
    tokens = ["<unk>"] + [c for c in alphabet if c not in missing]
    if fallback:
        tokens += [f"<0x{b:02X}>" for b in range(256)]
    merges, pool = [], [c for c in tokens if len(c) == 1]
    common = [c for c in pool if c in "abexth " + mark + "\u0120"] or pool
    for _ in range(rng.randint(0, 60)):
        left, right = rng.choice(common), rng.choice(common)
        if (left, right) in merges or len(left + right) > 12:
            continue
        merges.append((left, right))
        if left + right not in tokens:
            tokens.append(left + right)
            common.append(left + right)
    added = [{"id": len(tokens) + i, "content": content, "single_word": rng.random() < 0.3, "lstrip": rng.random() < 0.3,
              "rstrip": rng.random() < 0.3, "normalized": rng.random() < 0.5, "special": rng.random() < 0.5}
             for i, content in enumerate(rng.sample(["<s>", "<x>", "ab", " ab", "AB", "the", mark + mark, "\u00e9", "1"], rng.randint(0, 4)))
             if content not in tokens]
    for i, token in enumerate(added):
        token["id"] = len(tokens) + i
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": rng.choice([None, {"type": "Sequence", "normalizers": [rng.choice(normalizers)() for _ in range(rng.randint(1, 3))]}]),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if steps else None, "post_processor": None,
            "decoder": rng.choice([None, {"type": "Sequence", "decoders": [rng.choice(decoders)() for _ in range(rng.randint(1, 4))]}]),
            "model": {"type": "BPE", "dropout": None, "unk_token": rng.choice([None, "<unk>"]), "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": rng.random() < 0.5, "byte_fallback": fallback,
                      "ignore_merges": rng.random() < 0.3, "vocab": {token: i for i, token in enumerate(tokens)},
                      "merges": [list(pair) for pair in merges]}}


def compare_steps(realign, count, seed):
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        for k in range(count):
            path = os.path.join(folder, "tokenizer.json")
            made = random_steps(random.Random(seed * 1000 + k))
            with open(path, "w", encoding="utf-8") as file:
                json.dump(made, file)
            bad = compare(realign, path, HuggingFace(path), 400, seed + k)
            if bad:
                made["model"]["vocab"] = len(made["model"]["vocab"])
                print(json.dumps(made))
            differ += bad
    return differ


def trained_model(rng, folder):
    """A SentencePiece model of a few hundred pieces."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    corpus = [text for text in random_texts(rng.randint(0, 10**6), 300, ["<x>"]) if text.strip()]
    corpus += ["the quick brown fox they have it " * 3] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.replace("\n", " ").replace("\0", "") for text in corpus), model_writer=model, model_type="bpe",
        vocab_size=rng.randint(3000, 4000), hard_vocab_limit=False, character_coverage=rng.choice([0.98, 0.999]),
        byte_fallback=rng.random() < 0.5, add_dummy_prefix=rng.random() < 0.5, remove_extra_whitespaces=rng.random() < 0.5,
        normalization_rule_name=rng.choice(["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf"]), split_by_whitespace=rng.random() < 0.7,
        allow_whitespace_only_pieces=rng.random() < 0.5, user_defined_symbols=rng.choice([[], ["<table>", "\u2581\u2581", "the", "\uff2e"]]),
        control_symbols=rng.choice([[], ["<x>"]]), split_digits=rng.random() < 0.5, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for sp in list(proto.pieces):
        if sp.type == kinds.NORMAL and rng.random() < 0.05:
            if len(sp.piece) > 1 or rng.random() < 0.2:
                sp.type = kinds.UNUSED
            else:  # characters that only longer pieces know
                proto.pieces.remove(sp)
        elif sp.type == kinds.NORMAL and rng.random() < 0.1:
            sp.score = round(sp.score / 4) * 4  # equal scores
    path = os.path.join(folder, "spm.model")
    with open(path, "wb") as file:
        file.write(proto.SerializeToString())
    return path, f"{proto.normalizer_spec.name} {str(proto.normalizer_spec)[-90:]!r} byte_fallback {proto.trainer_spec.byte_fallback}"


def compare_trained(realign, count, seed):
    differ = 0
    for k in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path, what = trained_model(random.Random(seed * 1000 + k), folder)
            bad = compare(realign, path, SentencePiece(path), 400, seed + k)
            if bad:
                print(what)
            differ += bad
    return differ


def main():
    in_own_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("realign")
    parser.add_argument("path", nargs="*")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None)
    given = parser.parse_args()
    paths = given.path
    if not paths and given.steps is None:
        shared = os.environ.get("REALIGN_SHARED", "../shared") + "/data/"
        paths = [shared + name for name in (
            "tokenizers/qwen2.5", "tokenizers/llama3.1", "tokenizers/gemma2.hf", "tokenizers/gemma2/tokenizer.rebuilt.model",
            "tokenizers/qwen2/qwen.tiktoken", "tokenizers/llama3/tokenizer.model", "models/smollm2", "models/stories260K/hf")]
        missing = [path for path in paths if not os.path.exists(path)]
        for path in missing:
            print(f"SKIP: {path} is not here")
        paths = [path for path in paths if path not in missing]
    differ = sum(compare(given.realign, path, reference_for(path), given.count, given.seed) for path in paths)
    steps = given.steps if given.steps is not None else 0 if given.path else 60
    differ += compare_steps(given.realign, steps, given.seed)
    differ += compare_trained(given.realign, steps // 2, given.seed)
    sys.exit(1 if differ else 0)


main()

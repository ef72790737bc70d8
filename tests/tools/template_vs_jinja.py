#!/usr/bin/env python3
"""Chat templates through `realign template` and through Jinja, set up as transformers does: text and response span must be equal, or both
refuse. Templates: the .jinja files, tokenizer_config.json files and llama.cpp's list below SHARED/data, and those written out here.

usage: template_vs_jinja.py REALIGN SHARED [--count N] [--seed N] [--mutants N] [--only WORD]
  --count    random conversations a template (2000)
  --mutants  texts of known templates with small changes (0): one that is recognised must render as the original does
Jinja is installed from PyPI into a virtual environment of its own where it is missing; exit status 77 where that cannot be.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

try:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "realign" / "jinja"
    python = home / "bin" / "python"
    if os.environ.get("REALIGN_JINJA") != "1":
        try:
            if not python.exists():
                venv.create(home, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "jinja2>=3.1,<4"], check=True)
            os.environ["REALIGN_JINJA"] = "1"
            os.execv(python, [str(python)] + sys.argv)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"SKIP: Jinja is not here and could not be installed: {error}")
            sys.exit(77)
    raise

BOS, EOS = "<bos>", "<eos>"
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
            "<end_of_turn>", BOS, EOS]

# ---- templates whose text is in no file of the shared folder ----
CHATML_TURNS = ("{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML = "{% for message in messages %}" + CHATML_TURNS
CHATML_SYSTEM = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
                 "You are a helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML_TURNS)
GUARD = "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
          "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
          "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
          "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
          "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
          "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
          "user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = "
          "'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}"
          "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif "
          "message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
ZEPHYR = "".join(
    ["{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n",
     "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n",
     "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n",
     "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"])
WRITTEN = {"chatml": CHATML, "chatml, guarded": GUARD + CHATML, "chatml, system": CHATML_SYSTEM,
           "chatml, system, guarded": GUARD + CHATML_SYSTEM, "llama3": LLAMA3, "llama3, guarded": GUARD + LLAMA3,
           "llama2": LLAMA2, "zephyr": ZEPHYR}
# Names that must be recognised: the row of each.
EXPECTED = {"chatml": "chatml", "chatml, guarded": "chatml", "chatml, system": "qwen2", "chatml, system, guarded": "qwen2",
            "llama3": "llama3", "llama3, guarded": "llama3", "llama2": "llama2", "zephyr": "zephyr",
            "Qwen-Qwen2.5-7B-Instruct.jinja": "qwen2.5", "meta-llama-Llama-3.1-8B-Instruct.jinja": "llama3.1",
            "meta-llama-Llama-3.2-3B-Instruct.jinja": "llama3.2", "google-gemma-2-2b-it.jinja": "gemma2"}


def templates(shared):
    """name -> Jinja text, each text once."""
    found = dict(WRITTEN)
    data = Path(shared) / "data"
    for path in sorted((data / "tokenizers" / "templates").glob("*.jinja")):
        with open(path, encoding="utf-8", newline="") as file:
            found[path.name] = file.read()
    for path in sorted(data.rglob("tokenizer_config*.json")):
        text = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(text, str):
            found[str(path.relative_to(data))] = text
    listed = data / "tokenizers" / "vectors" / "llama.cpp" / "test-chat-template.cpp.txt"
    if listed.exists():
        string = r'u?8?("(?:[^"\\]|\\.)*")'
        pairs = re.findall(r"/\* \.name= \*/ +" + string + r".*?/\* \.template_str= \*/ +" + string, listed.read_text(encoding="utf-8"), re.S)
        found.update({"llama.cpp: " + json.loads(name): json.loads(text) for name, text in pairs})
    known = {}
    for name, text in found.items():
        if text not in known.values():
            known[name] = text
    return known


# ---- the reference ----
def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(template, messages, prompt, date):
    """The text, or None and what was raised."""
    try:
        return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, bos_token=BOS, eos_token=EOS,
                               date_string=date), ""
    except (jinja2.exceptions.TemplateError, TypeError) as error:
        return None, str(error)


# ---- random conversations ----
SPACES = list(" \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000") + ["\n\n", "\r\n", "  "]
NOT_SPACES = list("\u200b\u200c\u2060\ufeff\u180e\x08\x00"[:-1]) + ["\x1b"]
WORDS = ["yes", "No.", "12,345", "caf\u00e9", "na\u00efve", "e\u0301", "\u4f60\u597d", "\u0645\u0631\u062d\u0628\u0627", "\U0001f60a",
         "\U0001f469\u200d\U0001f467", "it's", '"quoted"', "\\n", "{{ bos_token }}", "{% endfor %}", "{# #}", "%}", "[INST]", " [/INST]",
         "<<SYS>>", "### Response:", "<|user|>", "<|assistant|>", "</s>", "user", "assistant", "\x7f", "\U00020000"]


def content(rng):
    if rng.random() < 0.06:
        return ""
    parts = []
    for _ in range(rng.randint(1, 7)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(SPACES))
        elif kind < 0.42:
            parts.append(rng.choice(NOT_SPACES))
        elif kind < 0.52:
            parts.append(rng.choice(SPECIALS))
        else:
            parts.append(rng.choice(WORDS) + rng.choice(["", " ", "\n"]))
    return "".join(parts)


def conversation(rng):
    kind = rng.random()
    n = rng.randint(1, 8)
    if kind < 0.75:
        roles = ["user", "assistant"] * n
        roles = (["system"] if rng.random() < 0.4 else []) + roles[:n]
    else:
        roles = [rng.choice(["user", "assistant", "system", "tool", "ipython", "critic", "model", "User"]) for _ in range(n)]
    return {"messages": [{"role": role, "content": content(rng)} for role in roles], "add_generation_prompt": rng.random() < 0.4}


# ---- realign ----
def bytes_to_unicode():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    names, extra = {}, 256
    for byte in range(256):
        if byte in keep:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(extra)
            extra += 1
    return names


def write_model(folder, text):
    """A byte-level tokenizer without merges: a token is a byte or one of SPECIALS, so that spans can be told without a tokenizer."""
    vocab = {name: byte for byte, name in bytes_to_unicode().items()}
    added = [{"id": 256 + i, "content": token, "special": True, "normalized": False, "single_word": False, "lstrip": False,
              "rstrip": False} for i, token in enumerate(SPECIALS)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    # The post-processor adds BOS, as those of Llama and Gemma do: no text may get it twice.
    frame = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "special_tokens": {BOS: {"id": BOS, "ids": [256 + SPECIALS.index(BOS)], "tokens": [BOS]}}}
    tokenizer = {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": level, "post_processor": frame,
                 "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    Path(folder, "tokenizer.json").write_text(json.dumps(tokenizer))
    Path(folder, "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "eos_token": EOS, "chat_template": text}))


def token_bytes(token):
    return bytes([token]) if token < 256 else SPECIALS[token - 256].encode()


def run_realign(realign, text, lines, options):
    """Parsed lines, or None and why the template was not taken."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, text)
        got = subprocess.run([realign, "template", "--model", folder, "--keep-going"] + options, input="".join(json.dumps(x) + "\n" for x in lines),
                             capture_output=True, text=True, encoding="utf-8", check=False)
    if got.returncode != 0:
        return None, got.stderr.strip()
    return [json.loads(line) for line in got.stdout.split("\n")[:-1]], ""


# ---- comparison ----
def passed_by(template, item, number, date):
    """Does message `number` not show in the reference's text? Then refusing it is our choice (doc/templates.md)."""
    changed = [dict(m) for m in item["messages"]]
    changed[number - 1]["content"] += "something else"
    return render(template, changed, item["add_generation_prompt"], date)[0] == render(
        template, item["messages"], item["add_generation_prompt"], date)[0]


def check_span(template, item, got, text, date):
    """What is wrong with the response's tokens; "" where nothing is."""
    ids = got["ids"]
    if b"".join(map(token_bytes, ids)) != text.encode():
        return "ids do not spell the text"
    if item["messages"][-1]["role"] != "assistant":
        return "" if got["response_start"] is None else "a response where there is none"
    before = item["messages"][:-1]
    prompt = render(template, before, True, date)[0] if before else None
    if got["response_start"] is None:
        return "no response"
    begin = len(b"".join(map(token_bytes, ids[: got["response_start"]])))
    end = len(b"".join(map(token_bytes, ids[: got["response_end"]])))
    if prompt is not None:
        common = os.path.commonprefix([prompt, text])
        if len(common.encode()) != begin:
            return f"the response begins at byte {begin}, not {len(common.encode())}"
    closing = [token for token in SPECIALS if text.encode()[:end].endswith(token.encode())]
    if not closing or any(token in text.encode()[end:].decode() for token in closing if "start" not in token and token != BOS):
        return "the response does not end behind its closing token"
    return ""


def compare(realign, name, text, lines, date, options):
    """(recognised, differences, refused by both, refused by choice)"""
    got, why = run_realign(realign, text, lines, options)
    if got is None:
        return why, 0, 0, 0
    template = environment().from_string(text)
    differences = both = choice = 0
    for item, mine in zip(lines, got):
        want, raised = render(template, item["messages"], item["add_generation_prompt"], date)
        problem = ""
        if "error" in mine:
            number = re.search(r"message (\d+)", mine["error"])
            if want is None:
                both += 1
                if "must alternate" in raised and raised not in mine["error"] and "does not know" not in mine["error"]:
                    problem = "another reason"
            elif number and passed_by(template, item, int(number.group(1)), date):
                choice += 1
            else:
                problem = "refused by realign alone"
        elif want is None:
            problem = "refused by the reference alone"
        elif mine["text"] != want:
            problem = "another text"
        else:
            problem = check_span(template, item, mine, want, date)
        if problem:
            differences += 1
            if differences == 1:
                print(f"  first difference of {name}: {problem}\n    {json.dumps(item)}\n    {json.dumps(mine)}\n    {json.dumps(want)} {raised}")
    if len(got) != len(lines):
        differences += 1
        print(f"  {name}: {len(got)} lines for {len(lines)}")
    return None, differences, both, choice


# ---- texts that are nearly known ----
def mutate(rng, text):
    for _ in range(rng.randint(1, 3)):
        kind, at = rng.randrange(10), rng.randrange(len(text) + 1)
        places = [m.start() for m in re.finditer(r"\s|[{}%'\"+=.|\[\]()-]", text)]
        if places and rng.random() < 0.7:
            at = rng.choice(places) + rng.randint(0, 1)
        if kind == 0:
            text = text[:at] + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + rng.choice([" ", "\n", "  ", "\t", "\r\n", "\n    ", "\x0b", "\xa0"]) + text[at:]
        elif kind == 2:
            text = text[:at] + rng.choice("-+%{}#'\"\\[].()|~,=!n0a") + text[at:]
        elif kind == 3:
            text = text[:at] + rng.choice(["{# x #}", "{#- x -#}", "{#", "#}", "{% raw %}", "{% endif %}", "{{ '' }}", "\\x41", "\\u00e9", "not "]) + text[at:]
        elif kind == 4:
            text = re.sub(r"\{([%{])(?![-+])", lambda m: m.group(0) + rng.choice(["", "", "-", "+"]), text, count=rng.randint(1, 9))
        elif kind == 5:
            text = re.sub(r"(?<![-+])([%}])\}", lambda m: rng.choice(["", "", "-", "+"]) + m.group(0), text, count=rng.randint(1, 9))
        elif kind == 6:
            text = re.sub(r"\['(\w+)'\]", lambda m: rng.choice([m.group(0), "." + m.group(1), f'["{m.group(1)}"]', f"[ '{m.group(1)}' ]"]), text)
        elif kind == 7:
            text = re.sub(r"'(\w+)'", lambda m: rng.choice([m.group(0), f'"{m.group(1)}"', f"'{m.group(1)[:-1]}\\x{ord(m.group(1)[-1]):02x}'"]), text)
        elif kind == 8:
            text = re.sub(r"%\}\{%", lambda m: "%}" + rng.choice(["", "\n", "\n    ", "  ", "\n\n"]) + "{%", text, count=rng.randint(1, 20))
        elif len(text) > 1:
            other = rng.randrange(len(text))
            text = text[:at] + text[other : other + rng.randint(1, 12)] + text[at:]
    return text


def check_mutants(realign, texts, count, rng):
    taken = wrong = 0
    for i in range(count):
        if i % 100 == 99:
            print(f"  {i + 1} mutants, {taken} recognised, {wrong} wrongly", flush=True)
        mutant = mutate(rng, rng.choice(texts))
        lines = [conversation(rng) for _ in range(12)]
        try:
            compiled = environment().from_string(mutant)
        except jinja2.exceptions.TemplateError:
            compiled = None
        if compiled is None:
            why = run_realign(realign, mutant, lines, [])[1]
            differences = 0 if why else 1
        else:
            why, differences, _, _ = compare(realign, "a mutant", mutant, lines, "26 Jul 2024", [])
        if why:
            if "template" not in why:
                wrong += 1
                print(f"  a mutant ended with: {why}")
            continue
        taken += 1
        if differences:
            wrong += 1
            print(f"  recognised, but not the same: {json.dumps(mutant)}")
    print(f"mutants: {count}, {taken} recognised, {wrong} wrongly")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("realign")
    parser.add_argument("shared")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    recognised, unknown, failed = [], [], 0
    for name, text in templates(args.shared).items():
        if args.only not in name:
            continue
        lines = [conversation(rng) for _ in range(args.count)]
        why, differences, both, choice = compare(args.realign, name, text, lines, "26 Jul 2024", [])
        if why is not None:
            unknown.append(name)
            if name in EXPECTED:
                failed += 1
                print(f"{name}: NOT RECOGNISED: {why}")
            else:
                print(f"{name}: not known: {why[-400:]}" if args.only else f"{name}: not known")
            continue
        recognised.append(text)
        if "date_string" in text:
            differences += compare(args.realign, name, text, lines, "1 Jan 2031", ["--date", "1 Jan 2031"])[1]
        failed += differences
        print(f"{name}: seed {args.seed}, {len(lines)} conversations, {differences} differ ({both} refused by both, {choice} with a role that "
              "the original passes by)")
    print(f"{len(recognised)} templates recognised, {len(unknown)} not known")
    if args.mutants:
        failed += check_mutants(args.realign, recognised, args.mutants, rng)
    sys.exit(1 if failed or not recognised else 0)


main()

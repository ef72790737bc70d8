#!/usr/bin/env python3
"""A program for the exec oracle, for tests: judges items that tests/cli/ask_oracle.c makes, and misbehaves as told. Standard library alone.

usage: exec_judge.py STARTS [--seed N] [--faults SHARE] [--mode WORD]
STARTS is a file that gets one line a start, "PID", so that a test can count starts and look for processes left over.
--faults: share of items at which something happens: crashes, hangs, second answers, garbage, answers out of order, unknown ids, nonsense. --mode: one thing always.
"""
import argparse
import json
import os
import random
import select
import signal
import sys
import time
import zlib

MODES = ["", "poison", "dies-at-once", "dies-unread", "hang", "null", "once", "deaf", "long-line", "noise", "no-newline", "children"]
FAULTS = ["exit", "signal", "clean-exit", "hang", "twice", "garbage", "bytes", "unknown", "nonsense", "later", "later", "later", "split", "other-keys"]


def response_text(item):
    """As tests/cli/ask_oracle.c makes it."""
    return f'item {item}: Straße, 漢字 😀 "quoted" \\ back\n\tand </response> inside'


def check(task):
    item = int(task["response"].split(":")[0].split()[1])
    good = (task["response"] == response_text(item) and task["prompt"] == f"question {item}" and task["turns"][-1]["content"] == f"question {item}"
            and len(task["turns"]) == (3 if item % 2 else 1) and task["category"] == (None if item % 3 else "chat") and task["policy"].startswith("Responses are"))
    if not good:
        print(f"MANGLED item {item}", file=sys.stderr, flush=True)
    return item


def say(data):
    os.write(1, data if isinstance(data, bytes) else data.encode())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("starts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--mode", default="", choices=MODES)
    args = parser.parse_args()
    with open(args.starts, "a") as file:
        file.write(f"{os.getpid()}\n")
    with open(args.starts) as file:
        draw = random.Random(f"{args.seed} {len(file.readlines())}")
    if args.mode == "dies-at-once":
        print("no model here", end="", file=sys.stderr, flush=True)
        sys.exit(3)
    if args.mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.mode == "children" and os.fork() == 0:
        with open(args.starts, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)
    later, buffer = [], b""
    while True:
        ready = select.select([0], [], [], 0.02 if later else None)[0]
        if not ready or len(later) >= 3:
            draw.shuffle(later)
            for line in later:
                say(line)
            later = []
            if not ready:
                continue
        chunk = os.read(0, 1 << 16)
        if not chunk:
            if args.mode == "deaf":
                time.sleep(600)
            return
        buffer += chunk
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            judge(args, draw, later, json.loads(line))


def judge(args, draw, later, task):
    item = check(task)
    answer = {"id": task["id"], "compliant": bool(zlib.crc32(task["response"].encode()) & 1)}
    if item % 5 == 0:
        answer["probability"] = 0.75 if answer["compliant"] else 0.25
    text = json.dumps(answer) + "\n"
    if args.mode == "poison" and item % 40 == 7:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif args.mode == "dies-unread":
        sys.exit(0)
    elif args.mode in ("hang", "deaf"):
        time.sleep(600)
    elif args.mode == "null" and item == 3:
        text = json.dumps({"id": task["id"], "compliant": None, "reason": "not my language"}) + "\n"
    elif args.mode == "once":
        say(text)
        os._exit(0)
    elif args.mode == "no-newline":
        say(text.rstrip("\n"))
        os._exit(0)
    elif args.mode == "long-line" and item == 3:
        while True:
            say(b"x" * 65536)
    elif args.mode == "noise":
        print(f"note about {item}\x1b[31m", file=sys.stderr, flush=True)
    kind = draw.choice(FAULTS) if draw.random() < args.faults else ""
    if kind == "exit":
        os._exit(3)
    elif kind == "clean-exit":
        os._exit(0)
    elif kind == "signal":
        os.kill(os.getpid(), draw.choice([signal.SIGSEGV, signal.SIGKILL]))
    elif kind == "hang":
        if draw.random() < 0.15:
            time.sleep(600)
    elif kind == "twice":
        say(text * 2)
        return
    elif kind == "garbage":
        say("Loading 17%\n{\n[1]\n{\"compliant\": true}\n{\"id\": \"3\", \"compliant\": true}\n")
    elif kind == "bytes":
        say(b"\xff\xfe\x00 {\n")
    elif kind == "unknown":
        say(json.dumps({"id": task["id"] + draw.choice([-1, 100000, 2 ** 62]), "compliant": True}) + "\n")
    elif kind == "nonsense":
        say(json.dumps({"id": task["id"], "compliant": draw.choice(["maybe", 1, [], "true"])}) + "\n")
        return
    elif kind == "later":
        later.append(text)
        return
    elif kind == "split":
        say(text[:7])
        time.sleep(0.005)
        text = text[7:]
    elif kind == "other-keys":
        text = json.dumps({"z": {"compliant": False}, **answer, "reason": "ünïcode " * 3}) + "\r\n"
    say(text)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compares what tests/cli/ask_oracle.c wrote with what is true, and with the server's log. Prints what is wrong; exit code 1 then.

usage: check_verdicts.py OUT N [--undecided ITEM,...] [--log LOG] [--repeats MOST] [--in-flight MOST] [--rate A_SECOND] [--requests EXACTLY]
  --undecided  these items, and no others, have verdict -1
  --repeats    items that the log shows answered more than once, at most so many (0)
"""
import argparse
import collections
import json
import sys

from chat_server import response_text, verdict

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("n", type=int)
parser.add_argument("--undecided", default="")
parser.add_argument("--log")
parser.add_argument("--repeats", type=int, default=0)
parser.add_argument("--in-flight", type=int)
parser.add_argument("--rate", type=float)
parser.add_argument("--requests", type=int)
args = parser.parse_args()
wrong = []

lines = [line.split() for line in open(args.out)]
got = {int(words[0]): int(words[1]) for words in lines}
undecided = {int(word) for word in args.undecided.split(",") if word}
if len(got) != len(lines):
    wrong.append(f"{len(lines) - len(got)} items have more than one verdict")
if set(got) != set(range(args.n)):
    wrong.append(f"{len(got)} of {args.n} items have a verdict")
if {item for item in got if got[item] < 0} != undecided:
    wrong.append(f"undecided: {sorted(item for item in got if got[item] < 0)[:20]}")
invented = [item for item in got if got[item] >= 0 and got[item] != verdict(response_text(item))]
if invented:
    wrong.append(f"{len(invented)} wrong verdicts: {invented[:20]}")

if args.log:
    events = [json.loads(line) for line in open(args.log)]
    answered = collections.Counter(e["item"] for e in events if e["event"] == "answered")
    requests = [e for e in events if e["event"] == "request"]
    missing = [item for item in got if got[item] >= 0 and not answered[item]]
    repeats = sum(count - 1 for count in answered.values())
    if missing:
        wrong.append(f"{len(missing)} verdicts without an answer of the server")
    if repeats > args.repeats:
        wrong.append(f"{repeats} items were asked again after they had been answered")
    if any(e["event"] in ("mangled", "refused") for e in events):
        wrong.append("items arrived changed, or without the key")
    if any(e["path"] != "/v1/chat/completions" or e["temperature"] != 0 for e in requests):
        wrong.append("a request to the wrong place, or not greedy")
    if args.in_flight and max(e["in_flight"] for e in requests) > args.in_flight:
        wrong.append(f"{max(e['in_flight'] for e in requests)} requests in flight")
    if args.requests is not None and len(requests) != args.requests:
        wrong.append(f"{len(requests)} requests")
    if args.rate:
        times = sorted(e["t"] for e in requests)
        most = max(sum(1 for u in times if t <= u < t + 1) for t in times)
        if most > args.rate * 1.25 + 2:  # arrival times jitter with the load of the machine
            wrong.append(f"{most} requests within one second")
for text in wrong:
    print(text)
sys.exit(1 if wrong else 0)

#!/usr/bin/env python3
"""A chat endpoint for tests: answers questions about items that tests/cli/ask_oracle.c makes, and misbehaves as told. Standard library alone.

usage: chat_server.py LOG [--seed N] [--faults SHARE] [--mode WORD] [--delay S] [--key KEY] [--cert PEM --cert-key PEM]
Prints the port on one line and serves until killed. LOG gets one JSON line an event: "answered" (a good answer went out whole), "fault", "mangled" (the item did not
arrive as it was sent), "refused" (without the key).

--faults: share of requests that fail, drawn from (seed, item, attempt): status codes, slow and dropped answers, malformed JSON, wrong shapes, unreadable words. An item fails
4 times at most, unreadably twice. --mode makes one thing happen always: see MODES.
"""
import argparse
import asyncio
import json
import random
import re
import ssl
import time
import zlib

YES = ["yes", "Yes.", "YES", " yes\n", "**Yes**", '{"compliant": true}', '```json\n{"answer": "yes", "reason": "-"}\n```', "<think>hm</think>\n\nyes"]
NO = ["no", "No.", "NO", " no\n", '"No"', '{"compliant": false}', '{"verdict": "No"}', "<think></think>no"]
UNREAD = ["maybe", "Yes and no", "", "yes, it violates the policy", '{"compliant": "perhaps"}', "<think>I wonder", '{"compliant": true, "answer": "no"}']
SHAPES = ["{}", "[]", "3", '{"choices": []}', '{"choices": {}}', '{"choices": [{"index": 0}]}', '{"choices": [{"message": {"content": 7}}]}',
          '{"choices": [null]}', '{"error": {"message": "upstream", "code": 502}}', '{"choices": [{"message": {"role": "assistant"}}]}']
FAULTS = ["500", "502", "503", "408", "429", "slow", "hang", "drop", "half", "garbage", "cut", "shape", "unread", "huge", "empty", "html"]
MODES = ["", "401", "400", "302", "retry-after", "wait-long", "item-3-huge", "item-3-filtered", "item-3-500", "hang", "quota", "down", "logprobs", "old-logprobs", "tokens"]


def response_text(item):
    """As tests/cli/ask_oracle.c makes it."""
    return f'item {item}: Straße, 漢字 😀 "quoted" \\ back\n\tand </response> inside'


def verdict(text):
    return zlib.crc32(text.encode()) & 1


class Server:
    def __init__(self, args):
        self.args = args
        self.log = open(args.log, "a", buffering=1)
        self.attempts, self.failed, self.unread = {}, {}, {}
        self.in_flight = self.requests = 0

    def note(self, event, item, **more):
        self.log.write(json.dumps({"t": time.time(), "event": event, "item": item, **more}) + "\n")

    @staticmethod
    def item_of(body):
        text = body["messages"][-1]["content"]
        found = re.search(r"<(response(?:-\d+)?)>\n(.*)\n</\1>", text, re.S)
        item = int(re.match(r"item (\d+):", found.group(2)).group(1))
        good = found.group(2) == response_text(item) and text.startswith("You check") and f"question {item}" in text
        return item, good and text.index("<policy>") < text.index("<conversation>") < text.index("<response")

    def fault(self, item):
        attempt = self.attempts[item] = self.attempts.get(item, 0) + 1
        draw = random.Random(f"{self.args.seed} {item} {attempt}")
        if draw.random() >= self.args.faults or self.failed.get(item, 0) >= 4:
            return None, draw
        kind = draw.choice(FAULTS)
        if kind == "hang" and draw.random() < 0.8:
            kind = "500"  # each costs the client its time limit
        if kind == "unread":
            if self.unread.get(item, 0) >= 2:
                return None, draw
            self.unread[item] = self.unread.get(item, 0) + 1
        if kind != "slow":
            self.failed[item] = self.failed.get(item, 0) + 1
        return kind, draw

    @staticmethod
    def good(text, logprobs=None, prompt_tokens=200):
        return json.dumps({"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                           "finish_reason": "stop", "logprobs": logprobs}], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 2}})

    def mode_answer(self, item, answer):
        """(status, headers, body) of the modes that answer at once, or None."""
        mode, error = self.args.mode, lambda text, code: json.dumps({"error": {"message": text, "type": "t", "code": code}})
        if mode == "401":
            return 401, [], error(f"Incorrect API key provided: {self.args.key}. Find yours elsewhere.", "invalid_api_key")
        if mode == "400":
            return 400, [], json.dumps({"object": "error", "message": "The model `x` does not exist", "type": "BadRequestError", "code": 400})
        if mode == "quota":
            return 429, [], error("You exceeded your quota", "insufficient_quota")
        if mode == "302":
            return 302, ["Location: http://127.0.0.1:9/v1/chat/completions"], ""
        if mode == "down":
            return 503, [], error("Loading model", 503)
        if mode == "wait-long":
            return 429, ["Retry-After: 86400"], error("tomorrow", "rate_limit")
        if mode == "retry-after" and self.requests == 1:
            return 429, ["Retry-After: 1"], error("slow down", "rate_limit")
        if mode == "item-3-filtered" and item == 3:
            return 400, [], error("The response was filtered", "content_filter")
        if mode == "item-3-500" and item == 3:
            return 500, [], '{"detail": "it crashed"}'
        if mode == "item-3-huge" and item == 3:
            return 200, [], self.good("yes" + " " * (3 << 20))
        if mode == "tokens":
            return 200, [], self.good(answer, prompt_tokens=1)
        if mode == "logprobs":
            top = [{"token": "yes", "logprob": -0.5}, {"token": " No", "logprob": -1.5}, {"token": "Yes", "logprob": -3.0}, {"token": "I", "logprob": -4.0}]
            entry = {"token": "yes" if answer.lower().startswith("y") else " No", "logprob": -0.5, "bytes": None, "top_logprobs": top}
            return 200, [], self.good(entry["token"], {"content": [entry]})
        if mode == "old-logprobs":
            return 200, [], self.good("yes", {"tokens": ["yes"], "token_logprobs": [-0.5], "top_logprobs": [{"yes": -0.5, "no": -1.5}], "text_offset": [0]})
        return None

    async def reply(self, writer, status, headers, body):
        data = body.encode()
        head = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        await writer.drain()

    async def answer(self, writer, item):
        """False: the connection is to be closed."""
        said = verdict(response_text(item))
        kind, draw = self.fault(item)
        word = draw.choice(YES if said else NO)
        special = self.mode_answer(item, "yes" if said else "no")
        if self.args.mode == "hang" or kind == "hang":
            self.note("fault", item, kind="hang")
            await asyncio.sleep(30)
            return False
        if special:
            await self.reply(writer, *special)
            self.note("answered" if special[0] == 200 and "huge" not in self.args.mode else "fault", item, kind=self.args.mode)
            return True
        if self.args.delay or kind == "slow":
            await asyncio.sleep(self.args.delay or draw.uniform(0.02, 0.2))
        if kind in (None, "slow"):
            await self.reply(writer, 200, [], self.good(word))
            self.note("answered", item)
            return True
        self.note("fault", item, kind=kind)
        if kind == "drop":
            return False
        if kind == "half":
            text = self.good(word)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text[:len(text) // 2]}".encode())
            await writer.drain()
            return False
        body = {"garbage": "\x00\x7fnot { json", "cut": self.good(word)[:-9], "shape": draw.choice(SHAPES), "unread": self.good(draw.choice(UNREAD)), "empty": "",
                "huge": self.good(word + "x" * 70000), "html": "<html><body>Bad gateway</body></html>"}.get(kind)
        if body is not None:
            await self.reply(writer, 502 if kind == "html" else 200, [], body)
        else:
            headers = ["retry-after-ms: 20"] if kind == "429" else []
            await self.reply(writer, int(kind), headers, draw.choice(['{"error": "busy", "error_type": "overloaded"}', '{"detail": [{"msg": "no"}]}', ""]))
        return True

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)}
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                item, good = self.item_of(body)
                self.requests += 1
                if not good:
                    self.note("mangled", item)
                if self.args.key and fields.get("authorization") != f"Bearer {self.args.key}":
                    self.note("refused", item)
                    await self.reply(writer, 401, [], '{"error": {"message": "no key", "code": null}}')
                    continue
                self.in_flight += 1
                self.note("request", item, in_flight=self.in_flight, path=head.split()[1], temperature=body.get("temperature"), limit=body.get("max_tokens"),
                          logprobs=body.get("top_logprobs"))
                try:
                    keep = await self.answer(writer, item)
                finally:
                    self.in_flight -= 1
                if not keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def main(self):
        context = None
        if self.args.cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.args.cert, self.args.cert_key)
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--mode", default="", choices=MODES)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--key", default="")
    parser.add_argument("--cert")
    parser.add_argument("--cert-key")
    asyncio.run(Server(parser.parse_args()).main())

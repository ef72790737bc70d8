#!/usr/bin/env python3
"""A chat endpoint that writes corrections for tests/cli/correct.sh. Standard library alone.

usage: correct_server.py LOG [--key KEY] [--delay S] [--broken]
Prints the port on one line and serves until killed. What it says follows from the message and the seed of the request alone: good, bad, empty, cut, filtered, or good
after a block of reasoning. Now and then a request fails first with 503. --broken: always. LOG gets one JSON line a request.
"""
import argparse
import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("log")
parser.add_argument("--key", default="")
parser.add_argument("--delay", type=float, default=0.0)
parser.add_argument("--broken", action="store_true")
args = parser.parse_args()
log, lock, failed = open(args.log, "a", buffering=1), threading.Lock(), set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body["messages"])
        key = f"{text} {body['seed']}"
        draw = zlib.crc32(key.encode())
        with lock:
            first = key not in failed
            failed.add(key)
        kind = ["good", "bad", "empty", "cut", "filtered", "thought", "good", "bad"][draw % 8]
        if args.broken or (first and draw // 8 % 5 == 0):
            kind = "busy"
        note = {"key": draw, "kind": kind, "authorization": self.headers.get("Authorization"), **body}
        time.sleep(args.delay)
        said = {"good": "a fact", "bad": "a bad one", "empty": " \n", "cut": "a fact and", "thought": "<think>a bad idea</think>\n\na deed"}.get(kind)
        if kind == "busy":
            self.reply(503, {"error": {"message": "busy", "code": 503}})
        elif kind == "filtered":
            self.reply(400, {"error": {"message": "The response was filtered", "code": "content_filter"}})
        else:
            self.reply(200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "length" if kind == "cut" else "stop"}]})
        with lock:
            log.write(json.dumps(note) + "\n")


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()

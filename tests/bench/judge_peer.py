#!/usr/bin/env python3
"""The same judging loop in transformers: whole texts in batches, left-padded, logits at the last position alone.

usage: judge_peer.py MODEL_DIR ITEMS_JSONL YES_IDS NO_IDS [BATCH [ITEMS]]
ITEMS_JSONL: what bench_judge wrote: text, ids, probability. Checks that the model's own tokenizer gives the same ids, token for token.
Prints items/s, the share of padding, and the largest difference of a probability. THREADS: torch threads.
"""
import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model_dir, path = sys.argv[1:3]
yes, no = ([int(i) for i in arg.split(",")] for arg in sys.argv[3:5])
batch = int(sys.argv[5]) if len(sys.argv) > 5 else 8
torch.set_num_threads(int(os.environ.get("THREADS", "2")))
rows = [json.loads(line) for line in open(path)]
if len(sys.argv) > 6:
    rows = rows[: int(sys.argv[6])]

tokenizer = AutoTokenizer.from_pretrained(model_dir)
different = sum(tokenizer(row["text"], add_special_tokens=False).input_ids != row["ids"] for row in rows)
print(f"texts whose ids differ from the Hugging Face tokenizer's\t{different}\tof {len(rows)}")

model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0


def judge(chunk):
    longest = max(len(row["ids"]) for row in chunk)
    ids = torch.full((len(chunk), longest), pad)
    mask = torch.zeros((len(chunk), longest), dtype=torch.long)
    for i, row in enumerate(chunk):
        ids[i, longest - len(row["ids"]):] = torch.tensor(row["ids"])
        mask[i, longest - len(row["ids"]):] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1].double()
    margin = logits[:, yes].logsumexp(1) - logits[:, no].logsumexp(1)
    return torch.sigmoid(margin).tolist(), longest * len(chunk)


judge(rows[:1])  # warm
worst, cells, began, processor = 0.0, 0, time.perf_counter(), time.process_time()
for at in range(0, len(rows), batch):
    chunk = rows[at: at + batch]
    probabilities, n = judge(chunk)
    cells += n
    worst = max(worst, max(abs(p - row["probability"]) for p, row in zip(probabilities, chunk)))
seconds, processor = time.perf_counter() - began, time.process_time() - processor
tokens = sum(len(row["ids"]) for row in rows)
print(f"transformers {batch} at once\t{len(rows) / seconds:.3f}\titems/s\t{len(rows) / processor:.3f}\titems/processor-s\t{len(rows)} items, {tokens} tokens, {100 - 100 * tokens / cells:.0f} % padding, "
      f"torch {torch.__version__}, {torch.get_num_threads()} threads")
print(f"largest difference of a probability\t{worst:.2e}\t(at most 1e-3 is asked for)")
sys.exit(0 if worst <= 1e-3 and different == 0 else 1)

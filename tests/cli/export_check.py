"""Exports of tests/cli/export_fixture, loaded by transformers and peft in float64. Prints TAP.

usage: export_check.py FIXTURE OUT

The policy's logits on sample 0 are those of reference.h5; the log-probabilities of model, adapter and merged model are those that the
C program wrote beside them (OUT/*.logp); exported and original adapter give the same logits.
"""
import json
import pathlib
import sys

NAMES = ["model: logits of reference.h5", "model: our log-probabilities", "adapter: our log-probabilities",
         "adapter: logits of the original adapter", "merged model: our log-probabilities", "configuration: types and files"]
fixture, out = (pathlib.Path(word) for word in sys.argv[1:3])
print(f"1..{len(NAMES)}")
try:
    import h5py
    import torch
    import transformers
    from peft import PeftModel
except ImportError as why:
    for i, name in enumerate(NAMES):
        print(f"ok {i + 1} - {fixture.name}: {name} # SKIP {why}")
    sys.exit(0)

STORED, COMPUTED = 1e-6, 1e-10  # reference.h5 holds logits in float32; both programs compute in float64


def keep_double(method):
    """transformers computes norms and softmax in float32 whatever the model's type; here double stays double."""
    def kept(x, *words, **named):
        words = [torch.float64 if word is torch.float32 else word for word in words] if x.dtype is torch.float64 else words
        if x.dtype is torch.float64 and named.get("dtype") is torch.float32:
            named["dtype"] = torch.float64
        return method(x, *words, **named)
    return kept


torch.Tensor.to = keep_double(torch.Tensor.to)
torch.Tensor.float = lambda x: x if x.dtype is torch.float64 else x.to(torch.float32)
torch.nn.functional.softmax = keep_double(torch.nn.functional.softmax)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
failures = 0


def load(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()


def load_adapted(adapter):
    model = PeftModel.from_pretrained(load(fixture / "reference"), adapter)
    for parameter in model.parameters():  # adapters are loaded in float32
        parameter.data = parameter.data.double()
    return model


def report(number, error, detail=""):
    global failures
    good = bool(error <= (STORED if number == 1 else COMPUTED))  # False for NaN
    failures += not good
    print(f"{'ok' if good else 'not ok'} {number} - {fixture.name}: {NAMES[number - 1]} (largest error {error:.1e}{detail})")


with h5py.File(fixture / "reference.h5") as file:
    prompt, chosen = (torch.tensor(file[f"sample/0/{part}"][:].astype("int64")) for part in ("prompt", "chosen"))
    expected = torch.tensor(file["sample/0/logits_chosen"][:], dtype=torch.float64)
ids = torch.cat([prompt, chosen])


@torch.no_grad()
def logits_of(model):
    return model(ids[None]).logits[0]


def distance(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    return (a - b).abs().max().item()


def against_ours(number, logits, name):
    ours = torch.tensor([float(line) for line in (out / name).read_text().split()], dtype=torch.float64)
    theirs = torch.log_softmax(logits, -1)[len(prompt) - 1:-1].gather(1, chosen[:, None])[:, 0]
    report(number, distance(ours, theirs))


model = logits_of(load(out / "model"))
report(1, distance(model, expected))
against_ours(2, model, "model.logp")
adapted = logits_of(load_adapted(out / "adapter"))
against_ours(3, adapted, "adapter.logp")
original = logits_of(load_adapted(fixture / "adapter"))
untouched = logits_of(load(fixture / "reference"))
report(4, distance(adapted, original), f", without it {distance(adapted, untouched):.1e}")
merged = logits_of(load(out / "merged"))
against_ours(5, merged, "merged.logp")

config = json.loads((out / "model/config.json").read_text())
source = json.loads((fixture / "policy/config.json").read_text())
wrong = [key for key in source if config.get(key) != source[key] and key not in ("dtype", "torch_dtype")]
wrong += [] if config.get("dtype", config.get("torch_dtype")) == "float32" else ["dtype"]
merged_config = json.loads((out / "merged/config.json").read_text())
wrong += [] if merged_config.get("dtype", merged_config.get("torch_dtype")) == "float64" else ["dtype of merged"]
generation = "generation_config.json"
wrong += [] if (out / "model" / generation).read_text() == (fixture / "policy" / generation).read_text() else [generation]
report(6, float(len(wrong)), f": {wrong}" if wrong else "")
sys.exit(failures > 0)

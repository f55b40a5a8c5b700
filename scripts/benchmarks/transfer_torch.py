"""The PyTorch side of `transfer.py`: steps of full fine-tuning, of LoRA as PEFT has it, and of a probe.

    python scripts/benchmarks/transfer_torch.py FOLDER THREADS [--peak METHOD]

Run by `transfer.py --torch_python=PATH` in an environment that has torch, transformers and peft, none of which this
project needs. It prints a line of JSON that says what it made, then takes a step of the method on every line that it
reads, and prints its wall and processor seconds. With --peak: what a few steps of one method hold.
"""

import argparse
import ctypes
import gc
import json
import pathlib
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import peft
import torch
import transformers

METHODS = ("full", "lora(rank=8)", "probe")


def make(folder: pathlib.Path, method: str) -> tuple[Callable[[], float], int]:
    """(a step that returns its loss, how many numbers train)."""
    torch.manual_seed(0)
    # Without dropout and pooler, as ours.
    encoder = transformers.BertModel.from_pretrained(
        folder / "bert", add_pooling_layer=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    if method.startswith("lora"):
        how = peft.LoraConfig(r=8, lora_alpha=8, lora_dropout=0.0, target_modules=["query", "key", "value", "dense"])
        encoder = peft.get_peft_model(encoder, how)
    elif method == "probe":
        encoder.requires_grad_(False)
    encoder.train()
    stored = np.load(folder / "batch.npz")
    head = torch.nn.Linear(stored["head"].shape[0], stored["head"].shape[1])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(stored["head"].T))
        head.bias.zero_()
    tokens, labels = (torch.from_numpy(stored[k].astype(np.int64)) for k in ("tokens", "labels"))
    mask = tokens != 0
    leaves = [p for p in (*encoder.parameters(), *head.parameters()) if p.requires_grad]
    optimizer, read, share = torch.optim.Adam(leaves, lr=1e-3), mask.long(), mask[..., None].float()

    def step() -> float:
        values = encoder(input_ids=tokens, attention_mask=read).last_hidden_state
        pooled = (values * share).sum(1) / share.sum(1)
        loss = torch.nn.functional.cross_entropy(head(pooled), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, sum(p.numel() for p in leaves)


def kibibytes(what: str) -> int:
    """Of this process: VmRSS, what it holds now, or VmHWM, the most that it held."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))


def peak(folder: pathlib.Path, method: str) -> float:
    """MiB that weights, optimizer and three steps hold at most, beyond what is held before the weights are read."""
    torch.nn.Linear(64, 64)(torch.randn(64, 64)).sum().backward()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = kibibytes("VmRSS")
    step, _ = make(folder, method)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    for _ in range(3):
        step()
    return (kibibytes("VmHWM") - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("threads", type=int)
    parser.add_argument("--peak")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if given.peak:
        print(json.dumps(peak(given.folder, given.peak)))
        return
    made = {m: make(given.folder, m) for m in METHODS}
    print(json.dumps({
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
        "trains": {m: n for m, (_, n) in made.items()}, "losses": {m: step() for m, (step, _) in made.items()},
    }), flush=True)  # fmt: skip
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        made[line.strip()][0]()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]), flush=True)


if __name__ == "__main__":
    main()

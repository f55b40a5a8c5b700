"""What each sharing architecture costs: compile seconds, step time, FLOPs and peak memory, as ratios to hard sharing.

    python -m scripts.benchmarks.sharing [--tasks 2,8,32] [--encoders mlp,transformer] [--rounds 9] [--names hard,mmoe]

A step is forward, backward of the summed losses, and Adam, on an MLP 64-256-256 at batch 128 or a Transformer of 2
layers, width 64 and 32 steps at batch 16, with K regression heads. Times are medians over interleaved rounds, in
milliseconds, after compilation; "time / FLOPs" is the time ratio over the FLOPs ratio (above 1: slower than its
arithmetic). XLA counts the body of a loop once, so the FLOPs of an architecture that loops are a lower bound.

With LibMTL (pip install LibMTL==1.1.5 --no-deps beside torch, in an environment of its own) the last columns are the
same step there, where it has the architecture for encoders other than ResNets: HPS, MMoE, CGC, DSelect-k, with as many
experts. Its Transformer is PyTorch's pre-norm encoder.
"""

import argparse
import importlib.util
import platform
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from experiments.architectures import with_tasks
from mtl_jax import balancing, partition
from mtl_jax.reporting.describe import table
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step
from scripts.benchmarks import measuring

ENCODERS = {
    "mlp": ("mlp(features=(256, 256))", 2, (128, 64)),
    "transformer": ("transformer(width=64, depth=2, heads=4, hidden=256, length=32)", 3, (16, 32, 8)),
}
THEIRS = {"hard": "HPS", "mmoe": "MMoE", "cgc": "CGC", "dselect_k": "DSelect_k"}


def make(encoder: str, name: str, count: int) -> tuple[measuring.Compiled, int]:
    """(the compiled step of an architecture, its number of parameters)."""
    text, stages, shape = ENCODERS[encoder]
    draw = np.random.default_rng(0)
    tasks = [mtl.Task(f"t{i}", "binary" if name in ("esmm", "aitm") else "regression") for i in range(count)]
    model = mtl.sharing.build(with_tasks(name, [t.name for t in tasks], stages), mtl.encoders.build(text), tasks)
    targets = {t.name: jnp.asarray(draw.normal(size=shape[0]), jnp.float32) for t in tasks}
    masks = {t.name: jnp.ones(shape[0], bool) for t in tasks}
    batch = mtl.Batch(jnp.asarray(draw.normal(size=shape), jnp.float32), targets, masks)
    variables = model.init(jax.random.key(0), batch)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    trainable = partition.trainable_paths(variables["params"], None)
    balancer, optimizer = balancing.equal(), optimizers.per_owner(optax.adam(1e-3))
    layout, variables, batch = measuring.lying(model, optimizer, variables, batch)
    step = make_train_step(model, optimizer, balancer, trainable, layout=layout)
    first = state.create(variables, count, optimizer, balancer, trainable, jax.random.key(0), layout=layout)
    return measuring.compiled(step, first, batch), parameters


def their_architectures() -> Any:
    """LibMTL's package of architectures, or None. Its own start imports what current torchvisions no longer have."""
    found = importlib.util.find_spec("LibMTL")
    if found is None or importlib.util.find_spec("torch") is None:
        return None
    package = types.ModuleType("LibMTL")
    package.__path__ = found.submodule_search_locations
    sys.modules["LibMTL"] = package
    return importlib.import_module("LibMTL.architecture")


def their_encoder(encoder: str) -> Any:
    """A new encoder like ours, in PyTorch, and its width."""
    from torch import nn

    if encoder == "mlp":
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()), 256

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.position = nn.Linear(8, 64), nn.Embedding(32, 64)
            layer = nn.TransformerEncoderLayer(
                64, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(64), enable_nested_tensor=False)

        def forward(self, x: Any) -> Any:
            return self.blocks(self.input(x) + self.position.weight).mean(1)

    return Transformer(), 64


def their_step(architectures: Any, encoder: str, name: str, count: int) -> Callable[[], None]:
    """A call of LibMTL's architecture in a plain step."""
    import torch

    torch.manual_seed(0)
    device = torch.device(measuring.torch_device())
    shape, names = ENCODERS[encoder][2], [f"t{i}" for i in range(count)]
    width = their_encoder(encoder)[1]
    heads = torch.nn.ModuleDict({t: torch.nn.Linear(width, 1) for t in names})
    # As ours by default: mmoe and dselect_k have 4 experts, cgc 2 common ones and 1 of each task's own.
    experts = [2] + [1] * count if name == "cgc" else [4]
    options = {"img_size": list(shape[1:]), "num_experts": experts, "num_nonzeros": 2, "kgamma": 1.0}
    model = getattr(architectures, THEIRS[name])(
        names, lambda: their_encoder(encoder)[0], heads, False, False, device, **options
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(*shape, device=device), torch.randn(count, shape[0], device=device)

    def call() -> None:
        optimizer.zero_grad()
        out = model(x)
        sum(((out[t][:, 0] - y[i]) ** 2).mean() for i, t in enumerate(names)).backward()
        optimizer.step()
        measuring.torch_wait()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="2,8,32")
    parser.add_argument("--encoders", default="mlp,transformer")
    parser.add_argument("--names", default=",".join(mtl.sharing.NAMES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=("highest", "high"), default="highest")
    given, architectures = parser.parse_args(), their_architectures()
    measuring.set_precision(given.precision)
    chosen = ["hard", *(n for n in given.names.split(",") if n != "hard")]
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, Python {platform.python_version()}")
    print("with LibMTL" if architectures else "LibMTL is not installed: its columns are empty")
    for encoder in given.encoders.split(","):
        for count in map(int, given.tasks.split(",")):
            made = {name: make(encoder, name, count) for name in chosen}
            calls = {name: m.call for name, (m, _) in made.items()}
            if architectures:
                calls |= {("LibMTL", n): their_step(architectures, encoder, n, count) for n in chosen if n in THEIRS}
            found = measuring.medians(calls, given.rounds)
            (hard, size), rows = made["hard"], []
            for name, (m, parameters) in made.items():
                slower, flops = found[name] / found["hard"], m.flops / hard.flops
                other = found.get(("LibMTL", name))
                rows.append((
                    name, f"{found[name]:.2f}", f"{slower:.1f}", f"{flops:.1f}", f"{m.peak / hard.peak:.1f}",
                    f"{parameters / size:.1f}", f"{m.seconds / hard.seconds:.1f}", f"{slower / flops:.2f}",
                    *(("-", "-") if other is None else (f"{other:.2f}", f"{other / found[name]:.1f}")),
                ))  # fmt: skip
            header = ("sharing", "ms", "x hard", "FLOPs x", "peak x", "parameters x", "compile x", "time / FLOPs",
                      "LibMTL ms", "LibMTL / ours")  # fmt: skip
            shown = table(rows, header, right=tuple(range(1, 10)))
            print(f"\n{encoder}, K = {count}; hard compiles in {hard.seconds:.1f} s\n{shown}", flush=True)


if __name__ == "__main__":
    main()

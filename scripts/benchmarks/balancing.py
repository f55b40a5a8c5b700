"""Balancing here and in TorchJD, side by side in one run: whole steps, solvers alone, and what each engine mode costs.

    python -m scripts.benchmarks.balancing [--part solvers|steps|modes] [--tasks 2,3,10,40] [--rounds 11]
        [--models large,small,wide,transformer] [--methods NAME;...] [--precision highest|high]

Whole step: a trunk with K regression heads, Adam, float32, all cores: forward, per-task gradients, the method, and the
update of trunk and heads. Trunks are an MLP 64-512-512-512 (large) or 64-64-64 (small) at batch 256, an MLP
1024-1024-1024 at batch 32 (wide), and a Transformer of 4 layers, width 128 and 64 tokens at batch 32. Solvers: a K x K
Gramian to K weights, the call and the way to and from the device included. Modes: our step beside `jax.grad` of the sum
of losses (plain), with XLA's memory analysis. Times are medians over interleaved rounds, in milliseconds, after
compilation. PyTorch runs on the device that JAX runs on. On a GPU the two libraries differ in how they multiply float32
matrices by default, so both are set to the same: --precision highest is float32, high is TF32. Without torchjd (pip
install "torchjd[full]" in an environment of its own, never a dependency here) the columns of this library are printed
alone.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.balancing import Signal
from mtl_jax.balancing.options import Options, resolve
from mtl_jax.model import forward
from mtl_jax.reporting.describe import table
from mtl_jax.tasks import task_losses
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step
from scripts.benchmarks import measuring
from scripts.benchmarks.measuring import Compiled, compiled, lying, medians

try:
    import torch
    from torchjd import aggregation as theirs
    from torchjd.autojac import jac_to_grad, mtl_backward

    THEIRS = {
        "equal(reduction='mean')": theirs.Mean, "upgrad": theirs.UPGrad, "dual_proj": theirs.DualProj,
        "mgda": theirs.MGDA, "pcgrad": theirs.PCGrad, "gradvac": theirs.GradVac, "cagrad": lambda: theirs.CAGrad(c=0.5),
        "imtl_g": theirs.IMTLG, "aligned_mtl": theirs.AlignedMTL, "conflict_free": theirs.ConFIG,
        "graddrop": theirs.GradDrop, "trimmed_mean": lambda: theirs.TrimmedMean(1),
    }  # fmt: skip
except ImportError:
    torch, THEIRS = None, {}

STEPS = ("equal(reduction='mean')", "upgrad", "dual_proj", "mgda", "cagrad", "pcgrad", "gradvac", "imtl_g",
         "aligned_mtl", "conflict_free", "graddrop")  # fmt: skip
SOLVERS = ("upgrad", "dual_proj", "mgda", "cagrad", "pcgrad", "gradvac", "imtl_g", "aligned_mtl", "conflict_free",
           "nash_mtl", "fairgrad")  # fmt: skip
ENCODERS = {
    "large": "mlp(features=(512, 512, 512))",
    "small": "mlp(features=(64, 64))",
    "wide": "mlp(features=(1024, 1024))",
    "transformer": "transformer(width=128, depth=4, heads=4, hidden=512, positions='learned', length=64)",
}
INPUTS = {"large": (256, 64), "small": (256, 64), "wide": (32, 1024), "transformer": (32, 64, 16)}


class Problem:
    """A model, a batch and first variables of the benchmark."""

    def __init__(self, name: str, count: int):
        draw = np.random.default_rng(0)
        self.tasks = [mtl.Task(f"t{i}", "regression") for i in range(count)]
        self.model = mtl.sharing.hard(mtl.encoders.build(ENCODERS[name]), self.tasks)
        shape = INPUTS[name]
        targets = {t.name: jnp.asarray(draw.normal(size=shape[0]), jnp.float32) for t in self.tasks}
        masks = {t.name: jnp.ones(shape[0], bool) for t in self.tasks}
        self.batch = mtl.Batch(jnp.asarray(draw.normal(size=shape), jnp.float32), targets, masks)
        self.variables = self.model.init(jax.random.key(0), self.batch)
        self.trainable = partition.trainable_paths(self.variables["params"], None)

    def step(self, method: str, options: Options = Options("auto")) -> Compiled:  # noqa: B008
        """Our step."""
        balancer, optimizer = balancing.build(method), optimizers.per_owner(optax.adam(1e-3))
        shared = partition.split(self.variables["params"], lambda p: partition.owner(p) == "shared")[0]
        options = options._replace(mode=resolve(options.mode, balancer, len(self.tasks), shared)[0])
        layout, variables, batch = lying(self.model, optimizer, self.variables, self.batch)
        step = make_train_step(self.model, optimizer, balancer, self.trainable, options=options, layout=layout)
        first = state.create(
            variables, len(self.tasks), optimizer, balancer, self.trainable, jax.random.key(0), options, layout=layout
        )
        return compiled(step, first, batch)

    def plain(self) -> Compiled:
        """The same for `jax.grad` of the summed losses and one Adam over all parameters."""
        adam = optax.adam(1e-3)

        def loss(params: Any, batch: mtl.Batch) -> Any:
            outputs, _, _ = forward(self.model, {**self.variables, "params": params}, batch, train=True)
            sums, counts = task_losses(self.tasks, outputs, batch)
            return (sums / counts).sum()

        def step(carry: Any, batch: mtl.Batch) -> Any:
            params, opt = carry
            value, gradient = jax.value_and_grad(loss)(params, batch)
            updates, opt = adam.update(gradient, opt)
            return (optax.apply_updates(params, updates), opt), value

        params = jax.tree.map(jnp.copy, self.variables["params"])
        return compiled(step, (params, adam.init(params)), self.batch)

    def trunk(self) -> tuple[Callable, Callable]:
        """(the trunk's forward pass, that and one backward pass), to compare whole steps with."""

        def features(params: Any) -> Any:
            return self.model.encode({**self.variables, "params": params}, self.batch, train=True)[0]

        forward_pass = jax.jit(features)

        @jax.jit
        def both(params: Any) -> Any:
            value, pull = jax.vjp(features, params)
            return pull(value)

        params = self.variables["params"]
        return (lambda: jax.block_until_ready(forward_pass(params))), (lambda: jax.block_until_ready(both(params)))


def their_trunk(name: str) -> tuple[Any, int]:
    """(the same trunk in PyTorch, its width)."""
    nn = torch.nn
    if name == "transformer":

        class Trunk(nn.Module):
            def __init__(self):
                super().__init__()
                self.input = nn.Linear(16, 128)
                self.position = nn.Parameter(torch.randn(1, 64, 128) * 0.02)
                layer = nn.TransformerEncoderLayer(
                    128, 4, 512, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                self.blocks = nn.TransformerEncoder(layer, 4, nn.LayerNorm(128), enable_nested_tensor=False)

            def forward(self, x: Any) -> Any:
                return self.blocks(self.input(x) + self.position).mean(1)

        return Trunk(), 128
    layers, before = [], INPUTS[name][1]
    for width in {"large": (512, 512, 512), "small": (64, 64), "wide": (1024, 1024)}[name]:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers), before


def their_step(name: str, count: int, method: str) -> Callable:
    """A call of TorchJD's step."""
    torch.manual_seed(0)
    device = measuring.torch_device()
    trunk, width = their_trunk(name)
    trunk, heads = trunk.to(device), [torch.nn.Linear(width, 1).to(device) for _ in range(count)]
    parameters = [*trunk.parameters(), *(p for h in heads for p in h.parameters())]
    optimizer, aggregator = torch.optim.Adam(parameters, lr=1e-3), THEIRS[method]()
    x, y = torch.randn(*INPUTS[name], device=device), torch.randn(count, INPUTS[name][0], device=device)

    def call() -> None:
        features = trunk(x)
        losses = [((h(features)[:, 0] - y[i]) ** 2).mean() for i, h in enumerate(heads)]
        mtl_backward(losses, features=features)
        jac_to_grad(trunk.parameters(), aggregator)
        optimizer.step()
        optimizer.zero_grad()
        measuring.torch_wait()

    return call


def steps_table(models: list[str], counts: list[int], methods: list[str], rounds: int) -> str:
    """A row per model, number of tasks and method."""
    rows = []
    for name in models:
        for count in counts:
            problem = Problem(name, count)
            calls = {method: problem.step(method).call for method in methods}
            if torch:
                calls |= {f"torch {m}": their_step(name, count, m) for m in methods if m in THEIRS}
            calls["forward"], calls["both"] = problem.trunk()
            found = medians(calls, rounds)
            ideal = found["forward"] + count * (found["both"] - found["forward"])
            for method in methods:
                other = found.get(f"torch {method}")
                beside = ("-", "-") if other is None else (f"{other:.2f}", f"{other / found[method]:.1f}")
                least = "" if method.startswith("equal") else f"{found[method] / ideal:.2f}"
                rows.append((name, str(count), method, f"{found[method]:.2f}", *beside, least))
                print("\t".join(rows[-1]), flush=True)
    header = ("trunk", "K", "method", "ours ms", "TorchJD ms", "TorchJD / ours", "ours / (fwd + K bwd)")
    return table(rows, header, right=(1, 3, 4, 5, 6))


def modes_table(models: list[str], counts: list[int], rounds: int) -> str:
    """A row per model, number of tasks and mode: time and peak beside a plain step's."""
    ways = {
        "equal": ("equal", Options("map")),
        "upgrad, map": ("upgrad", Options("map")),
        "upgrad, map, no monitor": ("upgrad", Options("map", monitor=False)),
        "upgrad, vmap": ("upgrad", Options("vmap")),
        "upgrad, layers": ("upgrad", Options("layers")),
        "upgrad, columns": ("upgrad", Options("columns")),
        "upgrad, features": ("upgrad", Options("map", level="features")),
        "upgrad, every 10": ("upgrad", Options("map", update_every=10)),
    }
    rows = []
    for name in models:
        for count in counts:
            problem = Problem(name, count)
            made = {"plain": problem.plain()} | {way: problem.step(*how) for way, how in ways.items()}
            found = medians({way: m.call for way, m in made.items()}, rounds)
            for way, m in made.items():
                first = (f"{found[way] / found['plain']:.2f}", f"{m.peak:.1f}", f"{m.peak / made['plain'].peak:.2f}")
                rows.append((name, str(count), way, f"{found[way]:.2f}", *first))
                print("\t".join(rows[-1]), flush=True)
    return table(rows, ("trunk", "K", "mode", "ms", "x plain", "peak MiB", "x plain"), right=(1, 3, 4, 5, 6))


def solvers_table(counts: list[int], rounds: int) -> str:
    """A row per method, pairs of columns per number of tasks."""
    rows = []
    for method in SOLVERS:
        row = [method]
        for count in counts:
            matrix = np.random.default_rng(count).normal(size=(count, count + 10)).astype(np.float32)
            gram, balancer = matrix @ matrix.T, balancing.build(method)
            first = balancer.init(count, {"": jnp.zeros(3)})
            mask, key = jnp.ones(count, bool), jax.random.key(0)
            ids = np.arange(count, dtype=np.uint32)
            solve = jax.jit(
                lambda g, s, b=balancer, m=mask, k=key, n=count, i=ids: (
                    b.update(Signal(jnp.ones(n), gramian=g, ids=i), s, mask=m, key=k)[0].weights
                )
            )
            calls = {"ours": lambda solve=solve, gram=gram, first=first: np.asarray(solve(gram, first))}
            if hasattr(THEIRS.get(method, object)(), "gramian_weighting"):
                weighting = THEIRS[method]().gramian_weighting
                tensor = torch.as_tensor(gram, device=measuring.torch_device())
                calls["theirs"] = lambda weighting=weighting, tensor=tensor: weighting(tensor).cpu()
            found = medians(calls, rounds if count < 100 else max(3, rounds // 2))
            beside = f"{found['theirs']:.2f} ({found['theirs'] / found['ours']:.1f}x)" if "theirs" in found else "-"
            row += [f"{found['ours']:.2f}", beside]
        rows.append(tuple(row))
    header = ("method", *(text for k in counts for text in (f"K={k} ms", "TorchJD ms")))
    return table(rows, header, right=tuple(range(1, len(header))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("solvers", "steps", "modes"), action="append")
    parser.add_argument("--tasks", default="2,3,10,40")
    parser.add_argument("--models", default="large,small,transformer")
    parser.add_argument("--methods", default=";".join(STEPS), help="separated by ';'")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--precision", choices=("highest", "high"), default="highest")
    given = parser.parse_args()
    measuring.set_precision(given.precision)
    parts = given.part or ["solvers", "modes", "steps"]
    models, counts = given.models.split(","), list(map(int, given.tasks.split(",")))
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}, "
          f"precision {given.precision}")  # fmt: skip
    beside = f"torch {torch.__version__} with torchjd on {measuring.torch_device()}" if torch else ""
    print(beside or "torchjd is not installed: its columns are empty")
    if "solvers" in parts:
        print(f"\nSolvers\n{solvers_table([3, 32, 64, 128], given.rounds)}", flush=True)
    if "modes" in parts:
        chosen = [m for m in models if m != "small"]
        print(f"\nModes\n{modes_table(chosen, [k for k in counts if k > 2], given.rounds)}", flush=True)
    if "steps" in parts:
        print(f"\nWhole steps\n{steps_table(models, counts, given.methods.split(';'), given.rounds)}")


if __name__ == "__main__":
    main()

"""Balancing here and in TorchJD, side by side in one run: whole steps, and solvers alone.

    python scripts/benchmarks/balancing.py [--tasks 2,3,10,40] [--rounds 11] [--solvers-only]

Whole step: MLP 64-512-512-512 (large) or 64-64-64 (small) with K regression heads, batch 256, Adam, float32, all cores:
forward, per-task gradients, the method, and the update of trunk and heads. Solvers: a K x K Gramian to K weights, the
call and the way to and from the device included. Times are medians over interleaved rounds, in milliseconds, after
compilation. Without torchjd (pip install "torchjd[full]" in an environment of its own, never a dependency here) the
columns of this library are printed alone.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.balancing import Signal
from mtl_jax.balancing.options import Options
from mtl_jax.reporting.describe import table
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step

try:
    import torch
    import torchjd
    from torchjd.aggregation import (
        IMTLG,
        MGDA,
        AlignedMTL,
        CAGrad,
        ConFIG,
        DualProj,
        GradVac,
        Mean,
        PCGrad,
        UPGrad,
    )  # fmt: skip
    from torchjd.autojac import jac_to_grad, mtl_backward

    THEIRS = {
        "equal(reduction='mean')": Mean, "upgrad": UPGrad, "dual_proj": DualProj, "mgda": MGDA, "pcgrad": PCGrad,
        "gradvac": GradVac, "cagrad": lambda: CAGrad(c=0.5), "imtl_g": IMTLG, "aligned_mtl": AlignedMTL,
        "conflict_free": ConFIG,
    }  # fmt: skip
except ImportError:
    torchjd, THEIRS = None, {}

STEPS = ("equal(reduction='mean')", "upgrad", "mgda", "pcgrad")
SOLVERS = ("upgrad", "dual_proj", "mgda", "cagrad", "pcgrad", "gradvac", "imtl_g", "aligned_mtl", "conflict_free",
           "nash_mtl", "fairgrad")  # fmt: skip
MODELS = {"large": (512, 512, 512), "small": (64, 64)}
BATCH, INPUTS = 256, 64


def medians(calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """{name: median milliseconds} of interleaved calls; two rounds warm up."""
    times = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(t[2:]) for name, t in times.items()}


def our_step(widths: tuple[int, ...], count: int, method: str, mode: str) -> Callable:
    draw = np.random.default_rng(0)
    tasks = [mtl.Task(f"t{i}", "regression") for i in range(count)]
    model = mtl.sharing.hard(mtl.encoders.mlp(features=widths), tasks)
    x = jnp.asarray(draw.normal(size=(BATCH, INPUTS)), jnp.float32)
    targets = {t.name: jnp.asarray(draw.normal(size=BATCH), jnp.float32) for t in tasks}
    batch = mtl.Batch(x, targets, {t.name: jnp.ones(BATCH, bool) for t in tasks})
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    trainable = partition.trainable_paths(variables["params"], None)
    balancer, optimizer = balancing.build(method), optimizers.per_owner(optax.adam(1e-3))
    step = make_train_step(model, optimizer, balancer, trainable, options=Options(mode))
    carry = [state.create(variables, count, optimizer, balancer, trainable, jax.random.key(0))]
    compiled = jax.jit(step, donate_argnums=0).lower(carry[0], batch).compile()

    def call() -> None:
        carry[0] = jax.block_until_ready(compiled(carry[0], batch))[0]

    return call


def their_step(widths: tuple[int, ...], count: int, method: str) -> Callable:
    torch.manual_seed(0)
    layers, before = [], INPUTS
    for width in widths:
        layers += [torch.nn.Linear(before, width), torch.nn.ReLU()]
        before = width
    trunk = torch.nn.Sequential(*layers)
    heads = [torch.nn.Linear(before, 1) for _ in range(count)]
    parameters = [*trunk.parameters(), *(p for h in heads for p in h.parameters())]
    optimizer, aggregator = torch.optim.Adam(parameters, lr=1e-3), THEIRS[method]()
    x, y = torch.randn(BATCH, INPUTS), torch.randn(count, BATCH)

    def call() -> None:
        features = trunk(x)
        losses = [((h(features)[:, 0] - y[i]) ** 2).mean() for i, h in enumerate(heads)]
        mtl_backward(losses, features=features)
        jac_to_grad(trunk.parameters(), aggregator)
        optimizer.step()
        optimizer.zero_grad()

    return call


def steps_table(counts: list[int], rounds: int) -> str:
    """A row per model, number of tasks and method."""
    rows = []
    for name, widths in MODELS.items():
        for count in counts:
            for method in STEPS:
                calls = {mode: our_step(widths, count, method, mode) for mode in ("map", "vmap")}
                if torchjd:
                    calls["torchjd"] = their_step(widths, count, method)
                found = medians(calls, rounds)
                ours = found["map"]
                theirs = (f"{found['torchjd']:.2f}", f"{found['torchjd'] / ours:.1f}") if torchjd else ("-", "-")
                rows.append((name, str(count), method, f"{ours:.2f}", f"{found['vmap']:.2f}", *theirs))
    header = ("MLP", "K", "method", "map ms", "vmap ms", "TorchJD ms", "TorchJD / map")
    return table(rows, header, right=(1, 3, 4, 5, 6))


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
            solve = jax.jit(
                lambda g, s, b=balancer, m=mask, k=key, n=count: (
                    b.update(Signal(jnp.ones(n), gramian=g), s, mask=m, key=k)[0].weights
                )
            )
            calls = {"ours": lambda solve=solve, gram=gram, first=first: np.asarray(solve(gram, first))}
            if hasattr(THEIRS.get(method, object)(), "gramian_weighting"):
                weighting, tensor = THEIRS[method]().gramian_weighting, torch.as_tensor(gram)
                calls["theirs"] = lambda weighting=weighting, tensor=tensor: weighting(tensor)
            found = medians(calls, rounds if count < 100 else 3)
            theirs = f"{found['theirs']:.2f} ({found['theirs'] / found['ours']:.0f}x)" if "theirs" in found else "-"
            row += [f"{found['ours']:.2f}", theirs]
        rows.append(tuple(row))
    header = ("method", *(text for k in counts for text in (f"K={k} ms", "TorchJD ms")))
    return table(rows, header, right=tuple(range(1, len(header))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="2,3,10,40")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--solvers-only", action="store_true")
    given = parser.parse_args()
    torch_text = f"torch {torch.__version__}, torchjd" if torchjd else "torchjd is not installed: its columns are empty"
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}")
    print(torch_text)
    print(f"\nSolvers\n{solvers_table([3, 32, 64, 128], given.rounds)}", flush=True)
    if not given.solvers_only:
        print(f"\nWhole steps\n{steps_table(list(map(int, given.tasks.split(','))), given.rounds)}")


if __name__ == "__main__":
    main()

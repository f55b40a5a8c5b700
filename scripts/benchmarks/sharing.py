"""What each sharing architecture costs: compile seconds, step time, FLOPs and peak memory, as ratios to hard sharing.

    python scripts/benchmarks/sharing.py [--tasks 2,8,32] [--encoders mlp,transformer] [--rounds 9]

A step is forward, backward of the summed losses, and Adam, on an MLP 64-256-256 at batch 128 or a Transformer of 2
layers, width 64 and 32 steps at batch 16, with K regression heads. Times are medians over interleaved rounds, in
milliseconds, after compilation; the last column is the time ratio over the FLOPs ratio (above 1: slower than its
arithmetic). XLA counts the body of a loop once, so the FLOPs of an architecture that loops are a lower bound.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.reporting.describe import table
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step

ENCODERS = {
    "mlp": ("mlp(features=(256, 256))", 2, (128, 64)),
    "transformer": ("transformer(width=64, depth=2, heads=4, hidden=256, length=32)", 3, (16, 32, 8)),
}


def text_of(name: str, names: list[str], stages: int) -> str:
    """The architecture with what it needs beside a name: an order of tasks, or a tree."""
    if name == "cascade":
        return f"cascade(order={tuple(names)!r})"
    if name == "branched":
        half = len(names) // 2
        return f"branched(tree={((tuple(names[:half]), tuple(names[half:])),) * stages!r})"
    return name


def make(encoder: str, name: str, count: int) -> dict[str, Any]:
    """The compiled step of an architecture and what XLA says of it."""
    text, stages, shape = ENCODERS[encoder]
    draw = np.random.default_rng(0)
    tasks = [mtl.Task(f"t{i}", "regression") for i in range(count)]
    model = mtl.sharing.build(text_of(name, [t.name for t in tasks], stages), mtl.encoders.build(text), tasks)
    targets = {t.name: jnp.asarray(draw.normal(size=shape[0]), jnp.float32) for t in tasks}
    masks = {t.name: jnp.ones(shape[0], bool) for t in tasks}
    batch = mtl.Batch(jnp.asarray(draw.normal(size=shape), jnp.float32), targets, masks)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    trainable = partition.trainable_paths(variables["params"], None)
    balancer, optimizer = balancing.equal(), optimizers.per_owner(optax.adam(1e-3))
    step = make_train_step(model, optimizer, balancer, trainable)
    carry = [state.create(variables, count, optimizer, balancer, trainable, jax.random.key(0))]
    began = time.perf_counter()
    program = jax.jit(step, donate_argnums=0).lower(carry[0], batch).compile()
    seconds = time.perf_counter() - began
    memory, cost = program.memory_analysis(), program.cost_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes

    def call() -> None:
        carry[0] = jax.block_until_ready(program(carry[0], batch))[0]

    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return {
        "call": call, "compile": seconds, "flops": cost["flops"], "peak": held + memory.temp_size_in_bytes,
        "parameters": parameters,
    }  # fmt: skip


def medians(calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """{name: median milliseconds} of interleaved calls; two rounds warm up."""
    times = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(t[2:]) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="2,8,32")
    parser.add_argument("--encoders", default="mlp,transformer")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, Python {platform.python_version()}")
    for encoder in given.encoders.split(","):
        for count in map(int, given.tasks.split(",")):
            made = {name: make(encoder, name, count) for name in mtl.sharing.NAMES}
            found = medians({name: m["call"] for name, m in made.items()}, given.rounds)
            hard, rows = made["hard"], []
            for name, m in made.items():
                ratio = {k: m[k] / hard[k] for k in ("compile", "flops", "peak", "parameters")}
                slower = found[name] / found["hard"]
                rows.append((name, f"{found[name]:.2f}", f"{slower:.1f}", f"{ratio['flops']:.1f}",
                             f"{ratio['peak']:.1f}", f"{ratio['parameters']:.1f}", f"{ratio['compile']:.1f}",
                             f"{slower / ratio['flops']:.2f}"))  # fmt: skip
            header = ("sharing", "ms", "x hard", "FLOPs x", "peak x", "parameters x", "compile x", "time / FLOPs")
            shown = table(rows, header, right=tuple(range(1, 8)))
            print(f"\n{encoder}, K = {count}; hard compiles in {hard['compile']:.1f} s\n{shown}", flush=True)


if __name__ == "__main__":
    main()

"""What each balancing method costs: time, compilation, FLOPs and memory of a step, as ratios to a plain one.

    python -m scripts.benchmarks.step [--tasks 3,10,40] [--rounds 15]

The plain step is jax.grad of the sum of the losses and the same optimizer, written out here. Model: MLP
64-512-512-512 with K regression heads, batch 256, Adam. Steps of all rows are interleaved and medians compared, after
compilation; what one run prints is comparable, two runs on a busy machine are not. XLA counts the FLOPs of a loop's
body once, however often it runs, so the engine modes that loop over tasks show fewer than they execute. Further down:
milliseconds per step of `fit` on a tiny model, and the time that `import mtl_jax` takes beside jax and flax.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.balancing.options import Options
from mtl_jax.reporting.describe import table
from mtl_jax.sharing import forward
from mtl_jax.tasks import loss_sum
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step
from scripts.benchmarks import measuring

ROWS = (("equal", "map"), ("fixed", "map"), ("uncertainty", "map"), ("upgrad", "map"), ("upgrad", "vmap"),
        ("upgrad", "columns"), ("mgda", "map"), ("pcgrad", "map"), ("graddrop", "map"))  # fmt: skip
BATCH, INPUTS, WIDTH = 256, 64, 512


def setting(count: int):
    """(model, batch) with `count` regression tasks."""
    draw = np.random.default_rng(0)
    tasks = [mtl.Task(f"t{i}", "regression") for i in range(count)]
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(WIDTH,) * 3), tasks)
    targets = {t.name: jnp.asarray(draw.normal(size=BATCH), jnp.float32) for t in tasks}
    masks = {t.name: jnp.ones(BATCH, bool) for t in tasks}
    return model, mtl.Batch(jnp.asarray(draw.normal(size=(BATCH, INPUTS)), jnp.float32), targets, masks)


def plain_step(model):
    """A step as one would write it without this library, and its first state."""
    optimizer = optax.adam(1e-3)

    def loss(params, batch):
        outputs, _, _ = forward(model, {"params": params, "state": {"shared": {}, "tasks": {}}}, batch, train=True)
        pairs = [loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name]) for t in model.tasks]
        return sum(total / number for total, number in pairs)

    def step(carry, batch):
        params, moments = carry
        updates, moments = optimizer.update(jax.grad(loss)(params, batch), moments)
        return optax.apply_updates(params, updates), moments

    return step, lambda params: (params, optimizer.init(params))


def own_step(model, batch, method, mode):
    """The library's step with a method, and its first state."""
    text = f"fixed(({'1.0, ' * len(model.tasks)}))" if method == "fixed" else method
    balancer, optimizer = mtl.balancing.build(text), optimizers.per_owner(optax.adam(1e-3))
    layout, variables, stacked = measuring.lying(model, optimizer, model.init(jax.random.key(0), batch), batch)
    trainable = partition.trainable_paths(variables["params"], None)

    def first(params):
        variables = layout.stack_variables({"params": params, "state": {"shared": {}, "tasks": {}}})
        return state.create(
            variables, len(model.tasks), optimizer, balancer, trainable, jax.random.key(0), layout=layout
        )

    def step(carry, batch):
        del batch
        made = make_train_step(model, optimizer, balancer, trainable, options=Options(mode), layout=layout)
        return made(carry, stacked)[0]

    return step, first


def compare_steps(count: int, rounds: int) -> str:
    """The table of one number of tasks."""
    model, batch = setting(count)
    params = model.init(jax.random.key(0), batch)["params"]
    steps = {("plain", ""): plain_step(model)} | {row: own_step(model, batch, *row) for row in ROWS}
    made = {
        name: measuring.compiled(step, jax.jit(first)(jax.tree.map(jnp.copy, params)), batch)
        for name, (step, first) in steps.items()
    }
    found = measuring.medians({name: m.call for name, m in made.items()}, rounds)
    base, base_time = made["plain", ""], found["plain", ""]
    rows = [
        (*name, f"{found[name]:.1f}", f"{found[name] / base_time:.2f}", f"{m.seconds:.1f}",
         f"{m.seconds / base.seconds:.1f}", f"{m.flops / base.flops:.2f}", f"{m.peak:.1f}", f"{m.peak / base.peak:.2f}")
        for name, m in made.items()
    ]  # fmt: skip
    header = ("method", "engine", "ms", "x plain", "compile s", "x plain", "FLOPs x plain", "peak MiB", "x plain")
    return table(rows, header, right=tuple(range(2, 9)))


def tiny_fit() -> float:
    """Milliseconds per step of `fit` on a tiny model with scanned dispatch, compilation left out."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2000, 16)).astype(np.float32)
    data = mtl.data.from_arrays(x, {"a": x[:, 0], "b": (x[:, 1] > 0).astype(float)})
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(32, 32)), data.tasks)
    run = mtl.fit(model, data, num_steps=40000, steps_per_dispatch=500, eval_every=1000, batch_size=32)
    # All is compiled by the second validation.
    times = {r["step"]: r["seconds"] for r in run.history}
    return (times[40000] - times[2000]) / 38000 * 1e3


def import_time() -> dict[str, float]:
    """Median seconds of importing mtl_jax, with and without what fit needs, and of jax and flax, in new processes."""
    programs = {
        "own": "import mtl_jax as m; m.fit, m.sharing.hard, m.balancing.upgrad, m.encoders.mlp, m.data.load",
        "base": "import jax, flax, flax.linen, optax",
        "bare": "import mtl_jax",
        "jax, flax": "import jax, flax",
    }
    found = {name: [] for name in programs}
    for _ in range(5):
        for name, program in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(v) for name, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="3,10,40")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}")
    for count in map(int, given.tasks.split(",")):
        print(f"\nK = {count}\n{compare_steps(count, given.rounds)}", flush=True)
    print(f"\nfit on a tiny model: {tiny_fit():.3f} ms per step")
    seconds = import_time()
    print(f"import mtl_jax: {seconds['bare']:.2f} s; with all that fit needs {seconds['own']:.2f} s, which is "
          f"{seconds['own'] / seconds['jax, flax']:.2f} x jax, flax ({seconds['jax, flax']:.2f} s) and "
          f"{seconds['own'] / seconds['base']:.2f} x jax, flax.linen, optax ({seconds['base']:.2f} s)")  # fmt: skip


if __name__ == "__main__":
    main()

"""What many alike tasks cost: from the call of `fit` to the first step, and a step, beside one wide head and PyTorch.

    python -m scripts.benchmarks.tasks [--tasks 10,50,200,691] [--rows hard,mmoe,...] [--steps 200]

K amounts on 20 numbers, half of the labels missing; an MLP with one stage of 64, linear heads, Adam. With inputs in
common 2,000 rows and batches of 128, with inputs of their own 60 to 140 rows a task and 16 in a batch. Every cell is a
process of its own, so that nothing is compiled already: seconds to initialise, to compile a dispatch of 50 steps and an
evaluation of validation, all before the first step (reading of data aside), then milliseconds a step in `fit` and the
peak of a dispatch. "one head" is the same step written out in JAX with one [64, K] head and a mask: inputs in common
only. PyTorch (left out where absent) loops over the tasks' heads, as one writes it, with Adam over all parameters; its
seconds to the last step stand beside ours, both with all that is before.
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time

import numpy as np

ROWS = ("hard", "hard upgrad", "independent", "soft", "mmoe", "mmoe upgrad", "film", "film upgrad", "hard own",
        "hard own upgrad", "soft own")  # fmt: skip
INPUTS, WIDTH, BATCH, OWN_BATCH, DISPATCH = 20, 64, 128, 16, 50
PATIENCE = 150  # seconds for a cell
NAMES = ("init s", "compile s", "evaluate s", "to 1st step s", "ms a step", "peak MiB", "one head ms", "s in all",
         "PyTorch s")  # fmt: skip


def arrays(count: int, own: bool) -> tuple:
    """({task: inputs} or inputs, {task: targets}, {task: mask})."""
    draw = np.random.default_rng(0)
    names = [f"t{i:03d}" for i in range(count)]
    rows = {n: int(draw.integers(60, 141)) if own else 2000 for n in names}
    common = draw.normal(size=(2000, INPUTS)).astype(np.float32)
    inputs = {n: draw.normal(size=(rows[n], INPUTS)).astype(np.float32) if own else common for n in names}
    targets = {n: (inputs[n] @ draw.normal(size=INPUTS) / 4).astype(np.float32) for n in names}
    masks = {n: np.ones(rows[n], bool) if own else draw.random(rows[n]) < 0.5 for n in names}
    return inputs if own else common, targets, masks


def ours(sharing: str, balancer: str, own: bool, count: int, steps: int) -> dict[str, float]:
    """Seconds and milliseconds of one cell."""
    import jax

    import mtl_jax as mtl
    from mtl_jax.training import loop
    from mtl_jax.training import program as programs

    inputs, targets, masks = arrays(count, own)
    data = mtl.data.from_arrays(mtl.PerTask(inputs) if own else inputs, targets, masks=masks, val=0.2)
    spent: dict[str, float] = {}

    def timed(name: str, function):
        def call(*args, **kwargs):
            began = time.perf_counter()
            result = jax.block_until_ready(function(*args, **kwargs))
            spent.setdefault(name, time.perf_counter() - began)
            return result

        return call

    def evaluator(*args, **kwargs):
        return timed("evaluate s", make_evaluate(*args, **kwargs))

    make_evaluate, programs.make_evaluate = programs.make_evaluate, evaluator
    initial = programs.initial

    def first(*args):
        made = initial(*args)
        return made._replace(make=timed("init s", made.make))

    programs.initial = first
    compile_once = loop.compile_once

    def compiled(dispatch, *args):
        program, cost = compile_once(dispatch, *args)
        spent["to 1st step s"] = time.perf_counter() - started
        calls = []

        def call(*args):
            began = time.perf_counter()
            result = jax.block_until_ready(program(*args))
            calls.append(time.perf_counter() - began)
            spent["ms a step"] = 1e3 * float(np.median(calls)) / DISPATCH
            return result

        return call, cost

    loop.compile_once = compiled
    started = time.perf_counter()
    model = mtl.sharing.build(sharing, mtl.encoders.mlp(features=(WIDTH,)), data.tasks)
    run = mtl.fit(model, data, balancer=balancer, num_steps=steps, batch_size=OWN_BATCH if own else BATCH,
                  steps_per_dispatch=DISPATCH, eval_every=steps, log_every=steps, progress=False)  # fmt: skip
    spent["s in all"] = time.perf_counter() - started
    spent["compile s"], spent["peak MiB"] = run.cost["compile_seconds"], run.cost["peak_bytes"] / 2**20
    # Validation is compiled after the first steps; it belongs to what one waits for.
    spent["to 1st step s"] += spent["evaluate s"]
    return spent


def one_head(count: int) -> dict[str, float]:
    """Milliseconds of a step with one wide head, written out."""
    import jax
    import jax.numpy as jnp
    import optax

    inputs, targets, masks = arrays(count, False)
    x, y, m = jnp.asarray(inputs), jnp.stack(list(targets.values()), 1), jnp.stack(list(masks.values()), 1)
    keys = jax.random.split(jax.random.key(0))
    params = {"w": jax.random.normal(keys[0], (INPUTS, WIDTH)) / INPUTS**0.5, "b": jnp.zeros(WIDTH),
              "head": jax.random.normal(keys[1], (WIDTH, count)) / WIDTH**0.5, "out": jnp.zeros(count)}  # fmt: skip
    optimizer = optax.adam(1e-3)

    def loss(params, rows):
        found = jax.nn.relu(x[rows] @ params["w"] + params["b"]) @ params["head"] + params["out"]
        squares = jnp.where(m[rows], (found - y[rows]) ** 2, 0)
        return (squares.sum(0) / jnp.maximum(m[rows].sum(0), 1)).sum()

    @jax.jit
    def many(carry, rows):
        def step(carry, rows):
            updates, moments = optimizer.update(jax.grad(loss)(carry[0], rows), carry[1])
            return (optax.apply_updates(carry[0], updates), moments), None

        return jax.lax.scan(step, carry, rows)[0]

    carry, times = (params, optimizer.init(params)), []
    rows = jnp.asarray(np.random.default_rng(0).integers(0, len(x), (DISPATCH, BATCH)))
    for _ in range(6):
        began = time.perf_counter()
        carry = jax.block_until_ready(many(carry, rows))
        times.append(time.perf_counter() - began)
    return {"one head ms": 1e3 * float(np.median(times[1:])) / DISPATCH}


def pytorch(sharing: str, own: bool, count: int, steps: int) -> dict[str, float]:
    """Seconds of a plain loop with K heads, to the last step."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs, targets, masks = arrays(count, own)
    draw = np.random.default_rng(1)
    began = time.perf_counter()

    def tensor(x):
        return torch.as_tensor(x, device=device)

    def trunk():
        return torch.nn.Sequential(torch.nn.Linear(INPUTS, WIDTH), torch.nn.ReLU()).to(device)

    alone = sharing in ("independent", "soft")
    trunks = [trunk() for _ in range(count if alone else 1)]
    heads = [torch.nn.Linear(WIDTH, 1).to(device) for _ in range(count)]
    modules = torch.nn.ModuleList([*trunks, *heads])
    optimizer = torch.optim.Adam(modules.parameters(), 1e-3)
    xs = {n: tensor(x) for n, x in inputs.items()} if own else tensor(inputs)
    ys, ms = ({n: tensor(v) for n, v in x.items()} for x in (targets, masks))
    for _ in range(steps):
        total, rows = 0.0, None if own else tensor(draw.integers(0, 2000, BATCH))
        shared = None if own or alone else trunks[0](xs[rows])
        for i, n in enumerate(ys):
            at = tensor(draw.integers(0, len(ys[n]), OWN_BATCH)) if own else rows
            features = shared if shared is not None else trunks[i if alone else 0]((xs[n] if own else xs)[at])
            squares = (heads[i](features)[:, 0] - ys[n][at]) ** 2 * ms[n][at]
            total = total + squares.sum() / ms[n][at].sum().clamp(min=1)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return {"PyTorch s": time.perf_counter() - began}


def cell(row: str, count: int, steps: int, what: str) -> dict[str, float]:
    """One measurement, in this process."""
    sharing, *words = row.split()
    own, balancer = "own" in words, "upgrad" if "upgrad" in words else "equal"
    if what == "head":
        return one_head(count)
    if what == "torch":
        return pytorch(sharing, own, count, steps)
    return ours(sharing, balancer, own, count, steps)


def measured(row: str, count: int, steps: int, what: str) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "scripts.benchmarks.tasks", "--cell", row, str(count), str(steps), what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"{row}, K = {count}, {what}: not done after {PATIENCE} s", flush=True)
        return {}
    if done.returncode:
        print(f"{row}, K = {count}, {what}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", flush=True)
        return {}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Prints a table per row of `ROWS`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="10,50,200,691")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--torch", choices=("yes", "no"), default="yes")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        row, count, steps, what = given.cell
        print(json.dumps(cell(row, int(count), int(steps), what)))
        return
    with_torch = given.torch == "yes" and importlib.util.find_spec("torch") is not None
    beside = "beside" if with_torch else "absent or left out"
    print(
        f"{platform.machine()}, Python {platform.python_version()}, {given.steps} steps; PyTorch {beside}", flush=True
    )
    print(f"{'':18}{'K':>5}" + "".join(f"{n:>15}" for n in NAMES), flush=True)
    for row in given.rows.split(","):
        first = None
        for count in map(int, given.tasks.split(",")):
            found = measured(row, count, given.steps, "ours")
            if "own" not in row and "upgrad" not in row and row == "hard":
                found |= measured(row, count, given.steps, "head")
            if with_torch and "upgrad" not in row and row.split()[0] in ("hard", "independent"):
                found |= measured(row, count, given.steps, "torch")
            shown = "".join(f"{found[n]:15.2f}" if n in found else f"{'-':>15}" for n in NAMES)
            first = first or found.get("to 1st step s")
            growth = f"   x {found['to 1st step s'] / first:.1f}" if first and "to 1st step s" in found else ""
            print(f"{row:18}{count:5}{shown}{growth}", flush=True)


if __name__ == "__main__":
    main()

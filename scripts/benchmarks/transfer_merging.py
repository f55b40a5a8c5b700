"""Part "merging" of `transfer.py`: seconds that each merging method takes on models of ResNet's size.

Three drawn models and the base that they differ from by a tenth. "solve" is the method on trees of parameters, "inputs"
what it reads before: for RegMean, of 32 images of 64 x 64 a model, what enters each layer, with its compilation; for a
greedy soup, whose score is the loss of 32 images, five forward passes. RegMean++ reads between its stages, so all of it
is under "inputs". A merged run's batch statistics, if it has any, are computed anew on data: the last row.
"""

import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.model import forward
from mtl_jax.reporting.describe import table
from mtl_jax.transfer import merging
from mtl_jax.transfer.merging import statistics
from mtl_jax.transfer.merging.run_inputs import inputs_of_layers
from mtl_jax.transfer.merging.stages import stages_of

MODELS, ROWS, SIDE = 3, 32, 64


def runs_of(depth: int) -> tuple[list[mtl.Run], dict[str, np.ndarray], mtl.data.Dataset]:
    """(runs of one task each, {path: the base's shared parameters}, data with all tasks)."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(3 * ROWS, SIDE, SIDE, 3)).astype(np.float32)
    labels = {f"t{i}": draw.integers(0, 10, 3 * ROWS) for i in range(MODELS)}
    kinds = {t: mtl.Task(t, "classification", size=10) for t in labels}
    train, val, test = ((images[i::3], {t: y[i::3] for t, y in labels.items()}) for i in range(3))
    data = mtl.data.from_arrays(*train, kinds=kinds, val=val, test=test, name="drawn")
    encoder = mtl.encoders.resnet(depth=depth)
    runs, base = [], None
    for task in data.tasks:
        model = mtl.sharing.hard(encoder, (task,))
        example = mtl.Batch(images[:2], {}, {})
        shapes = jax.eval_shape(lambda model=model, example=example: model.init(jax.random.key(0), example))
        variables = {k: partition.unflatten({p: first(p, x) for p, x in partition.flatten(tree).items()}, tree)
                     for k, tree in shapes.items()}  # fmt: skip
        flat = partition.flatten(variables["params"])
        base = {p: x for p, x in flat.items() if p.startswith("shared/")}
        moved = {p: moved_by(draw, x) if p in base else x for p, x in flat.items()}
        variables["params"] = partition.unflatten(moved, shapes["params"])
        runs.append(mtl.Run(model, (task,), variables, [], example))
    return runs, base, data


def first(path: str, leaf: Any) -> np.ndarray:
    """A kernel drawn as He et al. do, the same for all models, or a norm that changes nothing."""
    if not path.endswith("kernel"):
        return np.full(leaf.shape, float(path.endswith(("scale", "var"))), leaf.dtype)
    draw = np.random.default_rng(zlib.crc32(path.encode()))
    return ((2 / np.prod(leaf.shape[:-1])) ** 0.5 * draw.normal(size=leaf.shape)).astype(leaf.dtype)


def moved_by(draw: np.random.Generator, leaf: np.ndarray) -> np.ndarray:
    """A leaf with noise of a tenth of a kernel's usual spread."""
    spread = 0.1 / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
    return leaf + (spread * draw.normal(size=leaf.shape)).astype(leaf.dtype)


def seconds(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """((wall, processor) seconds, what the call returns)."""
    wall, processor = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(call())
    return (time.perf_counter() - wall, time.process_time() - processor), found


def merging_table(depth: int) -> str:
    """A row per method."""
    runs, base, data = runs_of(depth)
    models = [{p: x for p, x in partition.flatten(r.params).items() if p in base} for r in runs]
    score = scorer(runs[0], data)
    times: dict[str, tuple[Any, Any]] = {}

    def reading() -> Any:
        grams_of, first = inputs_of_layers(runs, data, list(base), ROWS, 0)
        return grams_of, first, [first.grams, *(grams_of(i, m) for i, m in enumerate(models) if i)]

    solves = {
        "average": lambda: merging.average(models),
        "wise_ft": lambda: merging.wise_ft(base, models[:1]),
        "task_arithmetic": lambda: merging.task_arithmetic(base, models),
        "ties": lambda: merging.ties(base, models),
        "dare": lambda: merging.dare(base, models, jax.random.key(0)),
        "tsv_m": lambda: merging.tsv_m(base, models),
        "iso_c": lambda: merging.iso_c(base, models),
        "wudi": lambda: merging.wudi(base, models),
    }
    for name, solve in solves.items():
        times[name] = (None, seconds(solve)[0])
        print(name, *shown(times[name][1]), flush=True)
    times["greedy_soup"] = (seconds(lambda: merging.greedy_soup(models, score))[0], None)
    read, (grams_of, first, grams) = seconds(reading)
    times["regmean"] = (read, seconds(lambda: merging.regmean(models, grams))[0])
    stages = stages_of(list(base), list(first.grams))
    times["regmean_plus_plus"] = (seconds(lambda: merging.regmean_plus_plus(models, stages, grams_of))[0], None)
    anew = seconds(lambda: statistics.refreshed(runs[0].model, runs[0].variables, data.train)["state"])[0]
    rows = [(name, *(cell for pair in pairs for cell in shown(pair))) for name, pairs in times.items()]
    rows.append(("batch statistics anew", *shown(anew), *shown(None)))
    size, widest = sum(x.size for x in base.values()), max(np.prod(x.shape[:-1]) for x in base.values())
    header = ("method", "inputs s", "CPU s", "solve s", "CPU s")
    print(f"\nMerging {MODELS} ResNet-{depth}, {size / 1e6:.1f} million numbers, at most {widest} inputs of a layer")
    return table(rows, header, right=(1, 2, 3, 4))


def shown(pair: tuple[float, float] | None) -> tuple[str, str]:
    """Two cells."""
    return ("", "") if pair is None else (f"{pair[0]:.1f}", f"{pair[1]:.1f}")


def scorer(run: mtl.Run, data: mtl.data.Dataset) -> Callable[[Any], float]:
    """({path: leaf}) -> the negative loss of the first task on validation rows."""
    task = run.tasks[0].name
    own, state, labels = partition.flatten(run.params), run.variables["state"], jnp.asarray(data.val.targets[task])

    @jax.jit
    def loss(flat: Any, state: Any, inputs: Any) -> Any:
        variables = {"params": partition.unflatten(flat, run.params), "state": state}
        outputs = forward(run.model, variables, mtl.Batch(inputs, {}, {}))[0]
        return -jax.nn.log_softmax(outputs[task])[jnp.arange(len(labels)), labels].mean()

    return lambda leaves: -float(loss({**own, **leaves}, state, data.val.inputs))

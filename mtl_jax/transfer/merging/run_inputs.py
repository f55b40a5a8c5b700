"""What enters the layers of runs, on training rows of their own tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import on_disk, partition, parts
from mtl_jax.batch import Batch, PerTask, counted, inputs_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.inputs import in_form_of, read_inputs
from mtl_jax.model import forward
from mtl_jax.training.run import Run
from mtl_jax.transfer.merging import layer_inputs

BATCH = 32  # rows of a pass: patches of convolutions are large


def inputs_of_layers(
    runs: Sequence[Run], data: Dataset, paths: Sequence[str], rows: int, seed: int
) -> tuple[Callable[[int, Any], dict[str, Any]], layer_inputs.Inputs]:
    """((number of a run, parameters) -> grams of its task's rows, what enters the first run's layers)."""
    parts.check_whole("rows", rows)
    batches = [rows_of(run, data, rows, np.random.default_rng([seed, i])) for i, run in enumerate(runs)]
    made = []
    for run in runs:
        own = {p: np.asarray(x) for p, x in partition.flatten(run.params).items()}

        def function(leaves: Any, inputs: Any, run: Run = run, own: dict = own) -> Any:
            params = partition.unflatten({**own, **leaves}, run.params)
            return forward(run.model, {**run.variables, "params": params}, Batch(inputs, {}, {}))[0]

        made.append(layer_inputs.make_grams(function, {p: own[p] for p in paths}))

    def read(i: int, leaves: Any) -> layer_inputs.Inputs:
        flat = partition.flatten(leaves)
        return made[i]({p: flat[p] for p in paths}, batches[i])

    first = read(0, runs[0].params)
    if not first.grams:
        said = "; ".join(f"{p}: {why}" for p, why in list(first.left.items())[:3])
        raise ValueError(f"no shared kernel enters a matrix product or convolution that could be read ({said})")
    return lambda i, leaves: read(i, leaves).grams, first


def rows_of(run: Run, data: Dataset, rows: int, draw: np.random.Generator) -> list[Any]:
    """Batches of inputs of training rows that have a label of one of the run's tasks."""
    named = {t.name for t in data.tasks}
    names = [t.name for t in run.tasks]
    if lacking := [n for n in names if n not in named]:
        raise parts.unknown(f"task of data set {data.name!r}", lacking[0], named)
    apart = isinstance(run.example.inputs, PerTask)
    picked: dict[str, Any] = {}
    for name in names:
        mask, _ = counted(data.train, name)
        there = np.flatnonzero(mask.reshape(len(mask), -1).any(1))
        if not len(there):
            raise ValueError(f"task {name!r} has no labelled training rows in data set {data.name!r}")
        at = np.sort(draw.permutation(there)[:rows])
        picked[name] = jax.tree.map(lambda x, at=at: on_disk.rows_of(x, at), inputs_of(data.train.inputs, name))
    given: Any = PerTask(picked) if apart else jax.tree.map(lambda *x: np.concatenate(x), *picked.values())
    given = in_form_of(run.example.inputs, read_inputs(given))
    least = min(len(jax.tree.leaves(picked[n])[0]) for n in names) if apart else len(jax.tree.leaves(given)[0])
    size = min(BATCH, least)
    return [jax.tree.map(lambda x, s=s: x[s : s + size], given) for s in range(0, least - size + 1, size)]

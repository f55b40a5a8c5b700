"""Losses and metrics of a whole split, in one compiled program."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.batch import Batch
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import KINDS, Task, loss_sum, metric_functions, readable


def make_evaluate(
    model: MultiTaskModel, tasks: Sequence[Task], members: bool = False, in_pieces: bool = False
) -> Callable:
    """The compiled function (variables, batches) -> (losses [K], {task: {metric: scalar}}).

    `batches` is a `Batch` whose leaves are [num_batches, batch, ...] (`data.padded_batches`); rows that pad the last
    batch have mask False. Where a task has no labels, its loss and metrics are nan. With `members`, variables have a
    leading axis of runs, and so have the results. With `in_pieces` it takes an iterable of such `batches` instead, all
    of one shape (`chunks.batch_pieces`), of which one is held at a time.
    """
    functions = {t.name: metric_functions(t) for t in tasks}

    def measure(variables: Any, batch: Batch) -> tuple[Any, Any]:
        outputs, _, _ = forward(model, variables, batch)
        sums = jnp.stack([jnp.stack(loss_sum(t, outputs[t.name], *labels(batch, t))) for t in tasks])
        states = {
            t.name: [m.measure(readable(t, outputs[t.name]), *labels(batch, t)) for m in functions[t.name]]
            for t in tasks
        }
        return sums, states

    def labels(batch: Batch, task: Task) -> tuple[Array, Array]:
        return batch.targets[task.name], batch.masks[task.name]

    def measure_all(variables: Any, batches: Batch) -> tuple[Any, Any]:
        return jax.lax.map(lambda batch: measure(variables, batch), batches)

    def finish(found: tuple[Any, Any]) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        sums, states = found
        total, count = sums.sum(0).T
        metrics = {
            t.name: {m.name: m.compute(m.merge(s)) for m, s in zip(functions[t.name], states[t.name], strict=True)}
            for t in tasks
        }
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), metrics

    def evaluate(variables: Any, batches: Batch) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        return finish(measure_all(variables, batches))

    def compiled(function: Callable, axes: Any) -> Callable:
        return jax.jit(jax.vmap(function, in_axes=axes) if members else function)

    if not in_pieces:
        return compiled(evaluate, (0, None))
    piece, last = compiled(measure_all, (0, None)), compiled(finish, 0)

    def evaluate_pieces(variables: Any, pieces: Iterable[Batch]) -> tuple[Any, Any]:
        # To the host one by one, so that no piece is held on a device while the next one runs.
        found = [jax.device_get(piece(variables, batches)) for batches in pieces]
        return last(jax.tree.map(lambda *x: np.concatenate(x, int(members)), *found))

    return evaluate_pieces


def baseline_losses(tasks: Sequence[Task], train: Batch) -> Float[np.ndarray, " task"]:
    """[K], the loss on the training labels of the constant that each kind's table entry in `tasks` names.

    A validation score is 1 - loss / this loss: 0 for knowing nothing of the inputs, 1 for perfect.
    """
    found = []
    for task in tasks:
        target, mask = np.asarray(train.targets[task.name]), np.asarray(train.masks[task.name])
        labelled = np.broadcast_to(mask.reshape(mask.shape + (1,) * (target.ndim - mask.ndim)), target.shape)
        output = best_constant(task, np.where(labelled, target, 0), labelled).astype(np.float32)
        # One constant for every element; the last axis of labels, vectors and boxes is the constant's own.
        elements = target.ndim - isinstance((None, *task.row_axes)[-1], int)
        measure = jax.jit(functools.partial(loss_sum, task))
        total, count, chunk = 0.0, 0.0, max(1, CHUNK // max(1, int(np.prod(target.shape[1:])) * output.size))
        for start in range(0, len(target), chunk):
            rows = slice(start, start + chunk)
            shape = target[rows].shape[:elements]
            sums = measure(np.broadcast_to(output, (*shape, *output.shape)), target[rows], mask[rows])
            total, count = total + float(sums[0]), count + float(sums[1])
        found.append(total / max(count, 1.0))
    return np.maximum(np.asarray(found, np.float32), np.finfo(np.float32).tiny)


CHUNK = 2**24  # outputs that are held at once


def best_constant(task: Task, target: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The constant outputs of one element, in the units of the model's outputs."""
    kind = KINDS[task.kind]
    if kind.labels == "classes":
        frequency = np.bincount(target[labelled], minlength=task.size) / max(labelled.sum(), 1)
        return np.log(np.maximum(frequency, 1e-6))
    if task.kind == "ranking":
        return np.zeros(())
    if task.kind in ("depth", "quantile"):  # quantiles of all elements alike; a constant without labels has loss 0
        levels = task.quantiles or 0.5
        value = np.quantile(target[labelled], levels) if labelled.any() else np.zeros(np.shape(levels))
    else:
        axes = tuple(range(target.ndim - 1)) if kind.whole else 0
        value = target.sum(axes) / np.maximum(labelled.sum(axes), 1)
    if kind.labels == "zero_one":
        value = np.clip(value, 1e-6, 1 - 1e-6)
        value = np.log(value) - np.log1p(-value)
    return np.asarray(value if task.scaler is None else task.scaler.scale(jnp.asarray(value)))

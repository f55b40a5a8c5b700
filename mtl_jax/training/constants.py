"""The predictor that knows nothing of the inputs: the best constant of each task's training labels.

It is the zero that validation scores are measured from, and a row of every comparison: what is worse than it has
learned nothing that could be used.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.alike import of_labels
from mtl_jax.batch import Batch, aligned, counted, labelled_elements
from mtl_jax.class_weights import balanced, class_factors
from mtl_jax.data.sampling import padded_batches
from mtl_jax.scaler import centred
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task
from mtl_jax.training.evaluation import make_measure

ELEMENTS = 2**22  # outputs of one batch


def baseline_losses(tasks: Sequence[Task], train: Batch, split: Batch | None = None) -> Float[np.ndarray, " task"]:
    """[K], the loss on a split (by default train) of the best constants of train; nan where it has no labels."""
    return np.asarray(_measured(tasks, train, train if split is None else split, False)[0])


def constant_results(tasks: Sequence[Task], train: Batch, split: Batch) -> dict[str, dict[str, float]]:
    """{task: {"loss" and each metric: value}} on a split of the best constants of train, as `Run.evaluate` has them."""
    # Metrics do not read class weights, and so their constants do not either.
    plain = [dataclasses.replace(t, class_weights=None) for t in tasks]
    losses, metrics = _measured(plain, train, split, True)
    if list(tasks) != plain:
        losses = baseline_losses(tasks, train, split)
    return {
        t.name: {"loss": float(losses[i])} | {m: float(v) for m, v in metrics[t.name].items()}
        for i, t in enumerate(tasks)
    }


def _measured(tasks: Sequence[Task], train: Batch, split: Batch, with_metrics: bool) -> tuple[Any, Any]:
    tasks = [balanced(t, train) for t in tasks]
    train, split = centred(tasks, train), centred(tasks, split)
    constants = {t.name: fit_constant(t, train).astype(np.float32) for t in tasks}
    layout = of_labels(tasks, split)
    # Of the inputs nothing is read, so that none are carried along; a row's position stands for them.
    rows = np.arange(max(len(split.targets[t.name]) for t in tasks), dtype=np.int32)
    targets, masks, weights = (
        {t.name: _filled(x[t.name], len(rows)) for t in tasks if t.name in x}
        for x in (split.targets, split.masks, split.weights or {})
    )
    labels = Batch(rows, targets, masks, weights or None)
    widest = max(int(np.prod(labels.targets[t.name].shape[1:])) * constants[t.name].size for t in tasks)
    batches = padded_batches(labels, max(1, min(4096, ELEMENTS // max(1, widest))))
    measure = _measure_of(layout, with_metrics)
    return measure(layout.stack(constants), layout.stack_batch(batches, axis=1))


def _measure_of(layout: Layout, with_metrics: bool) -> Callable:
    """`make_measure` of constants; that of equal tasks is compiled once, where all that they compute has a name."""
    tasks = layout.tasks
    key = (tasks, tuple(layout.groups.items()), tuple(t.of_kind for t in tasks), with_metrics)
    if all(part is None or isinstance(part, str) for t in tasks for part in (t.loss, *(t.metrics or ()))):
        try:
            hash(key)
        except TypeError:
            return _new_measure(*key)
        return _kept_measure(*key)
    return _new_measure(*key)


def _new_measure(
    tasks: tuple[Task, ...], groups: tuple[tuple[str, tuple[str, ...]], ...], kinds: Any, with_metrics: bool
) -> Callable:
    del kinds  # which the tasks look up
    layout = Layout(tasks, dict(groups))

    def outputs(constants: dict[str, Array], batch: Batch) -> dict[str, Array]:
        return layout.each(lambda t, c, y: _everywhere(t, c, y.shape), constants, batch.targets)

    return make_measure(outputs, layout, with_metrics=with_metrics)


_kept_measure = functools.lru_cache(maxsize=16)(_new_measure)


def _filled(x: Any, rows: int) -> np.ndarray:
    """Targets, mask or weights, filled up with unlabelled rows where another task has more rows of its own."""
    x = np.asarray(x)
    more = rows - len(x)
    return np.concatenate([x, np.zeros((more, *x.shape[1:]), x.dtype)]) if more else x


def _everywhere(task: Task, constant: Array, shape: tuple[int, ...]) -> Array:
    """One constant for every element; the last axis of labels, vectors and boxes is the constant's own."""
    elements = shape[: len(shape) - isinstance((None, *task.row_axes)[-1], int)]
    return jnp.broadcast_to(constant, (*elements, *constant.shape))


def fit_constant(task: Task, train: Batch) -> np.ndarray:
    """The constant outputs of one element that each kind's table entry in `tasks` names, from the training labels."""
    target = np.asarray(train.targets[task.name])
    mask, rows = counted(train, task.name)
    labelled = labelled_elements(target, mask)
    target = np.where(labelled, target, 0)
    each = np.where(labelled, aligned(rows, target), 0)
    if task.class_weights is not None:
        each = each * np.asarray(class_factors(task, jnp.asarray(target)))
    return best_constant(task, target, labelled, None if train.weights is None and task.class_weights is None else each)


def best_constant(
    task: Task, target: np.ndarray, labelled: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The constant outputs of one element, in the units of the model's outputs; `weights` are those of elements."""
    kind = task.of_kind
    each = labelled if weights is None else weights
    if kind.labels == "classes":
        size = task.size
        assert size is not None  # kinds of classes have one
        frequency = np.bincount(target[labelled], None if weights is None else each[labelled], minlength=size)
        return np.log(np.maximum(frequency / max(each.sum(), np.finfo(np.float32).tiny), 1e-6))
    if kind.constant == "zero":
        return np.zeros(())
    if kind.constant == "quantile":  # a constant without labels has loss 0
        levels = task.quantiles or 0.5
        # Weights go with a quantile that is one of the labels; it minimises the loss as well.
        how = {} if weights is None else {"weights": each[labelled], "method": "inverted_cdf"}
        value = np.quantile(target[labelled], levels, **how) if labelled.any() else np.zeros(np.shape(levels))
    else:
        axes = tuple(range(target.ndim - 1)) if kind.whole else 0
        count = each.sum(axes)
        value = (each * target).sum(axes) / np.where(count > 0, count, 1)
    if kind.labels == "zero_one":
        value = np.clip(value, 1e-6, 1 - 1e-6)
        value = np.log(value) - np.log1p(-value)
    return np.asarray(value if task.scaler is None else task.scaler.scale(jnp.asarray(value)))


def untold(task: Task, split: Batch) -> str | None:
    """Why a split's labels cannot tell a model from a constant: there are none, or all are the same; else None.

    Numbers are the same where they differ by no more than float32 rounds them, relative to their origin.
    """
    given, split = np.asarray(split.targets[task.name]), centred([task], split)
    target, (mask, _) = np.asarray(split.targets[task.name]), counted(split, task.name)
    labelled = labelled_elements(target, mask)
    if not labelled.any():
        return "no labels"
    first = given[labelled][0]
    # Where the target is a vector, each of its columns has a value of its own.
    vector = isinstance((None, *task.row_axes)[-1], int)
    columns, labelled = (x.reshape(-1, x.shape[-1] if vector else 1) for x in (target, labelled))
    low = np.where(labelled, columns, np.inf).min(0)
    high = np.where(labelled, columns, -np.inf).max(0)
    there = labelled.any(0)
    low, high = low[there], high[there]
    if (high - low > 1e-6 * np.maximum(np.abs(low), np.abs(high))).any():
        return None
    shown = task.classes[int(first)] if task.classes and task.of_kind.labels == "classes" else f"{first:g}"
    return f"every label is {shown}" if len(low) == 1 else "every label is the same"

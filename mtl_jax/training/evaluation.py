"""Losses and metrics of a whole split, in one compiled program."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.batch import Batch, labels_of
from mtl_jax.metrics.base import expand
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import Missing, Task, divisor, loss_sum, metric_functions, one_output, readable


def make_evaluate(
    model: MultiTaskModel, tasks: Sequence[Task], members: bool = False, in_pieces: bool = False
) -> Callable:
    """`make_measure` of a model: (variables, batches) -> (losses [K], {task: {metric: scalar}})."""
    return make_measure(lambda variables, batch: forward(model, variables, batch)[0], tasks, members, True, in_pieces)


def make_measure(
    outputs_of: Callable,
    tasks: Sequence[Task],
    members: bool = False,
    with_metrics: bool = True,
    in_pieces: bool = False,
) -> Callable:
    """The compiled function (variables, batches) -> (losses [K], {task: {metric: scalar}}).

    `outputs_of` is (variables, batch) -> {task: outputs}. `batches` is a `Batch` whose leaves are
    [num_batches, batch, ...] (`data.padded_batches`); rows that pad the last batch have mask False. Where a task has no
    labels, its loss and metrics are nan, and so is a loss that is `Missing`. With `members`, variables have a leading
    axis of runs, and so have the results. With `in_pieces` it takes an iterable of such `batches` instead, all of one
    shape (`chunks.batch_pieces`), of which one is held at a time.
    """
    functions = {t.name: metric_functions(t) if with_metrics else () for t in tasks}

    def measure(variables: Any, batch: Batch) -> tuple[Any, Any]:
        # What is measured is what is predicted: the members' common prediction, not each one's.
        given = outputs_of(variables, batch)
        outputs = {t.name: one_output(t, given[t.name]) for t in tasks}
        check_weighted(tasks, batch, with_metrics)
        sums = jnp.stack([
            jnp.zeros(2) if isinstance(t.loss, Missing)
            else jnp.stack(loss_sum(t, outputs[t.name], *labels_of(batch, t.name)))
            for t in tasks
        ])  # fmt: skip
        states = {
            t.name: [m.measure(readable(t, outputs[t.name]), *labels(batch, t)) for m in functions[t.name]]
            for t in tasks
        }
        return sums, states

    def labels(batch: Batch, task: Task) -> tuple[Array, ...]:
        target, mask, weights = labels_of(batch, task.name)
        return (target, mask) if weights is None else (target, mask & expand(weights > 0, mask), weights)

    def measure_all(variables: Any, batches: Batch) -> tuple[Any, Any]:
        return jax.lax.map(lambda batch: measure(variables, batch), batches)

    def finish(found: tuple[Any, Any]) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        sums, states = found
        total, count = sums.sum(0).T
        metrics = {
            t.name: {m.name: m.compute(m.merge(s)) for m, s in zip(functions[t.name], states[t.name], strict=True)}
            for t in tasks
        }
        return jnp.where(count > 0, total / divisor(count), jnp.nan), metrics

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


def check_weighted(tasks: Sequence[Task], split: Batch, with_metrics: bool = True) -> None:
    """An error for a metric that takes no weights, of a task whose rows have some."""
    for task in tasks if with_metrics else ():
        for metric in metric_functions(task):
            if task.name in (split.weights or {}) and not metric.weighted:
                raise ValueError(
                    f"task {task.name!r} has row weights, and its metric {metric.name!r} takes none; give it a measure "
                    "of (outputs, targets, mask, weights) and weighted=True, or leave the weights out of val and test"
                )

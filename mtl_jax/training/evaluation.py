"""Losses and metrics of a whole split, in one compiled program."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import callers
from mtl_jax.batch import Batch
from mtl_jax.metrics.base import Metric, expand
from mtl_jax.model import MultiTaskModel
from mtl_jax.predictions import one_output, readable
from mtl_jax.reporting import many
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Missing, Task, divisor, loss_sum, metric_functions


def make_evaluate(model: MultiTaskModel, layout: Layout, members: bool = False, in_pieces: bool = False) -> Callable:
    """`make_measure` of a model: (stacked variables, batches) -> (losses [K], {task: {metric: scalar}})."""
    return make_measure(
        lambda variables, batch: forward(model, layout, variables, batch)[0], layout, members, True, in_pieces
    )


def make_measure(
    outputs_of: Callable,
    layout: Layout,
    members: bool = False,
    with_metrics: bool = True,
    in_pieces: bool = False,
) -> Callable:
    """The function (variables, batches) -> (losses [K], {task: {metric: scalar}}), compiled but for the names.

    `outputs_of` is (variables, batch) -> {first: outputs [task, ...]}. `batches` is a stacked `Batch` whose leaves are
    [num_batches, task, batch, ...], or [num_batches, batch, ...] of inputs in common (`data.padded_batches`, then
    `Layout.stack_batch` along axis 1); rows that pad the last batch have mask False. Where a task has no labels, its
    loss and metrics are nan, and so is a loss that is `Missing`. With `members`, variables have a leading axis of runs,
    and so have the results. With `in_pieces` it takes an iterable of such `batches` instead, all of one shape
    (`chunks.batch_pieces`), of which one is held at a time.
    """

    def functions(task: Task) -> tuple[Metric, ...]:
        return metric_functions(task) if with_metrics else ()

    def measure_task(task: Task, given: Any, target: Array, mask: Array, weights: Array | None) -> tuple:
        # What is measured is what is predicted: the members' common prediction, not each one's.
        outputs, labels = one_output(task, given), (target, mask)
        if isinstance(task.loss, Missing):
            sums = jnp.zeros(2)
        else:
            sums = jnp.stack(loss_sum(task, outputs, target, mask, weights))
        if weights is not None:
            labels = (target, mask & expand(weights > 0, mask), weights)
        return sums, [m.measure(readable(task, outputs), *labels) for m in functions(task)]

    def measure(variables: Any, batch: Batch) -> Any:
        check_weighted([layout.group_tasks(first)[0] for first in layout.groups], batch, with_metrics)
        return layout.each(measure_task, outputs_of(variables, batch), batch.targets, batch.masks, batch.weights)

    def measure_all(variables: Any, batches: Batch) -> Any:
        return jax.lax.map(lambda batch: measure(variables, batch), batches)

    def finish_task(task: Task, found: tuple) -> tuple[Array, dict[str, Array]]:
        sums, states = found
        total, count = sums.sum(0)
        loss = jnp.where(count > 0, total / divisor(count), jnp.nan)
        return loss, {m.name: m.compute(m.merge(s)) for m, s in zip(functions(task), states, strict=True)}

    def finish(found: Any) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        done = layout.each(finish_task, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), found))
        return layout.join({n: x[0] for n, x in done.items()}), {n: x[1] for n, x in done.items()}

    def evaluate(variables: Any, batches: Batch) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        return finish(measure_all(variables, batches))

    def compiled(function: Callable, axes: Any) -> Callable:
        return jax.jit(jax.vmap(function, in_axes=axes) if members else function)

    def named(found: tuple) -> tuple[Float[Array, "... task"], dict[str, dict[str, Any]]]:
        losses, metrics = found
        return losses, layout.unstack(jax.device_get(metrics), int(members))

    if not in_pieces:
        whole = compiled(evaluate, (0, None))
        return lambda variables, batches: named(whole(variables, batches))
    piece, last = compiled(measure_all, (0, None)), compiled(finish, 0)

    def evaluate_pieces(variables: Any, pieces: Iterable[Batch]) -> tuple[Any, Any]:
        # To the host one by one, so that no piece is held on a device while the next one runs.
        found = [jax.device_get(piece(variables, batches)) for batches in pieces]
        return named(last(jax.tree.map(lambda *x: np.concatenate(x, int(members)), *found)))

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


def warn_of_losses(tasks: Sequence[Task], losses: np.ndarray, masks: Mapping[str, Any]) -> None:
    """A warning of tasks whose losses [..., K] are not finite, though they have labels."""
    broken = {
        t.name: f"the loss of task {t.name!r} on this split is {losses[..., i].tolist()}; its predictions, or the "
        "parameters, are not finite"
        for i, t in enumerate(tasks)
        if not isinstance(t.loss, Missing) and masks[t.name].any() and not np.isfinite(losses[..., i]).all()
    }
    many.warn_of(broken, tasks, stacklevel=callers.outside())

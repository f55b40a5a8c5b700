"""Losses and metrics of a whole split, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.batch import Batch
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import Task, loss_sum, metric_functions, readable


def make_evaluate(model: MultiTaskModel, tasks: Sequence[Task], members: bool = False) -> Callable:
    """`make_measure` of a model: (variables, batches) -> (losses [K], {task: {metric: scalar}})."""
    return make_measure(lambda variables, batch: forward(model, variables, batch)[0], tasks, members)


def make_measure(
    outputs_of: Callable, tasks: Sequence[Task], members: bool = False, with_metrics: bool = True
) -> Callable:
    """The compiled function (variables, batches) -> (losses [K], {task: {metric: scalar}}).

    `outputs_of` is (variables, batch) -> {task: outputs}. `batches` is a `Batch` whose leaves are
    [num_batches, batch, ...] (`data.padded_batches`); rows that pad the last batch have mask False. Where a task has no
    labels, its loss and metrics are nan. With `members`, variables have a leading axis of runs, and so have the
    results.
    """
    functions = {t.name: metric_functions(t) if with_metrics else () for t in tasks}

    def measure(variables: Any, batch: Batch) -> tuple[Any, Any]:
        outputs = outputs_of(variables, batch)
        sums = jnp.stack([jnp.stack(loss_sum(t, outputs[t.name], *labels(batch, t))) for t in tasks])
        states = {
            t.name: [m.measure(readable(t, outputs[t.name]), *labels(batch, t)) for m in functions[t.name]]
            for t in tasks
        }
        return sums, states

    def labels(batch: Batch, task: Task) -> tuple[Array, Array]:
        return batch.targets[task.name], batch.masks[task.name]

    def evaluate(variables: Any, batches: Batch) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        sums, states = jax.lax.map(lambda batch: measure(variables, batch), batches)
        total, count = sums.sum(0).T
        metrics = {
            t.name: {m.name: m.compute(m.merge(s)) for m, s in zip(functions[t.name], states[t.name], strict=True)}
            for t in tasks
        }
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), metrics

    return jax.jit(jax.vmap(evaluate, in_axes=(0, None)) if members else evaluate)

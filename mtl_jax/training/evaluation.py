"""Losses and metrics of a whole split, in one compiled program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.batch import Batch
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import Task, loss_sum, metric_functions, readable


def make_evaluate(model: MultiTaskModel, tasks: Sequence[Task], members: bool = False) -> Callable:
    """The compiled function (variables, batches) -> (losses [K], {task: {metric: scalar}}).

    `batches` is a `Batch` whose leaves are [num_batches, batch, ...] (`data.padded_batches`); rows that pad the last
    batch have mask False. Where a task has no labels, its loss and metrics are nan. With `members`, variables have a
    leading axis of runs, and so have the results.
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

    def evaluate(variables: Any, batches: Batch) -> tuple[Float[Array, " task"], dict[str, dict[str, Array]]]:
        sums, states = jax.lax.map(lambda batch: measure(variables, batch), batches)
        total, count = sums.sum(0).T
        metrics = {
            t.name: {m.name: m.compute(m.merge(s)) for m, s in zip(functions[t.name], states[t.name], strict=True)}
            for t in tasks
        }
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), metrics

    return jax.jit(jax.vmap(evaluate, in_axes=(0, None)) if members else evaluate)


def baseline_losses(tasks: Sequence[Task], train: Batch) -> Float[np.ndarray, " task"]:
    """[K], the loss on the training labels of the constant that predicts their frequencies, or their mean.

    A validation score is 1 - loss / this loss: 0 for knowing nothing of the inputs, 1 for perfect.
    """
    found = []
    for task in tasks:
        target, mask = np.asarray(train.targets[task.name]), np.asarray(train.masks[task.name])
        mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (target.ndim - mask.ndim)), target.shape)
        if task.kind == "classification":
            frequency = np.bincount(target[mask], minlength=task.size) / max(mask.sum(), 1)
            output = np.log(np.maximum(frequency, 1e-6))
        else:
            mean = (target * mask).sum(0) / np.maximum(mask.sum(0), 1)
            if task.kind == "regression":
                output = mean if task.scaler is None else np.asarray(task.scaler.scale(jnp.asarray(mean)))
            else:
                mean = np.clip(mean, 1e-6, 1 - 1e-6)
                output = np.log(mean) - np.log1p(-mean)
        outputs = np.broadcast_to(output.astype(np.float32), (len(target), *output.shape))
        total, count = jax.jit(functools.partial(loss_sum, task))(outputs, target, mask)
        found.append(float(total) / max(float(count), 1.0))
    return np.maximum(np.asarray(found, np.float32), np.finfo(np.float32).tiny)

"""The losses of a model as functions of its parameters, for methods that look ahead (`balancing.oracle`)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import partition
from mtl_jax.balancing.linearization import Gradient
from mtl_jax.balancing.oracle import Losses
from mtl_jax.batch import Batch, weight_of_labels
from mtl_jax.parallel import global_sum
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import Task, divisor, task_losses


def losses_on(
    model: MultiTaskModel, variables: Any, batch: Batch, tasks: Sequence[Task], *, train: Any, rng: Any
) -> Losses:
    """The losses of a model on a batch. Statistics and dropout are those of a training pass; new state is dropped."""

    def local(leaves: Gradient) -> Float[Array, " task"]:
        params = partition.unflatten(leaves, variables["params"])
        outputs, _, _ = forward(model, {**variables, "params": params}, batch, train=train, rng=rng)
        sums, counts = task_losses(tasks, outputs, batch)
        return sums / divisor(counts)

    def value(leaves: Gradient) -> Float[Array, " task"]:
        return global_sum(local(leaves))

    def gradient(leaves: Gradient, weights: Float[Array, " task"]) -> Gradient:
        return global_sum(jax.grad(lambda x: weights @ local(x))(leaves))

    def slope(leaves: Gradient, direction: Gradient) -> Float[Array, " task"]:
        return global_sum(jax.jvp(local, (leaves,), (direction,))[1])

    counts = jnp.stack([weight_of_labels(batch, t.name) for t in tasks])
    return Losses(value, gradient, slope, global_sum(counts) > 0)

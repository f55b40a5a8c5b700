"""Losses as functions of the parameters, for methods that look ahead: at a virtual step, or at validation data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax.balancing.linearization import Gradient
from mtl_jax.batch import Batch, weight_of_labels
from mtl_jax.parallel import global_sum
from mtl_jax.sharing.model import MultiTaskModel
from mtl_jax.sharing.stacked import forward
from mtl_jax.stacking import Layout, task_losses
from mtl_jax.tasks import divisor


class Losses(NamedTuple):
    """The K losses on one batch, by the trainable leaves {path: array}; 0 for tasks without labels in it.

    Attributes:
      value: (leaves) -> [K].
      gradient: (leaves, weights [K]) -> {path: array}, of the weighted sum.
      slope: (leaves, direction) -> [K], the derivatives of the losses along a direction.
      labelled: [K].
    """

    value: Callable[[Gradient], Float[Array, " task"]]
    gradient: Callable[[Gradient, Float[Array, " task"]], Gradient]
    slope: Callable[[Gradient, Gradient], Float[Array, " task"]]
    labelled: Bool[Array, " task"]


class Oracle(NamedTuple):
    """Where a step stands, and its losses on the step's batch and on a validation batch."""

    leaves: Gradient
    train: Losses
    validation: Losses


def losses_on(model: MultiTaskModel, layout: Layout, variables: Any, batch: Batch, *, train: Any, rng: Any) -> Losses:
    """The losses of a model on a batch. Statistics and dropout are those of a training pass; new state is dropped.

    Args:
      model, layout: the model, and how its tasks lie.
      variables, batch: stacked.
      train, rng: of the pass.
    """

    def local(leaves: Gradient) -> Float[Array, " task"]:
        params = partition.unflatten(leaves, variables["params"])
        outputs, _ = forward(model, layout, {**variables, "params": params}, batch, train=train, rng=rng)
        sums, counts = task_losses(layout, outputs, batch)
        return sums / divisor(counts)

    def value(leaves: Gradient) -> Float[Array, " task"]:
        return global_sum(local(leaves))

    def gradient(leaves: Gradient, weights: Float[Array, " task"]) -> Gradient:
        return global_sum(jax.grad(lambda x: weights @ local(x))(leaves))

    def slope(leaves: Gradient, direction: Gradient) -> Float[Array, " task"]:
        return global_sum(jax.jvp(local, (leaves,), (direction,))[1])

    counts = layout.join(layout.each(lambda _, *own: weight_of_labels(*own), batch.masks, batch.weights))
    return Losses(value, gradient, slope, global_sum(counts) > 0)

"""The losses of a model as functions of its parameters, for methods that look ahead (`gradients.oracle`)."""

from typing import Any

import jax
from jaxtyping import Array, Float

from mtl_jax import partition
from mtl_jax.batch import Batch, weight_of_labels
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.oracle import Losses
from mtl_jax.model import MultiTaskModel
from mtl_jax.parallel import global_sum
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout, task_losses
from mtl_jax.tasks import divisor


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

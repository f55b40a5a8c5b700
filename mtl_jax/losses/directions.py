"""Loss of directions, such as surface normals."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtl_jax.losses.base import Loss, matched


def cosine() -> Loss:
    """1 - cosine of the angle between outputs and targets [..., 3]; losses have shape [...], from 0 to 2.

    Lengths do not matter, but that an output shorter than 0.001 counts as if it had that length: that bounds the
    gradient, and makes the loss of an output or a target of length 0 be 1.
    """

    def loss(outputs: Float[Array, "*row 3"], targets: Float[Array, "*row 3"]) -> Float[Array, "*row"]:
        outputs, targets = matched("cosine", outputs, targets)
        length = jnp.linalg.norm(targets, axis=-1, keepdims=True)
        targets = targets / jnp.where(length > 0, length, 1)
        return optax.losses.cosine_distance(outputs, targets, epsilon=1e-6)  # of the squared length

    return loss

"""Loss of directions, such as surface normals."""

import optax
from jaxtyping import Array, Float

from mtl_jax.losses.base import Loss, matched


def cosine() -> Loss:
    """1 - cosine of the angle between outputs and targets [..., 3]; losses have shape [...], from 0 to 2.

    Lengths do not matter. A vector shorter than 1e-6 counts as if it had that length, so that the loss of one of
    length 0 is 1, without a gradient.
    """

    def loss(outputs: Float[Array, "*row 3"], targets: Float[Array, "*row 3"]) -> Float[Array, "*row"]:
        return optax.losses.cosine_distance(*matched("cosine", outputs, targets), epsilon=1e-6)

    return loss

"""Features fitted to the positions of others: of a sequence, of an image, or a vector, which has none."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import values_of
from mtl_jax.encoders.positions import mean_over_positions, resampled


def at_positions_of(x: Any, like: Any) -> Float[Array, "batch ... width"]:
    """The values of `x` at as many positions as `like` has.

    Sequences and images of another size are resampled linearly, with averaging where they shrink; a vector is repeated
    at every position, and positions in front of a vector are averaged.
    """
    values, positions = values_of(x), values_of(like).shape[1:-1]
    if values.shape[1:-1] == positions:
        return values
    if values.ndim - 2 != len(positions):
        vector = mean_over_positions(x)
        values = vector.reshape(len(vector), *(1 for _ in positions), vector.shape[-1])
        return jnp.broadcast_to(values, (len(vector), *positions, vector.shape[-1]))
    return resampled(values, positions)

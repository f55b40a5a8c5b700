"""Features at positions: of a sequence, of an image, or a vector, which has none."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import values_of


def vector_of(x: Any) -> Float[Array, "batch width"]:
    """The mean over positions, of a sequence over those that its mask keeps."""
    values = values_of(x)
    around = tuple(range(1, values.ndim - 1))
    if isinstance(x, dict):
        mask = x["mask"][..., None]
        return jnp.where(mask, values, 0).sum(around) / jnp.maximum(mask.sum(around), 1).astype(values.dtype)
    return values.mean(around)


def at_positions_of(x: Any, like: Any) -> Float[Array, "batch ... width"]:
    """The values of `x` at as many positions as `like` has.

    Sequences and images of another size are resampled linearly, with averaging where they shrink; a vector is repeated
    at every position, and positions in front of a vector are averaged.
    """
    values, positions = values_of(x), values_of(like).shape[1:-1]
    if values.shape[1:-1] == positions:
        return values
    if values.ndim - 2 != len(positions):
        vector = vector_of(x)
        values = vector.reshape(len(vector), *(1 for _ in positions), vector.shape[-1])
        return jnp.broadcast_to(values, (len(vector), *positions, vector.shape[-1]))
    return jax.image.resize(values, (len(values), *positions, values.shape[-1]), "linear")

"""Features over positions: steps of a sequence (``{"values", "mask"}``), pixels of an image; a vector has none."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import values_of


def mean_over_positions(x: Any) -> Float[Array, "batch width"]:
    """A vector per row: a vector as it is, a sequence's mean over the steps of its mask, an array's over its positions.

    A sequence whose mask is False everywhere gives zeros.
    """
    values = values_of(x)
    if not isinstance(x, dict):
        return values.mean(tuple(range(1, values.ndim - 1))) if values.ndim > 2 else values
    mask = x["mask"][..., None]
    total = jnp.where(mask, values, 0).sum(1)  # selected, not multiplied: padding may hold anything
    return total / jnp.maximum(mask.sum(1), 1).astype(total.dtype)


def resampled(values: Float[Array, "batch ..."], positions: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Values at another number of positions, the axes after the batch: linearly, with averaging where they shrink."""
    return jax.image.resize(values, (len(values), *positions, *values.shape[1 + len(positions) :]), "linear")

"""Linear encoder: one affine map of the flattened input, no activation."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder


class Affine(nn.Module):
    """x W + b over the flattened input."""

    width: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool) -> Float[Array, "batch width"]:
        return nn.Dense(self.width, dtype=self.dtype, name="dense")(layers.flat(x))


@parts.recorded(
    when="few rows, or many correlated linear targets",
)
def linear(features: int = 64, dtype: str | None = None, remat: bool = False) -> Encoder:
    """One linear stage of width `features`; with linear heads this is reduced-rank regression.

    Args:
      features: width of the shared representation.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    (width,) = layers.check(features, "none", "relu", 0.0, "linear")
    return base.assemble((Affine(width, dtype),), None, remat)

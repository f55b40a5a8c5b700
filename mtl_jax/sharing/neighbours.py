"""A map of features that sees their neighbours: what is a 3 x 3 convolution in papers about images."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import values_of
from mtl_jax.encoders.convolution import conv


class Neighbours(nn.Module):
    """3 x 3 over images, three wide over sequences, a dense map of vectors; all three start alike.

    Positions that a sequence's mask leaves out are read as 0, as what lies beyond the edge is.
    """

    width: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Float[Array, "batch ... width"]:
        del train
        values = values_of(x)
        if isinstance(x, dict) and "mask" in x:
            values = jnp.where(x["mask"][..., None], values, 0)
        axes, start = values.ndim - 2, nn.initializers.lecun_normal()
        if axes == 0:
            return nn.Dense(self.width, use_bias=self.bias, kernel_init=start, dtype=str(values.dtype), name="map")(
                values
            )
        return conv(self.width, (3,) * axes, bias=self.bias, init=start, dtype=str(values.dtype), name="map")(values)

"""U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597): an encoder and decoder with an output for every pixel.

Convolutions keep height and width, and upsampling repeats pixels: what follows is a convolution either way, and
transposed convolutions leave checkerboards (Odena et al., Distill 2016).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv, max_pool


class Twice(nn.Module):
    """Two 3x3 convolutions, each with `layers.Finish`."""

    width: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "b high wide width"]:
        for i in range(2):
            x = conv(self.width, 3, bias=self.finish.norm != "batch", dtype=self.dtype, name=f"conv_{i}")(x)
            x = self.finish.clone(name=f"finish_{i}", parent=self)(x, train=train)
        return x


class Down(nn.Module):
    """Halves the image, except in the first stage, and remembers what it makes for the way up."""

    twice: Twice
    first: bool
    bottom: bool

    def __call__(self, x: Any, *, train: bool) -> dict[str, Any]:
        skips = () if self.first else x["skips"]
        values = base.values_of(x)
        if not self.first:
            if min(values.shape[1:3]) < 2:
                raise ValueError(f"unet: an image of {values.shape[1]} x {values.shape[2]} is too small to be halved")
            values = max_pool(values, 2)
        values = self.twice(values, train=train)
        return {"values": values, "skips": skips if self.bottom else (*skips, values)}


class Up(nn.Module):
    """Doubles the image, beside it what the stage of the same size made, and convolves both."""

    twice: Twice
    last: bool

    def __call__(self, x: dict[str, Any], *, train: bool) -> Any:
        *skips, beside = x["skips"]
        values = self.twice(jnp.concatenate([double(x["values"], beside.shape[1:3]), beside], -1), train=train)
        return values if self.last else {"values": values, "skips": tuple(skips)}


def double(
    x: Float[Array, "batch high wide channel"], size: tuple[int, int]
) -> Float[Array, "batch more_high more_wide channel"]:
    """Repeats each pixel in both directions; the last row and column once more where the `size` to reach is odd."""
    x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    return jnp.pad(x, ((0, 0), (0, size[0] - x.shape[1]), (0, size[1] - x.shape[2]), (0, 0)), mode="edge")


@parts.recorded(
    paper="Ronneberger et al., MICCAI 2015, arXiv:1505.04597; Odena et al., Distill 2016",
    when="a label for every pixel",
)
def unet(
    features: tuple[int, ...] = (32, 64, 128),
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """A U-Net from images [B, H, W, C] to [B, H, W, features[0]], for heads that read every pixel.

    Stages: one per entry of `features` going down, then one per entry but the last going up again. Between them is
    {"values": [B, h, w, width], "skips": what the way up needs}. Any height and width that can be halved
    ``len(features) - 1`` times will do; odd ones are rounded down, and up again on the way back.

    Args:
      features: widths, from full resolution down.
      norm: "none", "batch", "layer" or "group", in front of the activation.
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "unet")
    finish, last = layers.Finish(norm, activation, dropout, dtype), len(widths) - 1
    if not last:
        raise ValueError(f"unet: features={features!r} must have at least two entries; for one use 'cnn' with window=1")
    down = [Down(Twice(w, finish, dtype), i == 0, i == last) for i, w in enumerate(widths)]
    up = [Up(Twice(w, finish, dtype), i == last - 1) for i, w in enumerate(widths[-2::-1])]
    check = layers.ImageCheck("unet")
    return base.assemble((*down, *up), None, remat)._replace(check=check)

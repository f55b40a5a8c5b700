"""Convolutional network: each stage is a convolution, normalisation, activation, dropout and max pooling."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv, max_pool


class ConvStage(nn.Module):
    """Convolution, `layers.Finish`, then max pooling with window and stride `window`."""

    width: int
    kernel: int
    window: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        bias, init = self.finish.norm != "batch", nn.initializers.lecun_normal()
        x = conv(self.width, self.kernel, bias=bias, init=init, dtype=self.dtype)(x)
        if x.shape[1] < self.window or x.shape[2] < self.window:
            raise ValueError(f"cnn: an image of {x.shape[1]} x {x.shape[2]} is too small to pool by {self.window}")
        return max_pool(self.finish(x, train=train), self.window)


@parts.recorded(
    when="small images",
)
def cnn(
    features: tuple[int, ...] = (32, 64),
    kernel: int = 3,
    window: int = 2,
    pool: str = "flatten",
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """A CNN with one stage per entry of `features`. Inputs are images [B, H, W, C].

    Args:
      features: channels of the stages.
      kernel: side of the convolutions, which keep height and width.
      window: side and stride of the max pooling that ends a stage; 1 for none.
      pool: "flatten", "mean" over positions, or "none" for images as they are.
      norm: "none", "batch", "layer" or "group", in front of the activation.
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "cnn")
    layers.check_sizes("cnn", kernel=kernel, window=window)
    finish = layers.Finish(norm, activation, dropout, dtype)
    stages = [ConvStage(w, kernel, window, finish, dtype) for w in widths]
    check = layers.ImageCheck("cnn")
    return base.assemble(stages, layers.image_pool(pool, "cnn"), remat)._replace(check=check)

"""Convolutional network: each stage is a convolution, normalisation, activation, dropout and max pooling."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import convolve, max_pool


class ConvStage(nn.Module):
    """Convolution, `layers.Finish`, then max pooling with window and stride `window`."""

    width: int
    kernel: int
    window: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        bias = self.finish.norm != "batch"
        side = (self.kernel, self.kernel)
        x = nn.Conv(
            self.width, side, use_bias=bias, dtype=self.dtype, conv_general_dilated=convolve, name="conv"
        )(x)  # fmt: skip
        if x.shape[1] < self.window or x.shape[2] < self.window:
            raise ValueError(f"cnn: an image of {x.shape[1]} x {x.shape[2]} is too small to pool by {self.window}")
        return max_pool(self.finish(x, train=train), self.window)


class Pool(nn.Module):
    """Images to vectors: "mean" over positions, or "flatten" which keeps where things are."""

    how: str

    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch width"]:
        return x.mean((1, 2)) if self.how == "mean" else layers.flat(x)


@parts.recorded()
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
      pool: "flatten", or "mean" over positions.
      norm: "none", "batch" or "layer", in front of the activation.
      dropout: rate behind the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "cnn")
    if pool not in ("flatten", "mean"):
        raise parts.unknown("pool of cnn", pool, ("flatten", "mean"))
    if kernel < 1 or window < 1:
        raise ValueError(f"cnn: kernel={kernel!r} and window={window!r} must be at least 1")
    finish = layers.Finish(norm, activation, dropout, dtype)
    return base.assemble(tuple(ConvStage(w, kernel, window, finish, dtype) for w in widths), Pool(pool), remat=remat)

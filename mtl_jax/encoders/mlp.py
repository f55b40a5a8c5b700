"""Multi-layer perceptron: each stage is a dense layer, normalisation, activation and dropout."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder


class DenseStage(nn.Module):
    """Dense layer over the flattened input, then `layers.Finish`."""

    width: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool) -> Float[Array, "batch width"]:
        # A bias in front of batch normalisation has no effect, and its gradient is only noise.
        bias = self.finish.norm != "batch"
        x = nn.Dense(self.width, use_bias=bias, dtype=self.dtype, name="dense")(layers.flat(x))
        return self.finish(x, train=train)


@parts.recorded(
    when="vectors; the first thing to try on plain features",
)
def mlp(
    features: tuple[int, ...] = (128, 128),
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """An MLP with one stage per entry of `features`. Inputs [B, ...] are flattened.

    Args:
      features: widths of the stages.
      norm: "none", "batch", "layer" or "group", in front of the activation.
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "mlp")
    finish = layers.Finish(norm, activation, dropout, dtype)
    return base.assemble(tuple(DenseStage(w, finish, dtype) for w in widths), None, remat)

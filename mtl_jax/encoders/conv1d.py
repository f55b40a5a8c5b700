"""Convolutions over sequences (Kim, EMNLP 2014; dilated and causal: Bai, Kolter and Koltun 2018, arXiv:1803.01271)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax import parts
from mtl_jax.encoders import base, layers, sequences
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv


class SequenceStage(nn.Module):
    """Convolution over steps, `layers.Finish`, then the maximum over windows; padding is zero before and after."""

    width: int
    kernel: int
    dilation: int
    causal: bool
    window: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> dict[str, Array]:
        x = sequences.read_series(x, "conv1d")
        mask = x["mask"]
        values = conv(
            self.width, (self.kernel,), padding="CAUSAL" if self.causal else "SAME", dilation=self.dilation,
            bias=self.finish.norm != "batch", dtype=self.dtype,
        )(x["values"])  # fmt: skip
        values = self.finish(values, train=train, mask=mask)
        if self.window > 1:
            more = -mask.shape[1] % self.window
            mask = jnp.pad(mask, ((0, 0), (0, more))).reshape(len(mask), -1, self.window)
            values = jnp.pad(values, ((0, 0), (0, more), (0, 0))).reshape(*mask.shape, -1)
            least = jnp.finfo(values.dtype).min
            values, mask = jnp.where(mask[..., None], values, least).max(2), mask.any(2)
        return {"values": jnp.where(mask[..., None], values, 0), "mask": mask}


@parts.recorded(
    paper="Kim, EMNLP 2014; dilated and causal: Bai, Kolter and Koltun 2018, arXiv:1803.01271",
    when="series and texts whose patterns are local",
)
def conv1d(
    features: tuple[int, ...] = (64, 64),
    kernel: int = 3,
    dilation: int = 1,
    causal: bool = False,
    window: int = 1,
    vocabulary: int | None = None,
    embedding: int = 128,
    affixes: int | None = None,
    pool: str = "max",
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """Convolutions over sequences, one stage per entry of `features`; with a vocabulary, stage 0 embeds the tokens.

    Inputs: series, float [B, T, C] or {"values": float [B, T, C], "mask": bool [B, T]}; with a vocabulary, token ids,
    int [B, T] where 0 is padding, or {"tokens": int [B, T], "mask": bool [B, T]}. A masked step counts as zeros, as
    what lies outside the sequence does. An id outside the vocabulary is an error in `fit` and `predict`, and gives nan
    in the module.

    Args:
      features: channels of the stages.
      kernel: steps that a convolution sees.
      dilation: stage i of the convolutions leaves out steps between those it sees: they are dilation**i apart.
      causal: a step sees itself and earlier steps only (with `window`, to the window's end).
      window: steps that become one after each stage, by their maximum; 1 for none.
      vocabulary: number of token ids; None for series.
      embedding: width of token vectors.
      affixes: number of affix buckets, as the data have them, whose vectors are added to the token's; None for none.
      pool: "max" or "mean" over valid steps, "first", "last", or "none" for sequences as they are.
      norm: "none", "batch", "layer" or "group", in front of the activation; over valid steps.
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "conv1d")
    layers.check_sizes("conv1d", kernel=kernel, dilation=dilation, window=window)
    finish = layers.Finish(norm, activation, dropout, dtype)
    stages: list[nn.Module] = [
        SequenceStage(w, kernel, dilation**i, causal, window, finish, dtype) for i, w in enumerate(widths)
    ]
    sequences.check_vocabulary("conv1d", vocabulary, affixes)
    layers.check_sizes("conv1d", embedding=embedding)
    if vocabulary is not None:
        stages.insert(0, sequences.Embedding("conv1d", vocabulary, embedding, affixes, dtype))
    check = sequences.Check("conv1d", vocabulary, affixes)
    return base.assemble(stages, sequences.pool(pool, "conv1d"), remat)._replace(check=check)

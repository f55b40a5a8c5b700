"""Transformer encoder over tokens or series (Vaswani et al., NeurIPS 2017; BERT, Devlin et al., NAACL 2019)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax import parts
from mtl_jax.encoders import attention, base, layers, sequences
from mtl_jax.encoders.base import Encoder

POSITIONS = ("learned", "rotary", "none")


class Embeddings(nn.Module):
    """Tokens, or series through a linear map, plus positions and types; with "post", normalised as in BERT."""

    width: int
    vocabulary: int | None
    affixes: int | None
    length: int
    positions: str
    types: int
    norm: str
    dropout: float
    eps: float
    dtype: str | None = None
    padding: int = 0

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> dict[str, Array]:
        def embed(size: int, name: str) -> nn.Embed:
            return nn.Embed(size, self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(0.02), name=name)

        types = None
        if self.vocabulary is None:
            x = sequences.read_series(x, "transformer")
            values, mask = layers.by_rows(nn.Dense(self.width, dtype=self.dtype, name="input"), x["values"]), x["mask"]
        else:
            tokens = sequences.read_tokens(x, "transformer", self.padding)
            mask, types = tokens.mask, tokens.types
            draw = nn.initializers.normal(0.02)
            values = sequences.word_vectors(
                tokens, "transformer", self.vocabulary, self.width, self.affixes, self.dtype, draw
            )
        steps = mask.shape[1]
        if self.positions == "learned":
            if steps > self.length:
                raise ValueError(f"transformer: sequences of {steps} steps; length={self.length} positions are learned")
            values = values + embed(self.length, "position")(jnp.arange(steps))[None]
        if self.types:
            values = values + embed(self.types, "type")(jnp.zeros(mask.shape, int) if types is None else types)
        elif types is not None:
            raise ValueError("transformer got 'types' but has none; give types=2 for pairs of segments")
        if self.norm == "post":
            values = attention.layer_norm(self.eps, self.dtype, "norm")(values)
        if self.dropout:
            values = nn.Dropout(self.dropout, deterministic=not train)(values)
        return {"values": jnp.where(mask[..., None], values, 0), "mask": mask}


@parts.recorded(
    paper="Vaswani et al., NeurIPS 2017; BERT, Devlin et al., NAACL 2019",
    when="texts and sequences whose parts refer to each other",
)
def transformer(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    hidden: int | None = None,
    vocabulary: int | None = None,
    affixes: int | None = None,
    length: int = 512,
    positions: str = "learned",
    types: int = 0,
    norm: str = "pre",
    causal: bool = False,
    pool: str = "mean",
    dropout: float = 0.0,
    activation: str = "gelu",
    eps: float = 1e-6,
    dtype: str | None = None,
    remat: bool = False,
    padding: int = 0,
) -> Encoder:
    """A transformer: stage 0 embeds, then one stage per block.

    Inputs: with a vocabulary, token ids, int [B, T] where 0 (`padding`) is padding, or {"tokens": int [B, T], "mask":
    bool [B, T], "types": int [B, T] (optional, the segment of each token)}; without, series, float [B, T, C] or
    {"values": float [B, T, C], "mask": bool [B, T]}. Padding changes nothing. An id outside the vocabulary is an error
    in `fit` and `predict`, and gives nan in the module.

    BERT is norm="post", types=2, activation="gelu_exact", eps=1e-12.

    Args:
      width: of the features; a multiple of `heads` (of twice that with rotary positions).
      depth: number of blocks.
      heads: of attention.
      hidden: width between a block's two dense layers; None for 4 `width`.
      vocabulary: number of token ids; None for series.
      affixes: number of affix buckets, as the data have them, whose vectors are added to the token's; None for none.
      length: longest sequence, if positions are learned.
      positions: "learned", "rotary" (turns queries and keys) or "none".
      types: number of segment types; 0 for none.
      norm: "pre" or "post", see `attention.Block`.
      causal: a step sees itself and earlier steps only.
      pool: "mean" or "max" over valid steps, "first", "last" (valid one), or "none" for sequences as they are.
      dropout: rate after the embedding and after each part of a block.
      activation: one of `layers.ACTIVATIONS`.
      eps: of layer normalisation.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
      padding: the id that is padding where inputs come without a mask; 1 in RoBERTa.
    """
    hidden = 4 * width if hidden is None else hidden
    attention.check("transformer", width, depth, heads, hidden, norm, activation, dropout)
    layers.check_sizes("transformer", length=length)
    if positions not in POSITIONS:
        raise parts.unknown("positions of transformer", positions, POSITIONS)
    if positions == "rotary" and width // heads % 2:
        raise ValueError(f"transformer: rotary positions turn pairs; width={width} / heads={heads} must be even")
    sequences.check_vocabulary("transformer", vocabulary, affixes)
    first = Embeddings(width, vocabulary, affixes, length, positions, types, norm, dropout, eps, dtype, padding)
    rest = attention.blocks(depth, heads, hidden, norm, dropout, activation, eps, dtype, causal, positions == "rotary")
    check = sequences.Check("transformer", vocabulary, affixes, types, padding)
    return base.assemble((first, *rest), sequences.pool(pool, "transformer"), remat)._replace(check=check)

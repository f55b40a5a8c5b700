"""Vision transformer (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import attention, base, layers, sequences
from mtl_jax.encoders.base import Encoder

POOLS = ("class", "mean", "none")


class Patches(nn.Module):
    """An image as the sequence of its square patches, row by row, through a linear map, plus learned positions."""

    width: int
    patch: int
    class_token: bool
    dropout: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> dict[str, Array]:
        batch, high, wide, channels = x.shape
        if high % self.patch or wide % self.patch:
            raise ValueError(f"vit: an image of {high} x {wide} cannot be cut into patches of side {self.patch}")
        rows, columns = high // self.patch, wide // self.patch
        x = x.reshape(batch, rows, self.patch, columns, self.patch, channels).transpose(0, 1, 3, 2, 4, 5)
        values = layers.by_rows(
            nn.Dense(self.width, dtype=self.dtype, name="patch"), x.reshape(batch, rows * columns, -1)
        )
        if self.class_token:
            token = self.param("class", nn.initializers.zeros, (self.width,)).astype(values.dtype)
            values = jnp.concatenate([jnp.broadcast_to(token, (batch, 1, self.width)), values], 1)
        if self.has_variable("params", "position"):
            made_for = len(self.get_variable("params", "position"))
            if made_for != values.shape[1]:
                raise ValueError(f"vit: {high} x {wide} is {values.shape[1]} tokens; there are {made_for} positions")
        position = self.param("position", nn.initializers.normal(0.02), values.shape[1:])
        values = values + position.astype(values.dtype)[None]
        if self.dropout:
            values = nn.Dropout(self.dropout, deterministic=not train)(values)
        return {"values": values, "mask": jnp.ones(values.shape[:2], bool)}


@parts.recorded(
    paper="Dosovitskiy et al., ICLR 2021, arXiv:2010.11929",
    when="images with much data, or with weights from elsewhere",
)
def vit(
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    hidden: int | None = None,
    patch: int = 4,
    pool: str = "class",
    norm: str = "pre",
    dropout: float = 0.0,
    activation: str = "gelu",
    eps: float = 1e-6,
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """A transformer over patches of images [B, H, W, C]: stage 0 embeds patches, then one stage per block.

    Positions are learned, one per patch of the images that the model was initialised with.

    Args:
      width: of the features; a multiple of `heads`.
      depth: number of blocks.
      heads: of attention.
      hidden: width between a block's two dense layers; None for 4 `width`.
      patch: side of a patch, in pixels; it divides height and width.
      pool: "class" for the output at a learned first token, "mean" over patches, "none" for the sequence of patches.
      norm: "pre" or "post", see `attention.Block`.
      dropout: rate after the embedding and after each part of a block.
      activation: one of `layers.ACTIVATIONS`.
      eps: of layer normalisation.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    hidden = 4 * width if hidden is None else hidden
    layers.check_sizes("vit", patch=patch)
    attention.check("vit", width, depth, heads, hidden, norm, activation, dropout)
    if pool not in POOLS:
        raise parts.unknown("pool of vit", pool, POOLS)
    first = Patches(width, patch, pool == "class", dropout, dtype)
    rest = attention.blocks(depth, heads, hidden, norm, dropout, activation, eps, dtype)
    check = layers.ImageCheck("vit")
    return base.assemble((first, *rest), sequences.pool({"class": "first"}.get(pool, pool), "vit"), remat)._replace(
        check=check
    )

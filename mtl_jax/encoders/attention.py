"""Multi-head attention and the transformer's block (Vaswani et al., NeurIPS 2017, arXiv:1706.03762).

Rotary positions: Su et al. 2021, arXiv:2104.09864. Normalisation in front of each part: Xiong et al., ICML 2020.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.encoders import layers

NORMS = ("pre", "post")


def rotate(x: Float[Array, "batch step head width"], base: float = 10_000.0) -> Float[Array, "batch step head width"]:
    """Turns the pair (x_i, x_{i + width/2}) of step t by the angle t / base^(2i / width).

    The product of two vectors so turned depends on how far apart their steps are, not on where they are.
    """
    half = x.shape[-1] // 2
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    speed = base ** (-jnp.arange(half, dtype=dtype) / half)
    angle = (jnp.arange(x.shape[1], dtype=dtype)[:, None] * speed)[None, :, None]
    left, right = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], -1).astype(x.dtype)


class Attention(nn.Module):
    """softmax(Q K' / sqrt(width / heads)) V per head, with linear maps `query`, `key`, `value` and `out`."""

    heads: int
    causal: bool = False
    rotary: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch step width"],
        source: Float[Array, "batch other width"],
        mask: Bool[Array, "batch other"],
    ) -> Float[Array, "batch step width"]:
        width = x.shape[-1]

        def per_head(name: str, y: Float[Array, "batch t width"]) -> Float[Array, "batch t head part"]:
            y = layers.by_rows(nn.Dense(width, dtype=self.dtype, name=name), y)
            return y.reshape(*y.shape[:-1], self.heads, width // self.heads)

        query, key, value = per_head("query", x), per_head("key", source), per_head("value", source)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        y = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :], is_causal=self.causal)
        return layers.by_rows(nn.Dense(width, dtype=self.dtype, name="out"), y.reshape(x.shape))


class Block(nn.Module):
    """Self-attention, then two dense layers, each added to its input.

    `norm` is "post" (x = norm(x + f(x)), as in BERT) or "pre" (x = x + f(norm(x))); after the last block of the
    latter comes one normalisation more (`last`).
    """

    attention: Attention
    hidden: int
    norm: str = "pre"
    last: bool = False
    dropout: float = 0.0
    activation: str = "gelu"
    eps: float = 1e-6
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: dict[str, Array], *, train: bool) -> dict[str, Array]:
        values, mask = x["values"], x["mask"]

        def attend(y: Array) -> Array:
            return self.attention(y, y, mask)

        def dense(y: Array) -> Array:
            rows = y.reshape(-1, y.shape[-1])  # one axis of rows throughout, see `layers.by_rows`
            hidden = nn.Dense(self.hidden, dtype=self.dtype, name="hidden")(rows)
            hidden = layers.ACTIVATIONS[self.activation](hidden)
            return nn.Dense(y.shape[-1], dtype=self.dtype, name="out")(hidden).reshape(y.shape)

        def normalise(y: Array, name: str) -> Array:
            return layer_norm(self.eps, self.dtype, name)(y)

        for part, name in ((attend, "attention_norm"), (dense, "out_norm")):
            change = part(normalise(values, name) if self.norm == "pre" else values)
            if self.dropout:
                change = nn.Dropout(self.dropout, deterministic=not train)(change)
            values = values + change
            if self.norm == "post":
                values = normalise(values, name)
        if self.norm == "pre" and self.last:
            values = normalise(values, "last_norm")
        return {**x, "values": values}


def layer_norm(eps: float, dtype: str | None, name: str) -> nn.LayerNorm:
    """Layer normalisation whose variance is the mean of squared deviations, so that imported weights fit exactly."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def check(
    kind: str, width: int, depth: int, heads: int, hidden: int, norm: str, activation: str, dropout: float
) -> None:
    """An error that names the wrong argument of encoder `kind`."""
    layers.check_sizes(kind, width=width, depth=depth, heads=heads, hidden=hidden)
    layers.check((width,), "none", activation, dropout, kind)
    if norm not in NORMS:
        raise parts.unknown(f"norm of {kind}", norm, NORMS)
    if width % heads:
        raise ValueError(f"{kind}: width={width} must be a multiple of heads={heads}")


def blocks(
    depth: int,
    heads: int,
    hidden: int,
    norm: str,
    dropout: float,
    activation: str,
    eps: float,
    dtype: str | None,
    causal: bool = False,
    rotary: bool = False,
) -> tuple[Block, ...]:
    """`depth` blocks of one kind."""
    attention = Attention(heads, causal, rotary, dtype)
    return tuple(Block(attention, hidden, norm, i == depth - 1, dropout, activation, eps, dtype) for i in range(depth))

"""Recurrent networks: LSTM (Hochreiter and Schmidhuber 1997), GRU (Cho et al., EMNLP 2014), one or two directions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers, sequences
from mtl_jax.encoders.base import Encoder

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
POOLS = ("final", *sequences.POOLS)


class Direction(nn.Module):
    """One cell over the steps, first to last or, `reverse`, last to first; a masked step keeps the state.

    In reverse the state is therefore still the first one, zeros, at the last valid step. Outputs of masked steps are 0.
    """

    cell: str
    width: int
    reverse: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch step channel"], mask: Bool[Array, "batch step"]
    ) -> Float[Array, "batch step width"]:
        def step(cell: nn.Module, state: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            x, valid = inputs
            new, y = cell(state, x)
            state = jax.tree.map(lambda n, old: jnp.where(valid[:, None], n, old), new, state)
            return state, jnp.where(valid[:, None], y, 0)

        cell = CELLS[self.cell](self.width, dtype=self.dtype, name=self.cell)
        values = values.astype(self.dtype or values.dtype)
        zeros = jnp.zeros((len(values), self.width), values.dtype)
        state = (zeros, zeros) if self.cell == "lstm" else zeros
        over_steps = nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1,
                             reverse=self.reverse)  # fmt: skip
        return over_steps(cell, state, (values, mask))[1]


class RecurrentLayer(nn.Module):
    """One direction, or two whose outputs are joined; then dropout."""

    cell: str
    width: int
    bidirectional: bool
    dropout: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> dict[str, Array]:
        x = sequences.read_series(x, "rnn")
        names = ("forward", "backward") if self.bidirectional else ("forward",)
        found = [
            Direction(self.cell, self.width, name == "backward", self.dtype, name=name)(x["values"], x["mask"])
            for name in names
        ]
        values = jnp.concatenate(found, -1)
        if self.dropout:
            values = nn.Dropout(self.dropout, deterministic=not train)(values)
        return {**x, "values": values}


class FinalState(nn.Module):
    """The state of each direction after all valid steps: forward at the last one, backward at the first."""

    bidirectional: bool

    def __call__(self, x: dict[str, Array], *, train: bool) -> Float[Array, "batch width"]:
        values, mask = x["values"], x["mask"]
        steps = jnp.arange(mask.shape[1])
        last, first = jnp.where(mask, steps, 0).max(1), jnp.argmax(mask, 1)
        half = values.shape[-1] // 2 if self.bidirectional else values.shape[-1]
        ends = [values[..., :half]] + ([values[..., half:]] if self.bidirectional else [])
        found = [jnp.take_along_axis(v, at[:, None, None], 1)[:, 0] for v, at in zip(ends, (last, first), strict=False)]
        return jnp.concatenate(found, -1)


@parts.recorded(
    paper="Hochreiter and Schmidhuber 1997; Cho et al., EMNLP 2014",
    when="short sequences and series, states carried along",
)
def rnn(
    features: tuple[int, ...] = (128,),
    cell: str = "lstm",
    bidirectional: bool = False,
    vocabulary: int | None = None,
    embedding: int = 128,
    affixes: int | None = None,
    pool: str = "final",
    dropout: float = 0.0,
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """A recurrent network with one stage per entry of `features`; with a vocabulary, stage 0 embeds the tokens.

    Inputs: series, float [B, T, C] or {"values": float [B, T, C], "mask": bool [B, T]}; with a vocabulary, token ids,
    int [B, T] where 0 is padding, or {"tokens": int [B, T], "mask": bool [B, T]}. A masked step changes nothing,
    wherever it stands. An id outside the vocabulary is an error in `fit` and `predict`, and gives nan in the module.

    Args:
      features: width of the state, layer by layer; of each direction.
      cell: "lstm" or "gru".
      bidirectional: two cells per layer, one of which reads from the last valid step to the first.
      vocabulary: number of token ids; None for series.
      embedding: width of token vectors.
      affixes: number of affix buckets, as the data have them, whose vectors are added to the token's; None for none.
      pool: "final" for the state after all valid steps (of both directions), "mean" or "max" over valid steps, "first",
        "last", or "none" for sequences as they are.
      dropout: rate after each layer.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, "none", "relu", dropout, "rnn")
    parts.lookup(cell, CELLS, "cell of rnn")
    stages: list[nn.Module] = [RecurrentLayer(cell, w, bidirectional, dropout, dtype) for w in widths]
    sequences.check_vocabulary("rnn", vocabulary, affixes)
    layers.check_sizes("rnn", embedding=embedding)
    if vocabulary is not None:
        stages.insert(0, sequences.Embedding("rnn", vocabulary, embedding, affixes, dtype))
    last = FinalState(bidirectional) if pool == "final" else sequences.pool(pool, "rnn", POOLS)
    check = sequences.Check("rnn", vocabulary, affixes)
    return base.assemble(stages, last, remat)._replace(check=check)

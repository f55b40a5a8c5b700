"""Tables of numbers and categories: a vector per column, then an MLP, plain or of residual blocks.

Categories have learned vectors (Guo and Berkhahn 2016, arXiv:1604.06737), and so may numbers (`numbers`). Residual
blocks are those of Gorishniy et al., NeurIPS 2021, arXiv:2106.11959.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers, numbers, sequences
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.mlp import DenseStage
from mtl_jax.inputs import Place, check_codes, check_numbers

TAKES = '{"numbers": float [B, n], "categories": int [B, c]}, or numbers alone as a float array [B, n]'
BLOCKS = ("dense", "residual")


class Columns(nn.Module):
    """A row's columns as vectors: numbers (0 where missing), whether each is missing, a vector per category.

    Attributes:
      cardinalities: of the categories.
      embedding: width of their vectors.
      indicators: whether a plain number has one of its own that says that it is missing. Embedded ones need none: a
        missing number has a learned vector.
      dtype: of the result.
      numbers, width, bins: see `tabular`.
      kind: of the encoder, for messages.
    """

    cardinalities: tuple[int, ...]
    embedding: int | None
    indicators: bool
    dtype: str | None = None
    numbers: str = "plain"
    width: int = 8
    bins: int = 16
    kind: str = "tabular"

    @nn.compact
    def with_widths(self, x: Any) -> tuple[Float[Array, "batch width"], tuple[int, ...]]:
        """(all columns side by side, how wide each is); a plain number and its indicator are columns of their own."""
        entries = x if isinstance(x, dict) else {"numbers": x}
        values: Any = entries.get("numbers")
        categories: Any = entries.get("categories")
        good = entries and entries.keys() <= {"numbers", "categories"}
        good = good and ("numbers" not in entries or sequences.is_array(values, jnp.floating, 2))
        good = good and ("categories" not in entries or sequences.is_array(categories, jnp.integer, 2))
        if not good:
            raise ValueError(f"{self.kind} got {sequences.shown(x)}; it takes {TAKES}")
        count = 0 if categories is None else categories.shape[1]
        if count != len(self.cardinalities):
            raise ValueError(f"{self.kind} got {count} columns of categories, but cardinalities={self.cardinalities}")
        found, widths = [], []
        if values is not None and values.shape[1]:
            found, each = self.of_numbers(values)
            widths = [each] * (sum(f.shape[1] for f in found) // each)
        for i, size in enumerate(self.cardinalities):
            width = embedding_width(size) if self.embedding is None else self.embedding
            # Row 0 is for missing values. Codes below -1 go past the end, where they give nan as too large ones do.
            row = jnp.where(categories[:, i] < -1, size + 1, categories[:, i] + 1)
            table = nn.Embed(size + 1, width, dtype=self.dtype, embedding_init=_embeddings, name=f"category_{i}")
            found.append(table(row))
            widths.append(width)
        if not found:
            raise ValueError(f"{self.kind} got {sequences.shown(x)}, which has no columns")
        dtype = self.dtype or jnp.result_type(*found)
        return jnp.concatenate([f.astype(dtype) for f in found], -1), tuple(widths)

    def of_numbers(self, values: Float[Array, "batch column"]) -> tuple[list[Float[Array, "batch width"]], int]:
        """(what becomes of the numbers, the width of one of their columns)."""
        missing = jnp.isnan(values)
        values = jnp.where(missing, 0, values)
        if self.numbers == "plain":
            return ([values, missing.astype(values.dtype)] if self.indicators else [values]), 1
        values = numbers.NUMBERS[self.numbers](self.width, self.bins, name="numbers")(values)
        absent = self.param("missing", nn.initializers.zeros, values.shape[1:]).astype(values.dtype)
        return [layers.flat(jnp.where(missing[..., None], absent, values))], self.width

    def __call__(self, x: Any) -> Float[Array, "batch width"]:
        return self.with_widths(x)[0]


def _embeddings(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """Draws for categories, and zeros for the missing one: where no row of training lacks it, it says nothing."""
    draws = nn.linear.default_embed_init(key, shape, dtype)
    return draws.at[0].set(0)


def embedding_width(cardinality: int) -> int:
    """Half as many numbers as there are categories, at least 2 and at most 50."""
    return max(2, min(50, (cardinality + 1) // 2))


class ColumnCheck(NamedTuple):
    """See `Encoder.check`. What has another form is for the module to say."""

    cardinalities: tuple[int, ...]

    def __call__(self, inputs: Any, where: Place) -> None:
        entries = inputs if isinstance(inputs, dict) else {"numbers": inputs}
        for name, x in entries.items():
            what, x = where(name if isinstance(inputs, dict) else ""), np.asarray(x)
            check_numbers(x, what)
            if name == "categories" and x.dtype.kind in "iu" and x.shape[1:] == (len(self.cardinalities),):
                check_codes(x, what, -1, self.cardinalities, "tabular's cardinalities give the column {high} "
                            "categories (-1 is missing)")  # fmt: skip


class TableStage(nn.Module):
    """`Columns`, then a dense stage."""

    columns: Columns
    layer: nn.Module

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Float[Array, "batch width"]:
        return self.layer(self.columns(x), train=train)


class ResidualStage(nn.Module):
    """x + W2 dropout(activation(W1 norm(x))); x is mapped where its width changes."""

    width: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool) -> Float[Array, "batch width"]:
        x = layers.flat(x)
        dense = lambda name: nn.Dense(self.width, dtype=self.dtype, name=name)  # noqa: E731
        y = layers.normalise(x, self.finish.norm, train=train, dtype=self.dtype)
        y = layers.ACTIVATIONS[self.finish.activation](dense("inner")(y))
        if self.finish.dropout:
            y = nn.Dropout(self.finish.dropout, deterministic=not train)(y)
        y = dense("outer")(y)
        return y + (x if x.shape[-1] == self.width else dense("skip")(x))


@parts.recorded(
    paper="Guo and Berkhahn 2016, arXiv:1604.06737",
    when="tables with categories, one network",
)
def tabular(
    features: tuple[int, ...] = (128, 128),
    cardinalities: tuple[int, ...] = (),
    embedding: int | None = None,
    indicators: bool = True,
    norm: str = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
    numbers: str = "plain",
    width: int = 8,
    bins: int = 16,
    block: str = "dense",
) -> Encoder:
    """An MLP over tables; stage 0 also embeds the columns.

    Inputs: {"numbers": float [B, n], nan where missing, "categories": int [B, c], -1 where missing or unseen}, either
    of them alone, or numbers as a float array [B, n], best standardised. A code that is too large, or below -1, is an
    error in `fit` and `predict`, and gives nan in the module.

    Args:
      features: widths of the stages.
      cardinalities: number of categories of each category column.
      embedding: width of a category's vector; None for half the column's cardinality, from 2 to 50.
      indicators: add an input per plain number that is 1 where it is missing.
      norm: "none", "batch", "layer" or "group", in front of the activation (of a residual block, in front of it all).
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
      numbers: how numbers enter: "plain", or with a vector per column, "piecewise" or "periodic" (`encoders.numbers`).
      width: of such a vector.
      bins: of "piecewise"; of "periodic", the number of frequencies.
      block: "dense", or "residual": stages after the first are residual blocks.
    """
    widths, cardinalities = check(features, cardinalities, embedding, norm, dropout, activation, "tabular")
    check_vectors(numbers, width, bins, "tabular")
    if block not in BLOCKS:
        raise parts.unknown("block of tabular", block, BLOCKS)
    finish = layers.Finish(norm, activation, dropout, dtype)
    columns = Columns(cardinalities, embedding, indicators, dtype, numbers, width, bins)
    first, *rest = widths
    kind = DenseStage if block == "dense" else ResidualStage
    stages = (TableStage(columns, DenseStage(first, finish, dtype)), *(kind(w, finish, dtype) for w in rest))
    return base.assemble(stages, None, remat)._replace(reads_missing=True, check=ColumnCheck(cardinalities))


def check(
    features: Any, cardinalities: Any, embedding: int | None, norm: str, dropout: float, activation: str, kind: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(widths, cardinalities) as tuples, or an error that names the wrong argument of encoder `kind`."""
    widths = layers.check(features, norm, activation, dropout, kind)
    if embedding is not None:
        layers.check_sizes(kind, embedding=embedding)
    return widths, layers.check(cardinalities, "none", "relu", 0, kind, "cardinalities") if cardinalities else ()


check_vectors = numbers.check  # `numbers` is the name of an argument

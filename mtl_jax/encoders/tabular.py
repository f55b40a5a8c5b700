"""Tables of numbers and categories: a vector per category (Guo and Berkhahn 2016, arXiv:1604.06737), then an MLP."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers, sequences
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.mlp import DenseStage
from mtl_jax.inputs import Place, check_codes, check_numbers

TAKES = '{"numbers": float [B, n], "categories": int [B, c]}, or numbers alone as a float array [B, n]'


class Columns(nn.Module):
    """A row's columns as one vector: numbers (0 where missing), whether each is missing, a vector per category."""

    cardinalities: tuple[int, ...]
    embedding: int | None
    indicators: bool
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Any) -> Float[Array, "batch width"]:
        entries = x if isinstance(x, dict) else {"numbers": x}
        numbers, categories = entries.get("numbers"), entries.get("categories")
        good = entries and entries.keys() <= {"numbers", "categories"}
        good = good and ("numbers" not in entries or sequences.is_array(numbers, jnp.floating, 2))
        good = good and ("categories" not in entries or sequences.is_array(categories, jnp.integer, 2))
        if not good:
            raise ValueError(f"tabular got {sequences.shown(x)}; it takes {TAKES}")
        count = 0 if categories is None else categories.shape[1]
        if count != len(self.cardinalities):
            raise ValueError(f"tabular got {count} columns of categories, but cardinalities={self.cardinalities}")
        found = []
        if numbers is not None:
            missing = jnp.isnan(numbers)
            found.append(jnp.where(missing, 0, numbers))
            if self.indicators:
                found.append(missing.astype(numbers.dtype))
        for i, size in enumerate(self.cardinalities):
            width = embedding_width(size) if self.embedding is None else self.embedding
            # Row 0 is for missing values. Codes below -1 go past the end, where they give nan as too large ones do.
            row = jnp.where(categories[:, i] < -1, size + 1, categories[:, i] + 1)
            found.append(nn.Embed(size + 1, width, dtype=self.dtype, name=f"category_{i}")(row))
        dtype = self.dtype or jnp.result_type(*found)
        return jnp.concatenate([f.astype(dtype) for f in found], -1)


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
    layer: DenseStage

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Float[Array, "batch width"]:
        return self.layer(self.columns(x), train=train)


@parts.recorded()
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
) -> Encoder:
    """An MLP over tables; stage 0 also embeds the categories.

    Inputs: {"numbers": float [B, n], nan where missing, "categories": int [B, c], -1 where missing}, either of them
    alone, or numbers as a float array [B, n], best standardised. A code that is too large, or below -1, is an error in
    `fit` and `predict`, and gives nan in the module.

    Args:
      features: widths of the stages.
      cardinalities: number of categories of each category column.
      embedding: width of a category's vector; None for half the column's cardinality, from 2 to 50.
      indicators: add an input per number that is 1 where it is missing.
      norm: "none", "batch", "layer" or "group", in front of the activation.
      dropout: rate behind the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths = layers.check(features, norm, activation, dropout, "tabular")
    cardinalities = layers.check(cardinalities, "none", "relu", 0, "tabular", "cardinalities") if cardinalities else ()
    if embedding is not None:
        layers.check_sizes("tabular", embedding=embedding)
    finish = layers.Finish(norm, activation, dropout, dtype)
    first, *rest = (DenseStage(w, finish, dtype) for w in widths)
    return base.assemble(
        (TableStage(Columns(cardinalities, embedding, indicators, dtype), first), *rest), None, remat
    )._replace(reads_missing=True, check=ColumnCheck(cardinalities))

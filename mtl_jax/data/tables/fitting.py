"""The encoding of a table's columns, fitted to its training rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.data.tables import dates, frames, scaling
from mtl_jax.data.tables.encoded_column import EncodedColumn
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.scaling import Scale
from mtl_jax.data.tables.types import FEW, Column, read_columns

FORMS = ("auto", "onehot", "codes")
WIDEST = 1024  # columns of ones and zeros that "auto" makes
MOST_VALUES = 20_000  # of a category that are known by name; those of more are hashed
BUCKETS = 16_384  # that they are hashed to


def fit_encoding(
    columns: Mapping[str, Any],
    rows: np.ndarray | None = None,
    categories: str = "auto",
    scale: str = "standard",
    text_width: int = 128,
) -> Encoding:
    """The encoding of training columns.

    Args:
      columns: {name: `types.Column`, or an array}.
      rows: those of the training split; all by default.
      categories: "onehot", "codes", or "auto": one-hot where no category has more than 64 values and all of them
        together no more than 1,024.
      scale: "standard", "robust" or "quantile" (`scaling.fit_scale`).
      text_width: columns that each column of text is hashed to.

    Raises:
      ValueError: for a column without a value in the training rows.
    """
    parts.lookup(categories, dict.fromkeys(FORMS), "categories")
    parts.lookup(scale, dict.fromkeys(scaling.SCALINGS), "scaling")
    if text_width < 1:
        raise ValueError(f"text_width={text_width} must be at least 1")
    if any(not isinstance(c, Column) for c in columns.values()):
        table = frames.as_table(columns)
        columns = read_columns(table)
    found = [_fit(c, c.values if rows is None else c.values.gather(rows), scale, text_width) for c in columns.values()]
    sizes = [c.buckets or len(c.values) for c in found if c.type == "category"]
    few = all(s <= FEW for s in sizes) and sum(sizes) <= WIDEST
    hashed = any(c.buckets for c in found if c.type == "category")
    if categories == "onehot" and hashed:
        raise ValueError(f"categories='onehot' cannot take a column of more than {MOST_VALUES:,} values; use 'codes'")
    form = ("onehot" if few else "codes") if categories == "auto" else categories
    return Encoding(tuple(found), form)


def _fit(column: Column, values: Any, scale: str, text_width: int) -> EncodedColumn:
    """One column by its training rows."""
    there = values.drop_nulls()
    if not len(there):
        raise ValueError(f"input column {column.name!r} has no value in train; leave it out with inputs=[...]")
    indicated = len(there) < len(values)
    how: dict[str, Any] = {"format": column.format, "date": column.date, "words": column.words}
    if column.type == "date" or there.dtype.is_temporal():
        found = {k: v for k, v in dates.date_parts(there).items() if k == "elapsed" or np.ptp(v) > 1e-9}
        scales = {k: fit_part(k, v, scale) for k, v in found.items()}
        return EncodedColumn(column.name, "date", scales, indicated, **how)
    if there.dtype.is_float():
        kind = "boolean" if column.type == "boolean" or column.words[0] else "number"
        span = (float(there.min()), float(there.max())) if kind == "number" else ()
        found = {"": scaling.fit_scale(there.to_numpy(), scale)}
        return EncodedColumn(column.name, kind, found, indicated, range=span, **how)
    if column.type == "text":
        return EncodedColumn(column.name, "text", buckets=text_width)
    distinct = there.unique()
    if len(distinct) > MOST_VALUES:
        return EncodedColumn(column.name, "category", buckets=BUCKETS)
    return EncodedColumn(column.name, "category", values=tuple(sorted(distinct.to_list())))


def fit_part(label: str, values: np.ndarray, scale: str) -> Scale:
    """The scale of one part of a date: sines and cosines are of unit scale already."""
    return scaling.fit_scale(values, scale) if label == "elapsed" else Scale(0.0, 1.0)

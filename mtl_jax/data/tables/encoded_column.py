"""How one column is encoded, and new cells of it read as its training cells were."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax.data.tables import cells as formats
from mtl_jax.data.tables.cells import Format
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.scaling import Scale
from mtl_jax.data.tables.types import Column, as_datetime, as_text


@dataclasses.dataclass(frozen=True)
class EncodedColumn:
    """How one input column is encoded.

    Attributes:
      name: as in the table.
      type: number, boolean, date, category or text.
      scales: {label: `Scale`} of the numbers that it becomes.
      indicated: whether a further number says that it is missing, which training rows had.
      values: names of categories, in the order of their codes.
      buckets: of hashed categories, or columns of hashed text.
      format, date, words: how cells of text are read (`types.Column`).
      range: of numbers, the smallest and the largest in the training rows; () where it is not known.
    """

    name: str
    type: str
    scales: Mapping[str, Scale] = dataclasses.field(default_factory=dict)
    indicated: bool = False
    values: tuple[str, ...] = ()
    buckets: int = 0
    format: Format = formats.PLAIN
    date: str = ""
    words: tuple[str, str] = ("", "")
    range: tuple[float, ...] = ()


def read_as(table: Table, column: EncodedColumn | Column, words: tuple[str, ...], codes: tuple = ()) -> Any:
    """A column of a table read as `column` was: float64, datetime or text (polars), null where missing.

    Raises:
      ValueError: naming column, row and cell, for what cannot be read so.
    """
    import polars as pl

    given, name = table.columns[column.name], column.name
    kind = given.dtype
    if kind == pl.Null:
        given, kind = given.cast(pl.String), pl.String
    if column.type in ("category", "many-valued category", "text") or (
        column.type == "constant" and not getattr(column, "scales", None)
    ):
        return formats.without_missing(as_text(given), {*words, *map(str, codes)})
    if kind == pl.String:
        given = formats.without_missing(given.str.strip_chars(), {*words, *map(str, codes)})
        values = _of_text(given, column)
        odd = (values.is_null() & given.is_not_null()) if values is not None else given.is_not_null()
        if bool(odd.any()):
            row = odd.arg_max()
            raise ValueError(f"column {name!r} holds {given[row]!r} in {table.place(row)} of {table.source}; it held "
                             f"{_held(column)} in training")  # fmt: skip
        return values
    if column.type == "date":
        if not kind.is_temporal():
            raise ValueError(f"column {name!r} of {table.source} holds {kind}; it held dates in training")
        return as_datetime(given)
    if kind.is_temporal():
        raise ValueError(f"column {name!r} of {table.source} holds dates; it held {_held(column)} in training")
    values = given.cast(pl.Float64).fill_nan(None)
    hidden = [float(c) for c in codes if isinstance(c, int | float)]
    if hidden:
        values = formats.kept(values, ~values.is_in(hidden))
    if bool(values.is_infinite().any()):
        raise ValueError(f"column {name!r} of {table.source} holds "
                         f"{values.filter(values.is_infinite().fill_null(False))[0]}")  # fmt: skip
    if column.type == "boolean" and not bool(values.is_in([0.0, 1.0]).fill_null(True).all()):
        raise ValueError(
            f"column {name!r} of {table.source} holds {values.max():g}; it held {_held(column)} in training"
        )
    return values


def _held(column: EncodedColumn | Column) -> str:
    if column.type == "boolean":
        return " and ".join(column.words)
    if column.type == "date":
        return f"dates as {column.date or 'such'}"
    return f"numbers in {column.format.symbol}" if column.format.symbol else "numbers"


def _of_text(cells: Any, column: EncodedColumn | Column) -> Any:
    """Numbers, booleans or dates of text cells; null where a cell is none."""
    import polars as pl

    if column.type == "date":
        found = formats.date_formats(cells.drop_nulls().unique()) if cells.null_count() < len(cells) else []
        how = column.date if column.date in found or not found else found[0]
        return formats.parse_dates(cells, how or "%Y-%m-%d")
    if column.type == "boolean":
        lowered = cells.str.to_lowercase()
        pairs = [tuple(w.lower() for w in column.words), *formats.BOOLEANS, ("0", "1")]
        pair = next((p for p in pairs if lowered.drop_nulls().is_in(list(p)).all()), pairs[0])
        return lowered.replace_strict({pair[0]: 0.0, pair[1]: 1.0}, default=None, return_dtype=pl.Float64)
    values = formats.parse_numbers(cells, column.format)
    if column.format.symbol == "%":  # 0.5 may be half of one percent, or a half
        values = formats.kept(values, cells.str.contains("%", literal=True))
    if len(formats.unparsed(cells, values)):  # other marks, but no other unit
        fitting = formats.number_formats(cells.drop_nulls().unique())
        fitting = [f for f in fitting if f.symbol == column.format.symbol]
        if len({f.decimal for f in fitting}) == 1:
            values = formats.parse_numbers(cells, fitting[0])
    return formats.kept(values, values.is_finite())


def category_codes(column: EncodedColumn, cells: Any) -> np.ndarray:
    """int32 [N], the number of each cell's category; -1 where it is missing or unknown.

    A cell that is no known category but the same number as one (3.0 for 3) counts as it.
    """
    import polars as pl

    distinct = cells.unique().drop_nulls().to_list()
    if column.buckets:
        index = {v: zlib.crc32(v.encode()) % column.buckets for v in distinct}
    else:
        known = {v: i for i, v in enumerate(column.values)}
        index = {v: known[v] for v in distinct if v in known}
        if len(index) < len(distinct):
            amounts: dict[float, list[int]] = {}
            for value, code in known.items():
                if (number := _number(value)) is not None:
                    amounts.setdefault(number, []).append(code)
            for v in distinct:
                number = None if v in index else _number(v)
                same = [] if number is None else amounts.get(number, [])
                if len(same) == 1:
                    index[v] = same[0]
    if not index:
        return np.full(len(cells), -1, np.int32)
    found = cells.replace_strict(list(index), list(index.values()), default=-1, return_dtype=pl.Int32)
    return found.fill_null(-1).to_numpy()


def _number(value: str) -> float | None:
    try:
        return float(value) if "_" not in value else None
    except ValueError:
        return None

"""Columns to what a model reads, as the training rows had them, and the same for any further rows."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.data.tables import cells as formats
from mtl_jax.data.tables import dates, frames, scaling, text
from mtl_jax.data.tables import types as column_types
from mtl_jax.data.tables.cells import MISSING, Format
from mtl_jax.data.tables.description import Row, described
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.scaling import Scale
from mtl_jax.data.tables.types import FEW, Column

FORMS = ("auto", "onehot", "codes")
WIDEST = 1024  # columns of ones and zeros that "auto" makes
MOST_VALUES = 20_000  # of a category that are known by name; those of more are hashed
FAR = 10  # times the range of training numbers, from which on a new one is far beyond them
BUCKETS = 16_384  # that they are hashed to


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


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How columns become inputs, as the training split had it; printed, what every column was read as and why.

    A number is standardised in float64 (`scaling`). As one matrix, 0 stands for a missing number beside a column that
    says so, where training rows lacked it, and a category is one column per value; a value that training rows did not
    have is all zeros. As codes, numbers are nan where missing, and a category is its number, -1 where missing or
    unknown. Dates are elapsed days, month, weekday and hour; text is hashed words and trigrams.

    Attributes:
      columns: of the inputs.
      form: "onehot" (one matrix) or "codes" (numbers and categories apart).
      missing_words: spellings of a missing value.
      codes: {column: values that stand for a missing one there}.
      table: a row per column of the training table: what it was read as, and why.
      layout: separator, quotes and encoding of the file.
      source: the file's path, its SHA-256 and its rows; empty for a frame.
      others: how targets and columns of weights were read, beside the inputs; without scales.
      weights: {task: column of its rows' weights}.
    """

    columns: tuple[EncodedColumn, ...]
    form: str = "onehot"
    missing_words: tuple[str, ...] = MISSING
    codes: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    table: tuple[Row, ...] = ()
    layout: str = ""
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: tuple[EncodedColumn, ...] = ()
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return described(self)

    __repr__ = __str__

    @property
    def numbers(self) -> dict[str, tuple[float, float, bool]]:
        """{column: (mean, deviation, whether a column says that it is missing)} of numbers and booleans."""
        return {
            c.name: (c.scales[""].centre, c.scales[""].scale, c.indicated)
            for c in self.columns if "" in c.scales
        }  # fmt: skip

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """{column: names of its values}; () for a hashed one."""
        return {c.name: c.values for c in self.columns if c.type == "category"}

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each category column, in the order of the codes' columns; () of one matrix."""
        if self.form == "onehot":
            return ()
        return tuple(c.buckets or max(1, len(c.values)) for c in self.columns if c.type == "category")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the matrix's columns; of codes, of the numbers and then of the categories."""
        found = []
        for c in self._numeric():
            found += [f"{c.name} {label}".strip() for label in c.scales]
            found += [f"{c.name} is missing"] if c.indicated and self.form == "onehot" else []
        found += [f"{c.name} hashed {i}" for c in self.columns if c.type == "text" for i in range(c.buckets)]
        if self.form == "codes":
            return (*found, *self.categories)
        return (*found, *(f"{c}={v}" for c, values in self.categories.items() for v in values))

    def _numeric(self) -> list[EncodedColumn]:
        return [c for c in self.columns if c.scales]

    def encode(self, columns: Any) -> Any:
        """What a model reads of {column: values}, a data frame, a path, or a list of {column: value}.

        Returns:
          float32 [N, len(names)]; as codes, {"numbers": float32 [N, n], "categories": int32 [N, c]} of what there is.

        Raises:
          ValueError: for a column that is absent, or one that cannot be read as in training, naming it.
        """
        return self.encode_read(self.read(frames.as_table(columns)))

    def read(self, table: Table) -> dict[str, Any]:
        """{column: float64, datetime or text column (polars)} of new rows, read as the training rows were."""
        return {c.name: self._read(table, c) for c in self.columns}

    def encode_read(self, values: Mapping[str, Any]) -> Any:
        """`encode` of {column: float64, datetime or text column (polars)} as `types.read_columns` returns them."""
        count = len(next(iter(values.values()))) if values else 0
        width = len(self.names) - (len(self.categories) if self.form == "codes" else 0)
        matrix = np.zeros((count, width), np.float32)
        at = 0
        for c in self._numeric():
            given = values[c.name]
            found = dates.date_parts(given) if c.type == "date" else {"": given.to_numpy()}
            for label, scale in c.scales.items():
                scaled = scale.apply(np.array(found[label], np.float64))
                missing = np.isnan(scaled)
                matrix[:, at] = scaled if self.form == "codes" else np.where(missing, 0, scaled)
                at += 1
            if c.indicated and self.form == "onehot":
                matrix[:, at] = missing
                at += 1
        for c in self.columns:
            if c.type == "text":
                matrix[:, at : at + c.buckets] = text.hashed_text(values[c.name], c.buckets)
                at += c.buckets
        codes = [category_codes(c, values[c.name]) for c in self.columns if c.type == "category"]
        if self.form == "onehot":
            for code, known in zip(codes, self.categories.values(), strict=True):
                rows = np.flatnonzero(code >= 0)
                matrix[rows, at + code[rows]] = 1
                at += len(known)
            return matrix
        found = {"numbers": matrix} if width else {}
        return found | ({"categories": np.stack(codes, 1)} if codes else {})

    def unseen(self, columns: Any) -> dict[str, list[str]]:
        """{column: cells whose category training rows did not have}, of the columns where there are any."""
        table, found = frames.as_table(columns), {}
        for c in self.columns:
            if c.type == "category" and not c.buckets:
                values = self._read(table, c)
                cells = values.filter((category_codes(c, values) < 0) & values.is_not_null().to_numpy())
                found |= {c.name: cells.to_list()} if len(cells) else {}
        return found

    def odd(self, values: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, tuple[float, float, float]]]:
        """What of new rows is unlike all training rows, by columns as `read` returns them.

        Returns:
          {column: rows without a value} of those that never lacked one in training, and {column: (the value, smallest
          and largest in training)} of values that lie `FAR` times that range beyond it.
        """
        lacking, far = {}, {}
        never = {r.name for r in self.table if not r.missing}
        for c in self.columns:
            cells = values[c.name]
            if cells.null_count() and not c.indicated and (c.scales or c.name in never):
                lacking[c.name] = cells.null_count()
            if len(c.range) == 2 and len(there := cells.drop_nulls()):
                low, high = c.range
                least = FAR * ((high - low) or abs(high) or 1.0)
                beyond = max((float(there.min()), float(there.max())), key=lambda v: max(low - v, v - high))
                if max(low - beyond, beyond - high) > least:
                    far[c.name] = (beyond, low, high)
        return lacking, far

    def _read(self, table: Table, column: EncodedColumn) -> Any:
        """A column of new rows, read as its training column was."""
        if column.name not in table.columns:
            raise ValueError(f"{'' if table.source == 'the table' else table.source + ': '}no column {column.name!r}; "
                             f"columns are {', '.join(table.columns)}")  # fmt: skip
        codes = self.codes.get(column.name, ())
        return read_as(table, column, self.missing_words, codes)


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
    if column.type in ("category", "many-valued category", "text") or (column.type == "constant" and not column.scales):
        return formats.without_missing(column_types.as_text(given), {*words, *map(str, codes)})
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
        return column_types.as_datetime(given)
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
                same = amounts.get(_number(v), ()) if v not in index else ()
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
        columns = column_types.read_columns(table)
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
    how = {"format": column.format, "date": column.date, "words": column.words}
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

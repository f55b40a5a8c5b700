"""Columns to what a model reads, as the training rows had them, and the same for any further rows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax.data.tables import dates, frames, text
from mtl_jax.data.tables.cells import MISSING
from mtl_jax.data.tables.description import Row, described
from mtl_jax.data.tables.encoded_column import EncodedColumn, category_codes, read_as
from mtl_jax.data.tables.reading import Table

FAR = 10  # times the range of training numbers, from which on a new one is far beyond them


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

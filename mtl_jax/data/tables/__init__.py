"""Tables: CSV and Parquet files and data frames with named columns, read, typed, encoded, and encoded alike again."""

import pathlib

import numpy as np

from mtl_jax.data.tables.description import described
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.files import fingerprint, read_text
from mtl_jax.data.tables.fitting import fit_encoding
from mtl_jax.data.tables.loading import from_csv, from_dataframe
from mtl_jax.data.tables.reading import Table, read_table
from mtl_jax.data.tables.types import Column, Options, read_columns

Columns = dict[str, np.ndarray]  # {name: float64 [N] with nan, or object [N] of text with ""}


def read_csv(path: str | pathlib.Path, **layout) -> Columns:
    """{column: float64 with nan where all its cells are numbers or missing, else text as it stands, "" where missing}.

    Args:
      path: the file.
      **layout: separator, quote, encoding or comment, where they are not to be sniffed (`reading.read_table`).

    Raises:
      FileNotFoundError: naming the file.
      ValueError: naming file and line, for a row with too many or too few cells, a header that repeats a name, or one
        cell that is no number in a column of numbers.
    """
    table = read_table(path, **layout)
    found = {}
    for name, column in read_columns(table).items():
        values = column.values
        if column.type in ("boolean", "date"):
            values = table.columns[name] if values.dtype.is_float() and table.columns[name].dtype != bool else values
        if values.dtype.is_float():
            found[name] = values.to_numpy()
        else:
            text = np.empty(len(values), object)
            text[:] = values.cast(str).fill_null("").to_list() if column.type != "date" else _cells(table, name)
            found[name] = text
    return found


def _cells(table: Table, name: str) -> list[str]:
    return table.columns[name].cast(str).fill_null("").to_list()


__all__ = [
    "Column", "Columns", "Encoding", "Options", "Table", "described", "fingerprint", "fit_encoding", "from_csv",
    "from_dataframe", "read_columns", "read_csv", "read_table", "read_text",
]  # fmt: skip

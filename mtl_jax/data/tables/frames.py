"""Frames, dicts of columns and lists of rows as a `Table`: pandas, polars, pyarrow and what narwhals reads besides."""

import decimal
import difflib
import pathlib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mtl_jax.data.tables.reading import Table, read_table

DAY = 86_400e6  # microseconds


def is_frame(values: Any) -> bool:
    """Whether narwhals has a word for it: pandas, polars, pyarrow, modin."""
    if isinstance(values, np.ndarray | Mapping | list | tuple | str) or not hasattr(values, "__class__"):
        return False
    return type(values).__module__.split(".")[0] in (
        "pandas",
        "polars",
        "pyarrow",
        "modin",
        "cudf",
        "narwhals",
        "duckdb",
    )


def as_table(values: Any, source: str = "the table", **layout) -> Table:
    """Whatever holds named columns: a path, a frame, {column: values}, a list of {column: value}, or a `Table`.

    Args:
      values: of them.
      source: for messages; of a path, the path.
      **layout: separator, quote, encoding, comment of a file.

    Raises:
      ValueError: for columns of different lengths, names that repeat or have two levels, or what is no table.
    """
    if isinstance(values, Table):
        return values
    if isinstance(values, str | pathlib.Path):
        return read_table(values, **layout)
    if is_frame(values):
        if not hasattr(values, "columns") and not hasattr(values, "column_names"):
            raise ValueError(
                f"a {type(values).__name__} is one column or one row without names; give {{column: values}}, or a data "
                "frame: series.to_frame() of a column, frame.iloc[[0]] of a row"
            )
        return Table(_columns_of_frame(values, source), source)
    if isinstance(values, list | tuple) and values and all(isinstance(v, Mapping) for v in values):
        names = dict.fromkeys(str(k) for row in values for k in row)
        rows = [{str(k): v for k, v in row.items()} for row in values]
        _warn_of_keys(rows, names, source)
        return Table({n: series(n, [row.get(n) for row in rows]) for n in names}, source)
    if isinstance(values, Mapping):
        return Table(_columns_of_dict(values, source), source)
    raise ValueError(f"{type(values).__name__} is no table; give a path, a data frame, {{column: values}}, or a list "
                     "of {column: value}")  # fmt: skip


def as_names(given: Any, frame: Any) -> Any:
    """Names of columns, or a dict by them, as `as_table` names them: numbers that are labels of the frame as text."""
    labels = frame if isinstance(frame, Mapping) else getattr(frame, "columns", ())
    numbers = {int(label) for label in labels if _is_whole(label)}

    def name(value: Any) -> Any:
        return str(int(value)) if _is_whole(value) and int(value) in numbers else value

    if isinstance(given, Mapping):
        return {name(k): v for k, v in given.items()}
    return [name(v) for v in given] if isinstance(given, list | tuple) else name(given)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _warn_of_keys(rows: list[dict[str, Any]], names: Collection[str], source: str) -> None:
    """A warning for a row that lacks a key which others have, and for the key in its place that may be mistyped."""
    lacking = [(i, name) for i, row in enumerate(rows) if len(row) < len(names) for name in names if name not in row]
    if not lacking:
        return
    shared = [set(row) for row in rows]
    some = [n for n in names if 2 * sum(n in row for row in shared) <= len(rows)]  # as mistyped ones are

    def near(place: tuple[int, str]) -> list[str]:
        return difflib.get_close_matches(place[1], [n for n in some if n in rows[place[0]] and n != place[1]], 1)

    first = next((p for p in lacking if p[1] not in some and near(p)), lacking[0])
    found = near(first)
    hint = f", but has {found[0]!r} (mistyped?)" if found else ""
    more = len(lacking) - 1
    warnings.warn(
        f"{source}: row {first[0]} has no {first[1]!r}, which other rows have{hint}; it is read as missing"
        + (f" ({more} more such gap{'s' if more > 1 else ''})" if more else ""),
        UserWarning,
        stacklevel=4,
    )


def _columns_of_dict(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    scalars = [k for k, v in values.items() if np.ndim(v) == 0]
    if scalars and len(scalars) == len(values):
        values = {k: [v] for k, v in values.items()}  # one row
    elif scalars:
        raise ValueError(f"{source}: column {scalars[0]!r} is one value where others are columns; give [value]")
    columns = {str(k): series(str(k), v) for k, v in values.items()}
    lengths = {k: len(v) for k, v in columns.items()}
    if len(set(lengths.values())) > 1:
        first = next(iter(lengths))
        other = next(k for k, n in lengths.items() if n != lengths[first])
        raise ValueError(f"{source}: column {first!r} has {lengths[first]} rows, column {other!r} has {lengths[other]}")
    return columns


def _columns_of_frame(frame: Any, source: str) -> dict[str, Any]:
    import narwhals as nw

    labels = list(frame.column_names) if hasattr(frame, "column_names") else list(frame.columns)
    deep = [label for label in labels if isinstance(label, tuple)]
    if deep:
        raise ValueError(f"{source} has columns of {len(deep[0])} levels such as {deep[0]!r}; make one level of them, "
                         "such as frame.columns = ['_'.join(map(str, c)) for c in frame.columns]")  # fmt: skip
    names = [str(label) for label in labels]
    repeated = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
    if repeated:
        raise ValueError(f"{source}: column {repeated[0]!r} is there twice")
    if any(not isinstance(label, str) for label in labels):
        frame = frame.set_axis(names, axis=1)
    whole = nw.from_native(frame)
    if isinstance(whole, nw.LazyFrame):
        whole = whole.collect()
    return {name: _series_of_frame(name, whole[name]) for name in names}


def _series_of_frame(name: str, values: Any) -> Any:
    import narwhals as nw
    import polars as pl

    kind, native = values.dtype, values.to_native()
    if isinstance(native, pl.Series):
        return _plain(name, native)
    if kind == nw.Categorical or isinstance(kind, nw.Enum):
        text = [None if _is_missing(v) else _spelled(v) for v in values.to_list()]
        return pl.Series(name, text, pl.String).cast(pl.Categorical)  # so that numbers stay categories
    if isinstance(kind, nw.Object | nw.Unknown) or kind in (nw.String, nw.Decimal):
        return series(name, values.to_list())
    if kind.is_numeric() and not values.is_null().any():
        return pl.Series(name, np.ascontiguousarray(values.to_numpy()))
    if kind.is_float():
        return pl.Series(name, np.asarray(values.to_numpy(), np.float64)).fill_nan(None)
    return series(name, values.to_list())


def _plain(name: str, values: Any) -> Any:
    """A polars column, if its values are single ones; durations as days, times of the day as hours."""
    import polars as pl

    if values.dtype.is_nested():
        raise ValueError(f"column {name!r} holds {values.dtype}; give every entry a column of its own")
    if values.dtype == pl.Duration:
        return values.dt.total_microseconds().cast(pl.Float64) / DAY
    if values.dtype == pl.Time:
        return values.cast(pl.Int64).cast(pl.Float64) / 3600e9
    return values.cast(pl.Float64) if values.dtype.is_decimal() else values


def series(name: str, values: Any) -> Any:
    """A polars column of arrays or lists: numbers, bools, dates, or text; None, nan and NA are null.

    Raises:
      ValueError: naming the column, for arrays of several axes and objects that are none of these.
    """
    import polars as pl

    if isinstance(values, pl.Series):
        return values
    if is_frame(values):
        values = values.to_list() if hasattr(values, "to_list") else values.to_pylist()
    array = values if isinstance(values, np.ndarray) else None
    if isinstance(array, np.ma.MaskedArray):
        values = [None if m else v for v, m in zip(array.data.tolist(), np.ma.getmaskarray(array), strict=True)]
        array = None
    if array is not None and array.ndim != 1:
        raise ValueError(f"column {name!r} has shape {array.shape}; a column is one value per row")
    if array is not None and array.dtype.kind == "m":
        array = np.where(np.isnat(array), np.nan, array.astype("m8[us]").astype(np.float64) / DAY)
    if array is not None and array.dtype.kind in "fiubM":
        found = pl.Series(name, array.astype(np.float64) if array.dtype == np.float16 else array)
        return found.fill_nan(None) if array.dtype.kind == "f" else found
    return _series_of_objects(name, list(values) if array is None else array.tolist())


def _series_of_objects(name: str, values: list) -> Any:
    import datetime
    import numbers

    import polars as pl

    cells = [None if _is_missing(v) else v for v in values]
    kinds = {type(v) for v in cells} - {type(None)}
    if all(issubclass(k, bool | np.bool_) for k in kinds) and kinds:
        return pl.Series(name, [None if v is None else bool(v) for v in cells], pl.Boolean)
    if kinds and all(issubclass(k, numbers.Integral) and not issubclass(k, bool) for k in kinds):
        if all(v is None or -(2**63) <= v < 2**63 for v in cells):
            return pl.Series(name, [None if v is None else int(v) for v in cells], pl.Int64)
    if kinds and all(issubclass(k, numbers.Real | decimal.Decimal) and not issubclass(k, bool) for k in kinds):
        return pl.Series(name, [None if v is None else float(v) for v in cells], pl.Float64)
    if kinds and all(issubclass(k, datetime.timedelta) for k in kinds):
        return pl.Series(name, [None if v is None else v.total_seconds() * 1e6 / DAY for v in cells], pl.Float64)
    if kinds and all(issubclass(k, datetime.time) for k in kinds):
        hours = [None if v is None else v.hour + v.minute / 60 + v.second / 3600 for v in cells]
        return pl.Series(name, hours, pl.Float64)
    if kinds and all(issubclass(k, datetime.date) for k in kinds):
        return pl.Series(name, [_naive(v) for v in cells], pl.Datetime("us"))
    odd = [
        k for k in kinds if not issubclass(k, str | numbers.Number | decimal.Decimal | datetime.date | datetime.time)
    ]
    if odd:
        raise ValueError(f"column {name!r} holds {odd[0].__name__}; a cell is a number, text, a bool or a date")
    text = [None if v is None else v.strip() if isinstance(v, str) else _spelled(v) for v in cells]
    return pl.Series(name, [v or None for v in text], pl.String)


def _spelled(value: Any) -> str:
    """A number among text as a file would have it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _naive(value: Any) -> Any:
    import datetime

    if value is None or not isinstance(value, datetime.datetime):
        return value and datetime.datetime(value.year, value.month, value.day)
    return value.astimezone(datetime.UTC).replace(tzinfo=None) if value.tzinfo else value


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return not value
    try:
        return bool(value != value)  # nan and NaT; pandas' NA will not say
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"

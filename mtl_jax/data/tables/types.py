"""What a column is: number, boolean, date, category, text, key or row number, read off its cells and said why."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from mtl_jax import parts
from mtl_jax.data.tables import cells as formats
from mtl_jax.data.tables.cells import MISSING, PLAIN, Format
from mtl_jax.data.tables.marks import are_numbers, choose_formats, refuse_odd
from mtl_jax.data.tables.reading import Table

GIVEN = ("number", "boolean", "date", "category", "text", "ignore")  # what `types` takes, besides a date's format
FEW = 64  # values of a category that a table can show as columns
ENOUGH = 20  # rows from which on "all different" says something
NAMES_OF_KEYS = re.compile(
    r"(^|[_\W]|case|client|customer|item|order|patient|person|record|row|sample|subject|user)id$"
    r"|(^|[_\W])(key|uuid|guid|index|idx|row|rownum|row[_ ]?(number|nr|no))$",
    re.IGNORECASE,
)
NO_NAME = re.compile(r"(Unnamed: \d+|column_\d+)?$")


@dataclasses.dataclass(frozen=True)
class Column:
    """One column as it was read.

    Attributes:
      name: as in the table.
      type: number, boolean, date, category, many-valued category, text, row number, key, constant or empty.
      values: polars Series: float64 (numbers, booleans as 0 and 1), datetime, or text; null where missing.
      why: what speaks for the type, in words.
      format: how numbers were spelled.
      date: the format of dates, "" if they were given as such.
      date_too: a format that all of the dates have as well, with day and month the other way round; "" for none.
      words: of a boolean, the spelling of (no, yes).
      missing: rows without a value.
      distinct: different values.
      example: one of them.
    """

    name: str
    type: str
    values: Any
    why: str = ""
    format: Format = PLAIN
    date: str = ""
    words: tuple[str, str] = ("", "")
    missing: int = 0
    distinct: int = 0
    example: str = ""
    date_too: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the caller says of cells; None is sniffed.

    Attributes:
      types: {column: one of `GIVEN`, or the format of dates such as "%d/%m/%Y"}.
      decimal, thousands: marks in numbers.
      words: spellings of a missing value.
      missing: {column: value or values that stand for a missing one there}.
    """

    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decimal: str | None = None
    thousands: str | None = None
    words: Collection[str] = MISSING
    missing: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_columns(table: Table, options: Options | None = None) -> dict[str, Column]:
    """Every column of a table with its type.

    Raises:
      ValueError: for a column of numbers with a few cells that are none, naming line and cell, and for numbers whose
        format could be one or another.
    """
    options = options or Options()
    for place, given in (("types", options.types), ("missing", options.missing)):
        for name in given:
            if name not in table.columns:
                raise parts.unknown(f"column in {place}", name, table.columns)
    for name, given in options.types.items():
        if given not in GIVEN and "%" not in given:
            raise parts.unknown(f"type of column {name!r}:", given, (*GIVEN, "%d.%m.%Y"))
    pending, found = {}, {}
    for name, series in table.columns.items():
        column = _read(table, name, series, options)
        if isinstance(column, Column):
            found[name] = column
        else:
            pending[name] = column
    chosen = choose_formats(table, pending, found, options.types)
    for name, (cells, _) in pending.items():
        found[name] = _number(table, name, formats.parse_numbers(cells, chosen[name]), options, chosen[name])
    return {name: found[name] for name in table.columns}


def codes_of(options: Options, name: str) -> tuple:
    """What stands for a missing value in a column, beside the words that do everywhere."""
    codes = options.missing.get(name, ())
    return tuple(codes) if isinstance(codes, list | tuple | set) else (codes,)


def _read(table: Table, name: str, series: Any, options: Options) -> Any:
    """A `Column`; or (cells, formats that fit), for numbers whose format other columns may decide."""
    import polars as pl

    given = options.types.get(name)
    kind = series.dtype
    if kind in (pl.Categorical, pl.Enum) and given is None:
        given = "category"
        options = dataclasses.replace(options, types={**options.types, name: given})
    if kind == pl.Boolean:
        return _summed(name, "boolean", series.cast(pl.Float64), "true or false", words=("False", "True"))
    if kind.is_numeric() and given not in ("category", "text"):
        values = series.cast(pl.Float64).fill_nan(None)
        return _boolean_of_numbers(name, values) if given == "boolean" else _number(table, name, values, options)
    if kind.is_temporal() and given not in ("category", "text"):
        return _summed(name, "date", as_datetime(series), "dates")
    return _read_text(table, name, as_text(series), options)


def as_datetime(series: Any) -> Any:
    """A temporal column as datetimes without a zone."""
    import polars as pl

    if series.dtype == pl.Datetime and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.cast(pl.Datetime("us"))


def as_text(series: Any) -> Any:
    """A column as text; whole floats as integers, so that 3.0 of a frame is the 3 of a file."""
    import polars as pl

    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = (series == series.round()) & (series.abs() < 2**53)
        return (
            series.cast(pl.Int64, strict=False).cast(pl.String).zip_with(whole.fill_null(False), series.cast(pl.String))
        )
    return series.cast(pl.String) if series.dtype != pl.String else series


def _read_text(table: Table, name: str, cells: Any, options: Options) -> Any:
    import polars as pl

    given, codes = options.types.get(name), codes_of(options, name)
    words = {*options.words, *map(str, codes), *(f"{float(c)!r}" for c in codes if isinstance(c, int | float))}
    plain = options.decimal in (None, ".") and options.thousands in (None, "")
    if given in (None, "number") and plain:
        values = formats.parse_numbers(cells)
        odd = formats.unparsed(cells, values).unique()
        odd = odd.filter(~odd.is_in(list(words)))
        if not len(odd) and (given == "number" or are_numbers(cells)):
            if values.null_count() == len(values):
                return _summed(name, "empty", cells.cast(pl.String), "no value at all")
            return _number(table, name, values, options)
    cells = formats.without_missing(cells, words)
    counts = cells.drop_nulls().value_counts()
    values = counts[counts.columns[0]]
    if not len(values):
        return _summed(name, "empty", cells, "no value at all")
    if given is not None and "%" in given:
        return _date(table, name, cells, given)
    if given in (None, "number"):
        wanted = None
        if options.decimal is not None and options.thousands is not None:
            wanted = Format(options.decimal, options.thousands)
        fitting = [
            f for f in formats.number_formats(values, wanted)
            if options.decimal in (None, f.decimal) and options.thousands in (None, f.thousands)
        ]  # fmt: skip
        if fitting and (given == "number" or are_numbers(values)):
            return cells, fitting
        if given == "number":
            refuse_odd(table, name, cells, 0.0)
    pair = formats.boolean_words(values[:9].to_list()) if given in (None, "boolean") and len(values) <= 8 else None
    if pair:
        return _boolean(name, cells, values.to_list(), pair)
    if given == "boolean":
        raise ValueError(f"{table.source}: column {name!r} holds {values[:3].to_list()}, which is not yes and no, true "
                         "and false, or alike; leave types= out")  # fmt: skip
    if given in (None, "date") and (dates := formats.date_formats(values)):
        return _date(table, name, cells, dates[0], dates[1:])
    if given == "date":
        raise ValueError(f"{table.source}: column {name!r} holds {values[:3].to_list()}; say how dates are written, "
                         f"such as types={{{name!r}: '%d.%m.%Y'}}")  # fmt: skip
    if given is None:
        refuse_odd(table, name, cells, 0.9)
    return _words(name, cells, values, given)


def _summed(name: str, kind: str, values: Any, why: str, distinct: int | None = None, **more) -> Column:
    missing = values.null_count()
    there = values.drop_nulls()
    distinct = there.n_unique() if distinct is None else distinct
    if distinct == 1 and kind != "empty":
        kind, why = ("constant", f"one value; {why}")
    example = "" if not len(there) else f"{there[0]:.6g}" if there.dtype.is_float() else str(there[0])
    example = more["words"][int(there[0])] if "words" in more and len(there) else example.removesuffix(" 00:00:00")
    return Column(name, kind, values, why, missing=missing, distinct=distinct, example=example, **more)


def _number(table: Table, name: str, values: Any, options: Options, how: Format = PLAIN) -> Column:

    codes = [float(c) for c in codes_of(options, name) if isinstance(c, int | float)]
    if codes:
        values = formats.kept(values, ~values.is_in(codes))
    if bool(values.is_infinite().any()):
        row = values.is_infinite().fill_null(False).arg_max()
        raise ValueError(f"{table.source}, {table.place(row)}: column {name!r} holds {values[row]}; mend the cell, or "
                         f"say missing={{{name!r}: {str(values[row])!r}}}")  # fmt: skip
    there = values.drop_nulls()
    if not len(there):
        return _summed(name, "empty", values, "no value at all")
    whole = bool((there == there.round()).all())
    why = "whole numbers" if whole else "numbers"
    why = f"{why}, {how.describe()}" if how.describe() else why
    column = _summed(name, "number", values, why, format=how)
    if whole and column.type == "number" and len(there) == len(values) >= ENOUGH and options.types.get(name) is None:
        if bool((values.diff().drop_nulls() == 1).all()):
            return dataclasses.replace(column, type="row number", why=f"counts the rows from {values[0]:g}")
        if column.distinct == len(values) and NAMES_OF_KEYS.search(name):
            return dataclasses.replace(column, type="key", why="a different whole number in every row, and its name")
    return column


def _boolean_of_numbers(name: str, values: Any) -> Column:
    if values.drop_nulls().n_unique() > 2:
        raise ValueError(f"column {name!r} has {values.drop_nulls().n_unique()} values; a boolean has two")
    low, high = values.min(), values.max()
    return _summed(name, "boolean", (values == high).cast(values.dtype), "two values", words=(f"{low:g}", f"{high:g}"))


def _boolean(name: str, cells: Any, values: list[str], pair: tuple[str, str]) -> Column:
    """0 and 1; the words as they are spelled, if they are so throughout."""
    import polars as pl

    spelled = tuple([v for v in values if v.lower() == word] for word in pair)
    words = tuple(s[0] if len(s) == 1 else word for s, word in zip(spelled, pair, strict=True))
    truth = (cells.str.to_lowercase() == pair[1]).cast(pl.Float64)
    return _summed(name, "boolean", truth, f"{words[0]} and {words[1]}", words=words)


def _date(table: Table, name: str, cells: Any, how: str, others: Collection[str] = ()) -> Column:
    values = formats.parse_dates(cells, how)
    odd = formats.unparsed(cells, values)
    if len(odd):
        row = (values.is_null() & cells.is_not_null()).arg_max()
        raise ValueError(f"{table.source}, {table.place(row)}: column {name!r} holds {cells[row]!r}, which is no date "
                         f"of the format {how!r}")  # fmt: skip
    pairs = [pair for pair in formats.AMBIGUOUS if how.startswith(pair)]
    too = next((o for pair in pairs for o in others if o.startswith(pair)), "")
    why = f"dates as {how}" + (f", which could also be {too}" if too else "")
    return dataclasses.replace(_summed(name, "date", values, why), date=how, date_too=too)


def _words(name: str, cells: Any, values: Any, given: str | None) -> Column:
    """Categories, text or a key, by how often values repeat and what they look like."""
    there, distinct = len(cells) - cells.null_count(), len(values)
    if given == "text":
        return _summed(name, "text", cells, "as types= says", distinct)
    if given == "category":
        return _summed(
            name, "category" if distinct <= FEW else "many-valued category", cells, "as types= says", distinct
        )
    sample = values[:2000]
    words = float((sample.str.count_matches(r"\s+") + 1).mean())
    length = float(sample.str.len_chars().mean())
    if distinct > 0.3 * there and there >= ENOUGH and (words >= 4 or length > 60):
        return _summed(name, "text", cells, f"{words:.0f} words a cell, few cells alike", distinct)
    if distinct == there >= ENOUGH and (_like_key(sample) or NAMES_OF_KEYS.search(name)):
        return _summed(name, "key", cells, "another in every row, and its looks or name", distinct)
    if distinct > 0.9 * there and there >= 50:
        return _summed(name, "text", cells, "hardly a cell like another", distinct)
    kind = "category" if distinct <= FEW else "many-valued category"
    return _summed(name, kind, cells, f"{distinct} values that repeat" if distinct < there else "text", distinct)


def _like_key(sample: Any) -> bool:
    """Whether different values are codes of one or a few shapes (C000123x), or of hexadecimal digits."""
    if bool(sample.str.contains(r"\s").any()):
        return False
    if bool(sample.str.contains(r"^[0-9a-fA-F-]{8,}$").all()):
        return True
    shapes = sample.str.replace_all(r"\d+", "0").str.replace_all(r"[^\W\d_]+", "a").n_unique()
    return bool(sample.str.contains(r"\d").any()) and shapes <= max(1, 0.02 * len(sample))

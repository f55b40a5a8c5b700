"""How the numbers of a file are spelled: 1.200 or 1,200, decided by all its columns, or an error that asks."""

from collections.abc import Mapping
from typing import Any

from mtl_jax.data.tables import cells as formats
from mtl_jax.data.tables.cells import PLAIN, Format
from mtl_jax.data.tables.reading import Table


def are_numbers(values: Any) -> bool:
    """Whether numbers are no codes: without zeros in front, and short enough for float64."""
    return not formats.has_leading_zeros(values) and not bool(values.str.contains(formats.WIDE).any())


def refuse_odd(table: Table, name: str, cells: Any, least: float) -> None:
    """An error for a column of numbers with a few cells that are none; a category of few values may hold both."""
    best = min((formats.parse_numbers(cells, f) for f in (PLAIN, Format(".", ","), Format(",", "."))),
               key=lambda v: v.null_count())  # fmt: skip
    there, numbers = len(cells) - cells.null_count(), best.drop_nulls()
    if not there or len(numbers) < least * there or (least and not are_numbers(cells)):
        return
    whole = bool((numbers == numbers.round()).all())
    distinct = numbers.n_unique()
    if least and whole and distinct <= 20 and distinct < 0.5 * len(numbers):
        return
    row = (best.is_null() & cells.is_not_null()).arg_max()
    raise ValueError(
        f"{table.source}, {table.place(row)}: column {name!r} holds {cells[row]!r}, which is no number, as "
        f"{len(numbers)} of its {there} cells are; mend the cell, or say missing={{{name!r}: {cells[row]!r}}} or "
        f"types={{{name!r}: 'category'}}"
    )


def choose_formats(
    table: Table, pending: Mapping[str, Any], found: Mapping[str, Any], types: Mapping[str, str]
) -> dict[str, Format]:
    """One format per pending column; where several fit, other columns speak for the decimal mark of the file.

    Args:
      table: the file.
      pending: {column: (text cells, formats that fit)}.
      found: {column: `types.Column`} of those whose type is known.
      types: {column: what the caller says that it is}.

    Raises:
      ValueError: where nothing does, naming a cell and what it could be.
    """
    commas = any(all(f.decimal == "," for f in fitting) for _, fitting in pending.values())
    points = any(all(f.decimal == "." for f in fitting) for _, fitting in pending.values())
    plain = [c for c in found.values() if c.type in ("number", "constant") and c.format == PLAIN]
    points = points or any(bool((c.values.drop_nulls().round() != c.values.drop_nulls()).any())
                           for c in (plain if pending else ()) if c.values.dtype.is_float())  # fmt: skip
    chosen = {}
    for name, (cells, fitting) in pending.items():
        decimals = {f.decimal for f in fitting}
        if len(decimals) == 1 or commas != points:
            wanted = decimals if len(decimals) == 1 else {"," if commas else "."}
            chosen[name] = next(f for f in fitting if f.decimal in wanted)
            continue
        values = [formats.parse_numbers(cells, f) for f in fitting]
        if all(bool((v.drop_nulls() == values[0].drop_nulls()).all()) for v in values):
            chosen[name] = fitting[0]
            continue
        if "semicolon" not in table.layout and "tab" not in table.layout and table.layout:
            chosen[name] = next(f for f in fitting if f.decimal == ".")  # a comma in quotes, between commas
            continue
        differ = (values[0] != values[-1]).fill_null(False).arg_max()
        raise ValueError(
            f"{table.source}, {table.place(differ)}: column {name!r} holds {cells[differ]!r}, which could be "
            f"{values[0][differ]:g} or {values[-1][differ]:g}; say decimal='.' or decimal=','"
        )
    if commas and not points:
        _check_points(table, plain, types)
    return chosen


def _check_points(table: Table, plain: list[Any], types: Mapping[str, str]) -> None:
    """In a file of decimal commas 1.200 may be one thousand two hundred; an error where a column has only such."""
    import polars as pl

    for column in plain:
        cells = table.columns[column.name]
        if cells.dtype != pl.String or types.get(column.name) == "number":
            continue
        pointed = cells.filter(cells.str.contains(".", literal=True).fill_null(False))
        if len(pointed) and bool(pointed.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+$").all()):
            row = cells.str.contains(".", literal=True).fill_null(False).arg_max()
            raise ValueError(
                f"{table.source}, {table.place(row)}: column {column.name!r} holds {cells[row]!r} in a file of decimal "
                f"commas; say decimal=',' and thousands='.' if it is {cells[row].replace('.', '')}, or "
                f"types={{{column.name!r}: 'number'}} if not"
            )

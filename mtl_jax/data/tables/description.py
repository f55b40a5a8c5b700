"""The printed table of what each column was read as and why."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtl_jax.tasks import Task

MOST_ROWS = 200  # of a printed table


class Row(NamedTuple):
    """One column of a table as it was read.

    Attributes:
      name, role: the column, and whether it is a target, an input or left out.
      type, why: what it was read as, and what speaks for it.
      missing: share of the rows.
      distinct: number of different values.
      example: one of them.
    """

    name: str
    role: str
    type: str
    why: str
    missing: float
    distinct: int
    example: str


def rows_of(columns: Mapping[str, Any], roles: Mapping[str, str]) -> tuple[Row, ...]:
    """A row per `types.Column`."""
    return tuple(
        Row(c.name, roles[n], c.type, c.why, c.missing / max(1, len(c.values)), c.distinct, c.example)
        for n, c in columns.items()
    )


def with_kinds(rows: Sequence[Row], tasks: Sequence[Task]) -> tuple[Row, ...]:
    """The rows; those of targets say which kind of task they became."""
    said = {}
    for task in tasks:
        size = f" of {task.size}" if task.size else ""
        one = f", 1 is {task.classes[1]!r}" if task.of_kind.two and len(task.classes) == 2 else ""
        said[task.name] = f"{task.kind}{size}{one}"
    return tuple(
        r._replace(why=f"{r.why}: {said[r.name]}") if r.role == "target" and r.name in said else r for r in rows
    )


def described(encoding: Any) -> str:
    """The table of an `Encoding`, with the layout of its file and the shape of what a model reads."""
    from mtl_jax.reporting.describe import table

    lines = []
    if encoding.source:
        lines.append(f"{encoding.source.get('path', 'a table')}: {encoding.source['rows']:,} rows; {encoding.layout}")
    cells = [
        (repr(r.name) if not r.name.strip() else r.name, r.role, r.type, f"{r.missing:.0%}" if r.missing else "",
         f"{r.distinct:,}", _short(r.example), r.why)
        for r in encoding.table[:MOST_ROWS]
    ]  # fmt: skip
    if cells:
        lines.append(table(cells, ("column", "role", "read as", "missing", "values", "such as", "why"), right=(3, 4)))
    if len(encoding.table) > MOST_ROWS:
        lines.append(f"and {len(encoding.table) - MOST_ROWS:,} more columns")
    width = len(encoding.names)
    if encoding.form == "codes":
        count = len(encoding.categories)
        what = f'{{"numbers": {width - count} columns, "categories": {count} columns of codes}}'
    else:
        what = f"{width} columns"
    lines.append(f"inputs: {what}")
    return "\n".join(lines)


def _short(text: str) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= 24 else text[:21] + "..."

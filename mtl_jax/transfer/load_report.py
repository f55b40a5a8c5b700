"""What loading did, or could not do, with every path: a table."""

from collections.abc import Sequence
from typing import NamedTuple

from mtl_jax.reporting.describe import table

KINDS = ("loaded", "kept", "unused", "reshaped", "uncovered", "unfit")
SHOWN = 12


class Line(NamedTuple):
    """One path of the model, or one of the source that nothing reads.

    Attributes:
      kind: "loaded"; "kept", at its initial value; "unused", of the source; "uncovered", which nothing gives a value;
        or "unfit", whose value is of another shape or kind.
      path: of the model; of the source, where it is unused.
      source: the source's paths that it comes from.
      note: shapes, where they changed on the way, and what is wrong.
    """

    kind: str
    path: str
    source: tuple[str, ...] = ()
    note: str = ""


class LoadReport(dict):
    """{"loaded", "kept", "unused", "reshaped", "uncovered", "unfit": paths}; printed, it is a table.

    "reshaped" are those of "loaded" that were resized or have their classes in another order; a change of layout alone
    is no reshaping. `lines` tells all, `source` names where they come from.
    """

    def __init__(self, source: str, lines: Sequence[Line], reshaped: Sequence[str] = ()):
        super().__init__({k: [x.path for x in lines if x.kind == k] for k in KINDS})
        self["reshaped"] = list(reshaped)
        self.source, self.lines = source, tuple(lines)

    def with_lines(self, more: Sequence[Line]) -> "LoadReport":
        """The report with further lines."""
        return LoadReport(self.source, (*self.lines, *more), self["reshaped"])

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self[k])} {k}" for k in KINDS if self[k])
        rows: list[tuple[str, ...]] = [(x.path, x.kind, ", ".join(x.source), x.note) for x in self.lines]
        return f"from {self.source}: {counts}\n{table(rows, ('path', '', 'from', 'note'))}"

    __repr__ = __str__


class DoesNotFit(ValueError):
    """Nothing was loaded; `report` says of every path why."""

    def __init__(self, report: LoadReport):
        bad = [x for x in report.lines if x.kind in ("uncovered", "unfit")]
        lines = [f"  {x.kind} {x.path}: {x.note}" for x in bad[:SHOWN]]
        more = [f"  and {len(bad) - SHOWN} more (error.report lists all)"] if len(bad) > SHOWN else []
        super().__init__("\n".join((f"{report.source} cannot fill the model; nothing was loaded:", *lines, *more)))
        self.report = report

"""An encoding as JSON, `columns.json` beside a run, and back: checked field by field, nothing is evaluated."""

import pathlib
from typing import Any

from mtl_jax import files
from mtl_jax.data.tables.cells import Format
from mtl_jax.data.tables.description import Row
from mtl_jax.data.tables.encoded_column import EncodedColumn
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.scaling import Scale

VERSION = 1
FILE = "columns.json"
TYPES = ("number", "boolean", "date", "category", "text")


def to_json(encoding: Encoding) -> dict[str, Any]:
    """The encoding as what JSON has."""
    return {
        "version": VERSION, "form": encoding.form, "layout": encoding.layout, "source": dict(encoding.source),
        "missing_words": list(encoding.missing_words), "codes": {k: list(v) for k, v in encoding.codes.items()},
        "columns": list(map(_to_fields, encoding.columns)), "table": [list(row) for row in encoding.table],
        "others": list(map(_to_fields, encoding.others)), "weights": dict(encoding.weights),
    }  # fmt: skip


def _to_fields(c: EncodedColumn) -> dict[str, Any]:
    return {
        "name": c.name, "type": c.type, "indicated": c.indicated, "values": list(c.values), "buckets": c.buckets,
        "scales": {k: {"centre": s.centre, "scale": s.scale, "knots": list(s.knots)} for k, s in c.scales.items()},
        "format": list(c.format), "date": c.date, "words": list(c.words), "range": list(c.range),
    }  # fmt: skip


def from_json(content: Any, where: str) -> Encoding:
    """The encoding that `to_json` wrote; older files say nothing of "others" and "weights".

    Raises:
      ValueError: naming file and field, for what is not of the form.
    """
    content = _Fields(content, where)
    if content.of("version", int) != VERSION:
        raise ValueError(f"{where}: version {content.of('version', int)} is not {VERSION}; it was written by another "
                         "version of mtl_jax")  # fmt: skip
    form = content.of("form", str)
    if form not in ("onehot", "codes"):
        raise ValueError(f"{where}: form {form!r} is neither 'onehot' nor 'codes'")
    content.content = {"others": [], "weights": {}} | content.content
    columns, others = (
        tuple(_column(_Fields(c, f"{where}, {what} {i}")) for i, c in enumerate(content.of(field, list)))
        for what, field in (("column", "columns"), ("other", "others"))
    )
    table = content.of("table", list)
    if any(not isinstance(r, list) or len(r) != len(Row._fields) for r in table):
        raise ValueError(f"{where}: a row of 'table' has not the entries {', '.join(Row._fields)}")
    codes = {k: tuple(v) for k, v in content.of("codes", dict).items() if isinstance(v, list)}
    weights = {str(k): str(v) for k, v in content.of("weights", dict).items()}
    if unread := set(weights.values()) - {c.name for c in others}:
        raise ValueError(f"{where}: column {min(unread)!r} of 'weights' is not among 'others'")
    return Encoding(
        columns, form, tuple(map(str, content.of("missing_words", list))), codes, tuple(Row(*r) for r in table),
        content.of("layout", str), content.of("source", dict),
        others, weights,
    )  # fmt: skip


def _column(content: "_Fields") -> EncodedColumn:
    kind = content.of("type", str)
    if kind not in TYPES:
        raise ValueError(f"{content.where}: type {kind!r} is none of {', '.join(TYPES)}")
    scales = {}
    for label, entry in content.of("scales", dict).items():
        entry = _Fields(entry, f"{content.where}, scale {label!r}")
        scale = Scale(entry.number("centre"), entry.number("scale"), tuple(map(float, entry.of("knots", list))))
        if not scale.scale > 0:
            raise ValueError(f"{entry.where}: scale {scale.scale} must be above 0")
        scales[label] = scale
    words, how = content.of("words", list), content.of("format", list)
    if len(words) != 2 or len(how) != len(Format._fields):
        raise ValueError(f"{content.where}: words and format have {len(words)} and {len(how)} entries, not 2 and "
                         f"{len(Format._fields)}")  # fmt: skip
    span = content.of("range", list) if "range" in content.content else []  # older files have none
    if len(span) not in (0, 2) or not all(isinstance(v, int | float) and v - v == 0 for v in span):
        raise ValueError(f"{content.where}: range {span} is not the smallest and the largest number of training rows")
    off, on = map(str, words)
    return EncodedColumn(
        content.of("name", str), kind, scales, content.of("indicated", bool),
        tuple(map(str, content.of("values", list))),
        content.of("buckets", int), Format(*map(str, how)), content.of("date", str), (off, on),
        tuple(map(float, span)),
    )  # fmt: skip


class _Fields:
    """A JSON object whose entries are asked for by name and type."""

    def __init__(self, content: Any, where: str):
        if not isinstance(content, dict):
            raise ValueError(f"{where} is no object of names and values")
        self.content, self.where = content, where

    def of(self, name: str, kind: type) -> Any:
        """The entry, or an error that names it."""
        value = self.content.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{self.where}: {name!r} must be {kind.__name__}, not {value!r}"[:300])
        return value

    def number(self, name: str) -> float:
        """The entry as a finite float."""
        value = self.content.get(name)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or value != value
            or abs(value) == float("inf")
        ):
            raise ValueError(f"{self.where}: {name!r} must be a finite number, not {value!r}"[:300])
        return float(value)


def write(directory: pathlib.Path, encoding: Encoding | None) -> None:
    """Writes ``columns.json``, if there is an encoding."""
    if encoding is not None:
        files.write_json(directory / FILE, to_json(encoding))


def read(directory: pathlib.Path) -> Encoding | None:
    """The encoding of a run; None if it has none."""
    path = directory / FILE
    return from_json(files.read_json(path), str(path)) if path.exists() else None

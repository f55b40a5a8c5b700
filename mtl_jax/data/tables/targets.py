"""Target columns as labels: numbers, text, or the words of a boolean; and those of new rows by names of classes."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from mtl_jax.batch import Batch
from mtl_jax.data.arrays import read
from mtl_jax.data.checks import check_weights
from mtl_jax.data.dataset import narrow_targets
from mtl_jax.data.labels import encode_labels, has_names_of_numbers
from mtl_jax.data.tables import types as column_types
from mtl_jax.data.tables.cells import MISSING
from mtl_jax.data.tables.encoded_column import EncodedColumn, read_as
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.types import Column, Options
from mtl_jax.tasks import Task

CLASSES_PERHAPS = ("None", "none", "NONE")  # said of missing values, and of the absence of what is classified


def labels_of(table: Table, column: Column, given: str | Task | None) -> np.ndarray:
    """A target column as labels: float64 with nan, or text with "" where missing.

    Raises:
      ValueError: for dates, and for text that repeats so little that there would be a class per row.
    """
    name = column.name
    if column.type == "date":
        raise ValueError(f"{table.source}: target column {name!r} holds dates; give a column of numbers, such as days")
    if column.words[0]:
        words = np.array([*column.words, ""], object)
        return words[column.values.fill_null(2).cast(int).to_numpy()]
    if column.values.dtype.is_float():
        return column.values.to_numpy()
    if column.type in ("text", "key") and given is None:
        raise ValueError(
            f"{table.source}: target column {name!r} holds text with {column.distinct} different values in "
            f"{len(column.values) - column.missing} rows, which make no classes; say kinds={{{name!r}: "
            "'classification'}, if they are"
        )
    raw = table.columns[name]
    if str(raw.dtype) == "String":
        perhaps = raw.is_in(list(CLASSES_PERHAPS)).fill_null(False)
        if bool((perhaps & column.values.is_null()).any()):
            warnings.warn(
                f"{table.source}: target column {name!r} has {int(perhaps.sum())} cells {raw.filter(perhaps)[0]!r}, "
                "which are read as missing; if that is a class, say missing_words=('', 'NA')",
                UserWarning,
                stacklevel=5,
            )
    found = np.empty(len(column.values), object)
    found[:] = column.values.fill_null("").to_list()
    return found


def as_whole(labels: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({task: labels}, {task: mask}) with whole numbers beside gaps as integers, whose classes a split can count."""
    found, masks = dict(labels), {}
    for task, values in labels.items():
        there = ~np.isnan(values) if values.dtype.kind == "f" else None
        if (
            there is not None
            and (values[there] == np.round(values[there])).all()
            and (np.abs(values[there]) < 2**53).all()
        ):
            found[task], masks[task] = np.where(there, values, 0).astype(np.int64), there
    return found, masks


def split_of(table: Table, encoding: Encoding, tasks: Sequence[Task]) -> Batch:
    """All rows of a table as a split of a run: inputs as in training, classes by name, rows by their weights.

    Raises:
      ValueError: for a target column that is absent, or labels that the tasks do not have.
    """
    for task in tasks:
        if task.name not in table.columns:
            raise ValueError(
                f"{table.source}: no column {task.name!r}, a target; columns are {', '.join(table.columns)}"
            )
    columns = _as_in_training(table, encoding, tasks)
    labels = {t.name: _labels_of_new(table, columns[t.name], t) for t in tasks}
    raw = read({"row": np.arange(table.num_rows)}, labels, weights=_weights_of_new(table, encoding, tasks))
    by_names = frozenset(t.name for t in tasks if has_names_of_numbers(t))
    encoded = narrow_targets(tasks, encode_labels(tuple(tasks), raw, table.source, by_names, table.place))
    return Batch(encoding.encode(table), encoded.targets, encoded.masks, encoded.weights)


def as_it_was_read(column: Column) -> EncodedColumn:
    """What is kept of a target or a column of weights, so that those of new rows are read alike."""
    if column.words[0]:
        return EncodedColumn(column.name, "boolean", words=column.words)
    kind = "number" if column.values.dtype.is_float() else "category"
    return EncodedColumn(column.name, kind, format=column.format)


def _as_in_training(table: Table, encoding: Encoding, tasks: Sequence[Task]) -> dict[str, Column]:
    """Targets of new rows: numbers by the marks of the training table, others by what their cells are.

    The 0 and 1 of a binary task may be spelled otherwise in new rows, as yes and no.
    """
    marks = {c.name: c for c in encoding.others if c.type == "number"}
    numbers = {t.name for t in tasks if t.name in marks and (t.classes or t.of_kind.labels != "zero_one")}
    found = {}
    for name in numbers:
        codes = encoding.codes.get(name, ())
        found[name] = Column(name, "number", read_as(table, marks[name], encoding.missing_words, codes))
    sniffed = [t.name for t in tasks if t.name not in numbers]
    codes = {n: encoding.codes[n] for n in sniffed if n in encoding.codes}
    rest = table._replace(columns={n: table.columns[n] for n in sniffed})
    return found | column_types.read_columns(rest, Options(words=encoding.missing_words, missing=codes))


def _weights_of_new(table: Table, encoding: Encoding, tasks: Sequence[Task]) -> dict[str, np.ndarray] | None:
    """{task: weights of new rows} by the columns that held them in training; a warning where one is absent."""
    wanted = {t.name: encoding.weights[t.name] for t in tasks if t.name in encoding.weights}
    absent = [c for c in wanted.values() if c not in table.columns]
    if absent:
        warnings.warn(
            f"{table.source}: no column {absent[0]!r}, which held the weights of rows in training; here all rows count "
            "alike",
            UserWarning,
            stacklevel=5,
        )
    marks = {c.name: c for c in encoding.others}
    found = {}
    for task, name in wanted.items():
        if name in table.columns:
            values = read_as(table, marks[name], encoding.missing_words, encoding.codes.get(name, ()))
            found[task] = weights_of(table, Column(name, "number", values, missing=values.null_count()))
            check_weights(task, found[task], table.num_rows, table.source)
    return found or None


def weights_of(table: Table, column: Column) -> np.ndarray:
    """A column of row weights.

    Raises:
      ValueError: where a row has none.
    """
    if not column.values.dtype.is_float() or column.missing:
        raise ValueError(f"{table.source}: column {column.name!r} of weights must hold a number in every row")
    return column.values.to_numpy()


def _labels_of_new(table: Table, column: Column, task: Task) -> np.ndarray:
    """Labels of new rows, as text where the task's classes have names that are no numbers."""
    if column.type == "empty":
        return np.full(len(column.values), np.nan)
    if column.words[0] and task.of_kind.labels != "numbers":
        words = _matching(column.words, task.classes)
        if words is None:
            return column.values.to_numpy()
        return np.array([*words, ""], object)[column.values.fill_null(2).cast(int).to_numpy()]
    if column.values.dtype.is_float() and task.classes and not _all_numbers(task.classes):
        column = Column(column.name, "category", column_types.as_text(column.values))
    return labels_of(table, column, task)


def _matching(words: tuple[str, str], classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The task's classes that a boolean's words are, whatever their case; None where classes have no names."""
    if not classes:
        return None
    lowered = {c.lower(): c for c in classes}
    return tuple(lowered.get(w.lower(), w) for w in words)


def _all_numbers(classes: tuple[str, ...]) -> bool:
    try:
        return bool([float(c) for c in classes])
    except ValueError:
        return False


__all__ = ["CLASSES_PERHAPS", "MISSING", "as_it_was_read", "as_whole", "labels_of", "split_of", "weights_of"]

"""Rows for a trained run: encoded as its training rows were, from files, frames, dicts and lists of dicts."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import callers
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.kinds import has_code_below
from mtl_jax.data.tables import files, frames, stored
from mtl_jax.data.tables.difference import difference
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.targets import split_of
from mtl_jax.data.tables.types import Options, read_columns
from mtl_jax.tasks import Task

MANY = 20  # rows from which on a column of unknown categories is a sign of something wrong


def is_table(values: Any, example: Any = None) -> bool:
    """Whether `values` are named columns rather than arrays as a model reads them, of which `example` is one."""
    if isinstance(values, str | pathlib.Path | Table) or frames.is_frame(values):
        return True
    if isinstance(values, list | tuple) and not isinstance(values, Batch):
        return bool(values) and all(isinstance(v, Mapping) for v in values)
    if not isinstance(values, Mapping) or isinstance(values, PerTask):
        return False
    return not (isinstance(example, Mapping) and set(values) == set(example))


def inputs_for(columns: Encoding | None, inputs: Any, example: Any) -> Any:
    """Inputs as the run's model reads them: a table is encoded by `columns`, arrays stay as they are.

    Raises:
      ValueError: for a table that cannot be encoded, or a run that has no encoding.
    """
    if isinstance(inputs, Mapping) and columns is None:
        return inputs
    if not is_table(inputs, example):
        return inputs
    if columns is None:
        raise ValueError(f"this run was not trained on a table, so it cannot read {type(inputs).__name__}; give "
                         "arrays as in training")  # fmt: skip
    table = frames.as_table(inputs)
    values = columns.read(table)
    warn_of_rows(columns, table, values)
    return columns.encode_read(values)


def split_for(columns: Encoding | None, split: Any, tasks: Sequence[Task]) -> Any:
    """A split for the run: all rows of a table, encoded as in training with classes by name; a `Batch` as it is.

    Raises:
      ValueError: for a split that is known to be encoded otherwise than the run's training rows.
    """
    if not isinstance(split, Batch) and is_table(split):
        if columns is None:
            raise ValueError(f"this run was not trained on a table, so it cannot read {type(split).__name__}; give a "
                             "split of a data set")  # fmt: skip
        table = frames.as_table(split)
        warn_of_rows(columns, table, columns.read(table))
        split = split_of(table, columns, tasks)
        _check_labels(columns, table, split, tasks)
        return split
    other = getattr(split, "columns", None)
    if columns is not None and other is not None and (differs := difference(columns, other)):
        raise ValueError(
            f"these rows were encoded otherwise than those that the run was trained on: {differs}; load them with "
            "from_csv(..., columns=run.columns), or evaluate on the file itself, run.evaluate('rows.csv')"
        )
    return split


def check_encoder(data: Any, encoder: Any) -> None:
    """An error for a table of codes before an encoder that reads one matrix."""
    codes = data.columns is not None and data.columns.form == "codes" and isinstance(data.train.inputs, dict)
    if codes and encoder is not None and not encoder.reads_missing:
        raise ValueError(
            f"data set {data.name!r} has its categories as codes, which encoder {encoder.spec or 'given'} cannot "
            "read; take mtl.encoders.for_table(data), or say categories='onehot' where the table is loaded"
        )


def warn_of_other_columns(columns: Encoding | None, data: Any) -> None:
    """A warning where variables are carried to a table that is encoded otherwise than the one that they come from."""
    if columns is not None and data.columns is not None and (differs := difference(columns, data.columns)):
        warnings.warn(
            f"data set {data.name!r} is encoded otherwise than the table that the carried variables were trained on: "
            f"{differs}. They read its columns in other units; from_csv(..., columns=run.columns) encodes it as that "
            f"one",
            UserWarning,
            stacklevel=callers.outside(),
        )


def check_same_file(directory: pathlib.Path, columns: Encoding | None) -> None:
    """An error if a working directory holds a run on other bytes of the table than those that were just read."""
    old = stored.read(directory)
    if old is None or columns is None or not (old.source and columns.source):
        return
    if old.source["sha256"] != columns.source["sha256"]:
        raise ValueError(
            f"{directory} holds a run on another file: {columns.source['path']} has changed since, from "
            f"{old.source['rows']:,} to {columns.source['rows']:,} rows; use another workdir, or the file of that run"
        )


def _check_labels(columns: Encoding, table: Table, split: Batch, tasks: Sequence[Task]) -> None:
    """A warning for a target without labels; an error for a code of "no label" among amounts, as in training."""
    for task in tasks:
        name = task.name
        if not split.masks[name].any():
            warnings.warn(f"no labels of {name!r} in {table.source}; what is measured of it is nan", UserWarning,
                          stacklevel=4)  # fmt: skip
        elif task.of_kind.labels == "numbers":
            wanted = table._replace(columns={name: table.columns[name]})
            codes = {name: columns.codes[name]} if name in columns.codes else {}
            column = read_columns(wanted, Options(words=columns.missing_words, missing=codes))[name]
            if not column.values.dtype.is_float():
                continue
            values, counts = np.unique(column.values.drop_nulls().to_numpy(), return_counts=True)
            if has_code_below(values, counts):
                raise ValueError(
                    f"{table.source}: label {values[0]:g} of task {name!r} is there {counts[0]} times, and no other is "
                    "below 0; if it marks a missing label, leave these cells empty; if it is an amount, give the split "
                    f"of from_csv(..., columns=run.columns, kinds={{{name!r}: {task.kind!r}}})"
                )


def warn_of_rows(columns: Encoding, table: Table, values: Mapping[str, Any]) -> None:
    """Warnings for new rows unlike training's: values that are missing, far beyond, or spelled otherwise.

    A column is named if it lacks a value and never did in training, or holds numbers that lie `encoding.FAR` times the
    range of training beyond it, or if training rows had not most of its values.
    """
    lacking, far = columns.odd(values)
    if lacking:
        name, rows = next(iter(lacking.items()))
        more = f" (so do {', '.join(map(repr, list(lacking)[1:6]))})" if len(lacking) > 1 else ""
        warnings.warn(
            f"{table.source}: column {name!r} lacks a value in {rows} of {table.num_rows} rows{more}, and never did in "
            "training; nothing was learned of a missing one",
            UserWarning,
            stacklevel=4,
        )
    if far:
        said = [f"{n!r} holds {v:g} (in training {low:g} to {high:g})" for n, (v, low, high) in list(far.items())[:5]]
        warnings.warn(
            f"{table.source}: far beyond what training rows had: column {', column '.join(said)}; predictions for such "
            "rows are guesses",
            UserWarning,
            stacklevel=4,
        )
    if table.num_rows < MANY:
        return
    for name, cells in columns.unseen(table).items():
        if 2 * len(cells) > table.num_rows:
            known = next(c.values for c in columns.columns if c.name == name)
            warnings.warn(
                f"{table.source}: {len(cells)} of {table.num_rows} rows have values of column {name!r} that training "
                f"rows did not have, such as {cells[0]!r}; known are {', '.join(known[:5])}. They count as unknown",
                UserWarning,
                stacklevel=4,
            )


def changed(columns: Encoding | None) -> str:
    """What is to be said of the file behind an encoding, if it is another one than in training; else ""."""
    source = columns.source if columns is not None else {}
    path = source.get("path")
    if not path or not pathlib.Path(path).expanduser().is_file():
        return ""
    if files.fingerprint(path) == source["sha256"]:
        return ""
    return f"{path} has changed since the run was trained on it (it had {source['rows']:,} rows)"

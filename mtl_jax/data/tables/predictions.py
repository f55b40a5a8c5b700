"""A run's predictions as named columns beside the rows that they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.data.tables import cells as spelled
from mtl_jax.data.tables.encoding import Encoding
from mtl_jax.data.tables.reading import Table
from mtl_jax.data.tables.types import read_columns
from mtl_jax.tasks import Task


def prediction_columns(task: Task, values: np.ndarray) -> dict[str, np.ndarray]:
    """{column: values [N]} of one task's predictions.

    A class and a probability per class; of numbers the value itself, one per dimension or quantile.
    """
    name = f"{task.name}_predicted"
    kind = task.of_kind
    if kind.labels == "classes" and values.ndim == 2:
        classes = task.classes or tuple(map(str, range(values.shape[1])))
        chosen = np.array(classes, object)[values.argmax(1)]
        return {name: chosen} | {f"{task.name}_p_{c}": values[:, i] for i, c in enumerate(classes)}
    if kind.two:
        classes = task.classes or ("0", "1")
        chosen = np.array(classes, object)[(values >= 0.5).astype(int)]
        return {name: chosen, f"{task.name}_p_{classes[0]}": 1 - values, f"{task.name}_p_{classes[1]}": values}
    if kind.labels == "zero_one" and values.ndim == 2:
        classes = task.classes or tuple(map(str, range(values.shape[1])))
        return {f"{task.name}_p_{c}": values[:, i] for i, c in enumerate(classes)}
    if task.quantiles:
        return {f"{task.name}_q{q:g}": values[:, i] for i, q in enumerate(task.quantiles)}
    if values.ndim == 1:
        return {name: values}
    if values.ndim == 2:
        return {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
    raise ValueError(f"task {task.name!r}: predictions of shape {values.shape} are no columns of a table")


def region_columns(task: Task, region: Any) -> dict[str, np.ndarray]:
    """{column: values [N]} of one task's intervals (low and high), or sets (the classes that are in, with "|")."""
    name = task.name
    if hasattr(region, "low"):
        sides = {"low": region.low, "high": region.high}
        if region.low.ndim == 1:
            return {f"{name}_{side}": values for side, values in sides.items()}
        return {f"{name}_{side}_{i}": v[:, i] for i in range(region.low.shape[1]) for side, v in sides.items()}
    if region.ndim == 3:  # a set of absent and present for every label
        labels = task.classes or tuple(map(str, range(region.shape[1])))
        return {f"{name}_set_{c}": texts(region[:, i], ("0", "1")) for i, c in enumerate(labels)}
    classes = task.classes or tuple(map(str, range(region.shape[1])))
    return {f"{name}_set": texts(region, classes)}


def texts(inside: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The classes of each row's set in one text, such as ``red|green``."""
    return np.array(["|".join(c for c, on in zip(classes, row, strict=True) if on) for row in inside.tolist()], object)


def with_points(table: Table, known: Encoding) -> dict[str, Any]:
    """The columns of a table; numbers that are spelled with a decimal comma, with a point and without thousands.

    Args:
      table: the cells of a file.
      known: the run's encoding, whose columns are spelled as in training.
    """
    import polars as pl

    try:
        found = {name: column.format for name, column in read_columns(table).items()}
    except ValueError:  # a column that the run does not read may hold anything
        found = {}
    columns = dict(table.columns)
    for c in known.columns:
        if c.type == "number" and c.format.decimal == "," and columns[c.name].dtype == pl.String:
            cells = spelled.without_missing(columns[c.name].str.strip_chars(), known.missing_words)
            if not len(spelled.unparsed(cells, spelled.parse_numbers(cells, c.format))):
                found[c.name] = c.format  # read so by the run, too
    for name, how in found.items():
        cells = columns[name]
        if how.decimal != "," or cells.dtype != pl.String:
            continue
        pointed = cells.str.replace_all(spelled.SPACES if how.thousands == " " else r"\.", "")
        pointed = pointed.str.replace(",", ".", literal=True)
        read = spelled.parse_numbers(cells.str.strip_chars(), how).is_not_null()
        columns[name] = pl.select(pl.when(read).then(pointed).otherwise(cells)).to_series()
    return columns


def beside(
    rows: Mapping[str, Any],
    tasks: Sequence[Task],
    predictions: Mapping[str, np.ndarray],
    regions: Mapping[str, Any] | None = None,
) -> Any:
    """A polars frame: the columns of `rows`, then those of each task's predictions, and regions if there are any.

    Raises:
      ValueError: for a column that is there already.
    """
    import polars as pl

    columns, found_regions = dict(rows), regions or {}
    for task in tasks:
        found = prediction_columns(task, predictions[task.name])
        if task.name in found_regions:
            found |= region_columns(task, found_regions[task.name])
        for name, values in found.items():
            if name in columns:
                raise ValueError(f"the rows have a column {name!r} already; rename it")
            kind = pl.String if values.dtype == object else None
            columns[name] = pl.Series(name, values.tolist() if kind else values, dtype=kind)
    return pl.DataFrame(columns)

"""A run's predictions as named columns beside the rows that they are of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.tasks import KINDS, Task


def prediction_columns(task: Task, values: np.ndarray) -> dict[str, np.ndarray]:
    """{column: values [N]} of one task's predictions.

    A class and a probability per class; of numbers the value itself, one per dimension or quantile. Intervals and sets
    of a calibrated run belong here as well.
    """
    name = f"{task.name}_predicted"
    labels = KINDS[task.kind].labels
    if task.kind == "classification":
        classes = task.classes or tuple(map(str, range(values.shape[1])))
        chosen = np.array(classes, object)[values.argmax(1)]
        return {name: chosen} | {f"{task.name}_p_{c}": values[:, i] for i, c in enumerate(classes)}
    if task.kind == "binary":
        classes = task.classes or ("0", "1")
        chosen = np.array(classes, object)[(values >= 0.5).astype(int)]
        return {name: chosen, f"{task.name}_p_{classes[0]}": 1 - values, f"{task.name}_p_{classes[1]}": values}
    if labels == "zero_one" and values.ndim == 2:
        classes = task.classes or tuple(map(str, range(values.shape[1])))
        return {f"{task.name}_p_{c}": values[:, i] for i, c in enumerate(classes)}
    if task.kind == "quantile":
        return {f"{task.name}_q{q:g}": values[:, i] for i, q in enumerate(task.quantiles)}
    if values.ndim == 1:
        return {name: values}
    if values.ndim == 2:
        return {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
    raise ValueError(f"task {task.name!r}: predictions of shape {values.shape} are no columns of a table")


def beside(rows: Mapping[str, Any], tasks: Sequence[Task], predictions: Mapping[str, np.ndarray]) -> Any:
    """A polars frame: the columns of `rows`, then those of each task's predictions.

    Raises:
      ValueError: for a column that is there already.
    """
    import polars as pl

    columns = dict(rows)
    for task in tasks:
        for name, values in prediction_columns(task, predictions[task.name]).items():
            if name in columns:
                raise ValueError(f"the rows have a column {name!r} already; rename it")
            kind = pl.String if values.dtype == object else None
            columns[name] = pl.Series(name, values.tolist() if kind else values, dtype=kind)
    return pl.DataFrame(columns)

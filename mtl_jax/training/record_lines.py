"""Records as lines of metrics.jsonl. In memory, and on disk up to `many.MANY` tasks, values are named by their task.

Of more tasks the names stand once, in a line ``{"tasks": [...]}`` before the records, and values stand in their order:

- ``losses``, ``scores``, ``weights``, ``norms``, ``left_out``: a list, an entry per task;
- ``metrics``: {metric: such a list}, or {metric: {"tasks": numbers, "values": list}} where some tasks do not have it;
- ``upper_cosines``: the upper triangle of the symmetric ``cosines``, row by row, its diagonal included.

Nothing is left out or rounded, so that a record comes back as it was. Files of either form are read, and of both.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax.reporting import many

BY_TASK = ("losses", "scores", "weights", "norms", "left_out")
UPPER = "upper_cosines"


def text_of(records: Sequence[dict], before: Sequence[str] | None = None) -> str:
    """The lines of records; `before` are the tasks that a line above names already."""
    lines = []
    for record in records:
        names = task_names(record)
        if many.is_many(names):
            if list(names) != list(before or ()):
                lines.append({"tasks": list(names)})
                before = names
            record = compact(record, names)
        lines.append(record)
    return "".join(json.dumps(line) + "\n" for line in lines)


def task_names(record: dict) -> tuple[str, ...]:
    """The tasks of a record in their order; () for what is none."""
    losses = record.get("losses")
    return tuple(losses) if isinstance(losses, dict) else ()


def header_of(line: Any) -> list[str] | None:
    """The names in a line that holds only these; None for any other line."""
    names = line.get("tasks") if isinstance(line, dict) and len(line) == 1 else None
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None


def compact(record: dict, names: Sequence[str]) -> dict:
    """A record with values in the order of `names`; as it is, if its metrics are of other tasks."""
    if not record.get("metrics", {}).keys() <= set(names):
        return record
    found = {}
    for key, value in record.items():
        if key in BY_TASK and isinstance(value, dict) and value.keys() == set(names):
            value = [value[n] for n in names]
        elif key == "metrics":
            value = _by_metric(value, names)
        elif key == "cosines" and (upper := _upper(value, len(names))) is not None:
            key, value = UPPER, upper
        found[key] = value
    return found


def _by_metric(metrics: dict[str, dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    found = {}
    for metric in dict.fromkeys(m for of_task in metrics.values() for m in of_task):
        tasks = [i for i, n in enumerate(names) if metric in metrics.get(n, ())]
        values = [metrics[names[i]][metric] for i in tasks]
        found[metric] = values if len(tasks) == len(names) else {"tasks": tasks, "values": values}
    return found


def _upper(cosines: Any, count: int) -> Any:
    """The upper triangles of [..., K, K] as [..., K (K + 1) / 2]; None where a matrix is not symmetric."""
    matrices = np.array(cosines, float)
    symmetric = matrices.ndim >= 2 and matrices.shape[-2:] == (count, count)
    if not symmetric or not np.array_equal(matrices, np.swapaxes(matrices, -1, -2), equal_nan=True):
        return None
    return _plain(matrices[(..., *np.triu_indices(count))])


def _full(upper: Any, count: int) -> Any:
    """[..., K, K] of what `_upper` made."""
    values, (rows, columns) = np.array(upper, float), np.triu_indices(count)
    matrices = np.empty((*values.shape[:-1], count, count))
    matrices[..., rows, columns] = matrices[..., columns, rows] = values
    return _plain(matrices)


def _plain(x: np.ndarray) -> Any:
    return np.where(np.isnan(x), None, x.astype(object)).tolist()  # type: ignore[call-overload]  # None, as an entry


def expanded(line: dict, names: Sequence[str] | None, where: str) -> dict:
    """The record of a line, values named by their task; a line that names them already comes back as it is.

    Args:
      line: an object.
      names: of the last line of names, or None.
      where: begins the error.

    Raises:
      ValueError: if values stand in an order that no line before it names, or are not as many.
    """
    ordered = [k for k in BY_TASK if isinstance(line.get(k), list)]
    if not ordered:
        return line
    if names is None:
        raise ValueError(f"{where} is damaged: its field {ordered[0]!r} is a list, and no line before names the tasks")
    found = {}
    try:
        for key, value in line.items():
            if key in ordered:
                value = dict(zip(names, value, strict=True))
            elif key == "metrics":
                value = _by_task(value, names)
            elif key == UPPER:
                key, value = "cosines", _full(value, len(names))
            found[key] = value
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{where} is damaged: it does not hold a value for each of {len(names)} tasks") from error
    return found


def _by_task(metrics: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {n: {} for n in names}
    for metric, values in metrics.items():
        tasks = range(len(names)) if isinstance(values, list) else values["tasks"]
        values = values if isinstance(values, list) else values["values"]
        for i, value in zip(tasks, values, strict=True):
            found[names[i]][metric] = value
    return found

"""What a user says beside the labels: weights of rows, and which labels stand for a missing one."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from mtl_jax import parts


def by_task(given: Any, tasks: Iterable[str], what: str) -> dict[str, Any]:
    """{task: what is given for it}, of a mapping, or of one thing for all tasks; {} for None.

    Raises:
      ValueError: for a task that is not there.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(tasks, given)
    for task in given:
        if task not in tasks:
            raise parts.unknown(f"task in {what}", task, list(tasks))
    return dict(given)


def read_weights(given: Any, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """{task: float32 [N]} of the tasks that have weights; None where none has. `data.checks` checks the numbers.

    Raises:
      ValueError: for what is no number, or not one a row.
    """
    found = {}
    for task, weights in by_task(given, labels, "weights").items():
        weights = np.asarray(weights)
        if weights.dtype.kind not in "fiub" or weights.shape != labels[task].shape[:1]:
            raise ValueError(f"task {task!r}: weights are {weights.dtype} {weights.shape}; they must be numbers, one "
                             f"for each of {len(labels[task])} rows")  # fmt: skip
        found[task] = weights.astype(np.float32)
    return found or None


def stands_for_missing(values: Shaped[np.ndarray, "..."], codes: Any) -> Bool[np.ndarray, "..."]:
    """Where labels are one of `codes`, a value or several."""
    codes = list(codes) if isinstance(codes, list | tuple | set | np.ndarray) else [codes]
    found = np.zeros(values.shape, bool)
    for code in codes:
        # Text is no number: "-1" does not stand for -1.
        if isinstance(code, str) == (values.dtype.kind in "US") or values.dtype == object:
            found |= np.asarray(values == code, bool)
    return found

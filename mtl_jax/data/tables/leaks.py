"""Columns that say the target in other words: one-to-one with its classes, or rising and falling strictly with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax.data.tables.types import ENOUGH, Column

SAMPLE = 1000  # rows that a column must agree with before all are looked at


def find_leaks(inputs: Mapping[str, Column], targets: Mapping[str, Column]) -> list[tuple[str, str, str]]:
    """(input, target, what was seen) of every input that is a function of a target, and the other way round."""
    found = []
    for task, target in targets.items():
        if target.distinct < 2 or len(target.values) - target.missing < ENOUGH:
            continue
        wanted = target.values
        for name, column in inputs.items():
            if column.distinct < 2 or len(column.values) - column.missing < ENOUGH:
                continue
            if column.distinct == target.distinct and column.distinct <= 0.5 * len(wanted):
                if _one_to_one(column.values, wanted):
                    found.append((name, task, "each of its values goes with one of the target's"))
                    continue
            both = column.values.dtype.is_float() and wanted.dtype.is_float()
            if both and target.distinct > ENOUGH and _monotone(column.values.to_numpy(), wanted.to_numpy()):
                found.append((name, task, "it rises or falls strictly with the target"))
    return found


def _one_to_one(values: Any, target: Any) -> bool:
    import polars as pl

    frame = pl.DataFrame({"a": values, "b": target}).drop_nulls()
    if len(frame) < ENOUGH or frame.head(SAMPLE).unique().height > frame.head(SAMPLE)["a"].n_unique():
        return False
    pairs = frame.unique()
    return pairs.height == pairs["a"].n_unique() == pairs["b"].n_unique() and pairs.height > 1


def _monotone(values: np.ndarray, target: np.ndarray) -> bool:
    for rows in (slice(0, SAMPLE), slice(None)):
        x, y = values[rows], target[rows]
        there = ~(np.isnan(x) | np.isnan(y))
        order = np.argsort(x[there], kind="stable")
        x, y = np.diff(x[there][order]), np.diff(y[there][order])
        if len(x) < ENOUGH or not (((x > 0) == (y > 0)).all() and (y >= 0).all() or
                                   ((x > 0) == (y < 0)).all() and (y <= 0).all()):  # fmt: skip
            return False
    return True

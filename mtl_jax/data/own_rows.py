"""Tasks with rows of their own (schools with pupils, people with ratings): which are held out, and splits of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mtl_jax.batch import Batch, PerTask


def check_share(data_set: str, val: Any) -> None:
    """An error for a `val` that is no share of the training rows."""
    if isinstance(val, bool) or not isinstance(val, int | float | np.number) or not 0 <= val < 1:
        raise ValueError(f"data set {data_set!r}: val={val!r} must be a share of each task's training rows in [0, 1)")


def held_out_of_each(task: Int[np.ndarray, " row"], share: float, seed: int) -> Bool[np.ndarray, " row"]:
    """Which rows are held out: of every task its share, at least one row and never all; none for a share of 0.

    Args:
      task: the number of each row's task. What is drawn of a task depends on its number, its rows and the seed only.
      share: in [0, 1).
      seed: of the draws.
    """
    held = np.zeros(len(task), bool)
    for number in np.unique(task) if share else ():
        rows = np.flatnonzero(task == number)
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        held[np.random.default_rng([seed, number]).permutation(rows)[:count]] = True
    return held


def split_of(
    x: Float[np.ndarray, "row column"], y: Float[np.ndarray, " row"], rows: Mapping[str, Int[np.ndarray, " own"]]
) -> Batch:
    """A split, all labels there, in which each task has the rows of x and y that `rows` names."""
    return Batch(
        PerTask({t: x[r] for t, r in rows.items()}),
        {t: y[r] for t, r in rows.items()},
        {t: np.ones(len(r), bool) for t, r in rows.items()},
    )

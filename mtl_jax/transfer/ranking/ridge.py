"""A ridge probe: a linear model on the features, fitted in closed form and told by each row that it left out."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.nearest import r2
from mtl_jax.transfer.ranking.read import Features, one_hot, read_features, read_labels, read_targets

PENALTIES = 10.0 ** np.arange(-7, 3)  # of the largest eigenvalue of the features' scatter


def ridge(features: Features, targets: Any, *, classes: bool = True) -> float:
    """Leave-one-out accuracy of a ridge regression to +-1 for each class, or of numbers its R^2 (mean over columns).

    Rows are centred, with an intercept; the penalty is the one, of ten, whose leave-one-out error is least. Each
    row's prediction without it follows from the fit to all, (p - h y) / (1 - h), with its leverage h.

    Args:
      features: [N, D].
      targets: classes [N], or numbers [N] or [N, K].
      classes: whether targets are classes.
    """
    found = read_features(features)
    if classes:
        codes, count = read_labels(targets, len(found))
        y = 2 * one_hot(codes, count) - 1
    else:
        y = read_targets(targets, len(found))
    predicted = leave_one_out(found, y)
    return float((predicted.argmax(1) == codes).mean()) if classes else r2(y, predicted)


def leave_one_out(features: Features, y: Float[np.ndarray, "row target"]) -> Float[np.ndarray, "row target"]:
    """Each row's prediction by the ridge regression on all others, at the penalty that is best so."""
    rows = len(features)
    if rows < 3:
        raise ValueError(f"{rows} rows are too few to leave one out")
    mean = y.mean(0)
    left, spread, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    if not spread[0] > 0:
        raise ValueError("the features of all rows are the same")
    along = left.T @ (y - mean)
    best, found = np.inf, y
    for penalty in PENALTIES * spread[0] ** 2:
        kept = spread**2 / (spread**2 + penalty)
        fitted = mean + left @ (kept[:, None] * along)
        leverage = 1 / rows + (left**2 @ kept)
        without = (fitted - leverage[:, None] * y) / np.maximum(1 - leverage, 1e-9)[:, None]
        error = float(((y - without) ** 2).mean())
        if error < best:
            best, found = error, without
    return found

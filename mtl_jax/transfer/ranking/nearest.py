"""k nearest neighbours, each row told by the others: the simplest question to ask of features."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.read import Features, read_features, read_labels, read_targets

CHUNK = 1024  # rows whose distances are held at once


def knn(features: Features, targets: Any, *, k: int = 5, classes: bool = True) -> float:
    """Leave-one-out accuracy of the k nearest rows, or of numbers their R^2 (mean over columns).

    Distances are Euclidean, so that rotations and columns of zeros change nothing. A tie between classes goes to the
    one whose first neighbour is nearer.

    Args:
      features: [N, D].
      targets: classes [N], or numbers [N] or [N, K].
      k: neighbours, fewer than rows.
      classes: whether targets are classes.
    """
    found = read_features(features)
    if not 1 <= k < len(found):
        raise ValueError(f"k={k} neighbours of {len(found)} rows; give at least 1 and fewer than there are rows")
    near = neighbours(found, k)
    if classes:
        codes, count = read_labels(targets, len(found))
        votes = codes[near]
        # A vote and, below one vote, a bonus that is larger the nearer the first of a class is.
        weight = np.zeros((len(found), count))
        rows = np.arange(len(found))
        for rank in reversed(range(k)):
            weight[rows, votes[:, rank]] += 1
        first = np.full((len(found), count), k)
        for rank in reversed(range(k)):
            first[rows, votes[:, rank]] = rank
        return float(((weight - first / (k + 1)).argmax(1) == codes).mean())
    y = read_targets(targets, len(found))
    return r2(y, y[near].mean(1))


def neighbours(features: Features, k: int) -> Any:
    """[N, k] row numbers of each row's nearest others, the nearest first; of equals the one that stands first."""
    lengths = (features**2).sum(1)
    found = []
    for start in range(0, len(features), CHUNK):
        rows = slice(start, min(start + CHUNK, len(features)))
        distance = lengths[rows, None] - 2 * features[rows] @ features.T + lengths
        distance[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
        found.append(np.argsort(distance, 1, kind="stable")[:, :k])
    return np.concatenate(found)


def r2(y: Float[np.ndarray, "row target"], predicted: Float[np.ndarray, "row target"]) -> float:
    """1 - squared error over that of the mean, the mean over columns that vary."""
    total = ((y - y.mean(0)) ** 2).sum(0)
    varies = total > 0
    if not varies.any():
        raise ValueError("every target is the same; there is nothing to explain")
    return float((1 - ((y - predicted) ** 2).sum(0)[varies] / total[varies]).mean())

"""Split-conformal prediction: regions that hold a new label with a chosen probability, whatever the model.

Scores say how far labels of held-out rows lie from what was predicted; a region is all that lies no further than the
ceil((n + 1) * coverage)-th smallest of n scores (Vovk et al. 2005; Lei et al., JASA 2018, arXiv:1604.04173). The
promise is about rows that are drawn as the held-out ones were, on average over them; it says nothing of a population
that has shifted.

- numbers: |y - prediction|, per entry of a vector.
- quantiles: max(lowest - y, y - highest), which widens or narrows the model's own interval (CQR; Romano, Patterson and
  Candes, NeurIPS 2019, arXiv:1905.03222).
- classes: 1 - p(label): the smallest sets on average (Sadinle, Lei and Wasserman, JASA 2019, arXiv:1609.00451). The
  likeliest class is always in, so that no set is empty.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mtl_jax.batch import effective_rows

SLACK = 1e-6  # of a class's score, some units of float32's last digit
KEPT = 10_000  # scores that are kept of more: every one that a threshold of four digits could ask for


class Interval(NamedTuple):
    """Where numbers lie, in the target's units: float64 [N] or [N, size]; infinite where labels were too few."""

    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def kept(
    scores: Float[np.ndarray, " rows"], weights: Float[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " kept"]:
    """The scores in order; of very many, evenly spaced ones with the largest.

    Of rows that count differently, their quantiles by weight, `batch.effective_rows` of them.
    """
    order = np.argsort(scores)
    ordered = np.asarray(scores, np.float64)[order]
    if weights is not None and len(weights) and not (weights == weights[0]).all():
        passed = np.cumsum(weights[order] / weights.sum())
        count = min(KEPT, math.floor(effective_rows(weights) + 1e-9))
        levels = np.arange(1, count + 1) / count
        return ordered[np.minimum(np.searchsorted(passed, levels - 1e-12), len(ordered) - 1)]
    if len(ordered) <= KEPT:
        return ordered
    return ordered[np.ceil(np.arange(1, KEPT + 1) * len(ordered) / KEPT).astype(int) - 1]


def threshold(scores: Float[np.ndarray, " kept"], coverage: float) -> float:
    """The score that a region ends at; infinite where there are too few scores to promise `coverage`."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def fewest(coverage: float) -> int:
    """How many labels a promise of `coverage` needs."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def interval(values: Float[np.ndarray, "..."], width: float | Float[np.ndarray, " size"]) -> Interval:
    """`width` to either side of predictions."""
    values = np.asarray(values, np.float64)
    return Interval(values - width, values + width)


def quantile_interval(quantiles: Float[np.ndarray, "rows quantiles"], width: float) -> Interval:
    """The outermost quantiles, moved outward by `width`; where that crosses them, both are their middle."""
    low, high = np.asarray(quantiles[:, 0], np.float64) - width, np.asarray(quantiles[:, -1], np.float64) + width
    middle = (low + high) / 2
    return Interval(np.where(low > high, middle, low), np.where(low > high, middle, high))


def class_scores(
    probabilities: Float[np.ndarray, "rows classes"], labels: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """1 - p(label)."""
    return 1 - probabilities[np.arange(len(labels)), labels]


def class_set(probabilities: Float[np.ndarray, "*rows classes"], limit: float) -> Bool[np.ndarray, "*rows classes"]:
    """Which classes are in: those of score at most `limit`, and the likeliest.

    Rows that are predicted alike have one score, which the limit may be: a last digit that differs, as programs for
    other numbers of rows may have it, must not leave them out.
    """
    best = probabilities == probabilities.max(-1, keepdims=True)
    return (1 - probabilities <= limit + SLACK) | best

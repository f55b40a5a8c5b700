"""Exact areas under the ROC and the precision-recall curve, from sorted scores.

No binning: a state keeps every row's score and label, so ties and order are those of the whole split. The cost is one
sort per label, O(N log N). Counts are int32; ranks enter sums only as fractions, since float32 stops counting at 2^24.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from mtl_jax.metrics.base import Metric, Weights, check_same_shape, expand, macro, number, ratio, wide


class Scored(NamedTuple):
    """Rows with their scores; a trailing label axis where the task is multi-label.

    Attributes:
      scores: [row] or [row, label] float; any increasing function of the probability will do, such as the logit.
      positive: bool, same shape; True where the label is 1.
      each: how many rows a row counts for, same shape: int32, 0 where there is no label; or its weight in float32.
    """

    scores: Array
    positive: Array
    each: Array


def auroc() -> Metric:
    """Area under the ROC curve of a binary or multi-label task, exact; see `roc_area`."""
    return _curve_metric("auroc", roc_area)


def average_precision() -> Metric:
    """Average precision of a binary or multi-label task, exact; see `precision_area`."""
    return _curve_metric("average_precision", precision_area)


def _curve_metric(name: str, area: Callable) -> Metric:
    def measure(
        outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."], weights: Weights = None
    ) -> Scored:
        check_same_shape(name, outputs, targets)
        each = number(expand(mask, targets), weights)
        return Scored(jnp.where(each > 0, wide(outputs), 0), targets > 0.5, each)

    def merge(states: Scored) -> Scored:
        # Rows of several batches [batch, row, ...] are one long batch [batch * row, ...].
        return jax.tree.map(lambda rows: rows.reshape((-1, *rows.shape[2:])), states)

    return Metric(name, measure, merge, lambda state: macro(*area(state)), True, True)


def roc_area(state: Scored) -> tuple[Float[Array, "*label"], Bool[Array, "*label"]]:
    """Area under the ROC curve, and whether it is defined: there are positives and negatives.

    The probability that a positive scores above a negative, ties counting half: the Mann-Whitney statistic (Hanley and
    McNeil, "The meaning and use of the area under a ROC curve", 1982).
    """

    def area(scores, positive, each):
        positive, negative = jnp.where(positive, each, 0), jnp.where(positive, 0, each)
        positives, negatives = _count(positive), _count(negative)
        won = _mean(ratio(_below(scores, negative), negatives), positive)
        lost = _mean(ratio(_below(scores, positive), positives), negative)
        return 0.5 + 0.5 * (won - lost), (positives > 0) & (negatives > 0)

    return _per_label(area, state)


def precision_area(state: Scored) -> tuple[Float[Array, "*label"], Bool[Array, "*label"]]:
    """Mean over the positives of the precision at their score, and whether it is defined: there are positives.

    The sum over thresholds of (recall_n - recall_{n-1}) precision_n, without interpolation, as scikit-learn's
    `average_precision_score`; rows of equal score pass the threshold together.
    """

    def area(scores, positive, each):
        positive = jnp.where(positive, each, 0)
        found = _count(positive) - _below(scores, positive)
        taken = _count(each) - _below(scores, each)
        return _mean(ratio(found, taken), positive), _count(positive) > 0

    return _per_label(area, state)


def _per_label(curve: Callable, state: Scored):
    """Runs `curve` on rows sorted by score, for each label; a labelled nan makes the value nan, not the best score."""

    def one(state: Scored):
        value, defined = curve(*jax.lax.sort(state, num_keys=1))
        return jnp.where(jnp.isnan(state.scores).any(), jnp.nan, value), defined

    return one(state) if state.scores.ndim == 1 else jax.vmap(one, in_axes=1)(state)


def _below(scores: Float[Array, " row"], each: Num[Array, " row"]) -> Num[Array, " row"]:
    """For each row, how many rows score strictly lower; rows are sorted by score, and count for `each`."""
    before = jnp.cumsum(each, dtype=each.dtype)
    before = jnp.concatenate([jnp.zeros((1,), each.dtype), before[:-1]])
    first = jnp.concatenate([jnp.ones((1,), bool), scores[1:] != scores[:-1]])
    # Rows of a tie share the count at its first row; counts only grow, so the running maximum carries it along.
    return jax.lax.cummax(jnp.where(first, before, 0))


def _count(each: Num[Array, " row"]) -> Num[Array, ""]:
    return each.sum(dtype=each.dtype)


def _mean(values: Float[Array, " row"], each: Num[Array, " row"]) -> Float[Array, ""]:
    if each.dtype == jnp.int32:
        return jnp.where(each > 0, values, 0).sum() / jnp.maximum(_count(each), 1).astype(values.dtype)
    return ratio((values * each).sum(), _count(each))

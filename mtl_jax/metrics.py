"""Metrics as mergeable pytrees, computed inside the compiled step: batches add up to the metric of the whole split.

A metric of a split is ``compute(merge(states))``, where `states` are those of equal padded batches, stacked by
`jax.lax.map`. Rows without a label count for nothing, whatever they hold. Several labels or target dimensions are
averaged over those for which the metric is defined (macro); a metric that is defined for none is nan. A nan output of a
labelled row counts as wrong in metrics that count, and makes the others nan. Counts are int32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, Shaped

from mtl_jax import metrics_ranking


class Metric(NamedTuple):
    """How a metric is measured on batches, merged and computed.

    Outputs are logits (classification [N, classes], binary [N], multi-label [N, labels]) or regression values in the
    target's own units ([N] or [N, dims]); targets and masks are as in `batch.Batch`.

    Attributes:
      name: as reported.
      measure: (outputs, targets, mask) -> state of one batch, a pytree of arrays.
      merge: states stacked along a new leading axis -> one state.
      compute: state -> scalar, nan where undefined.
      higher_is_better: direction, for Delta_m.
    """

    name: str
    measure: Callable[[Array, Array, Array], Any]
    merge: Callable[[Any], Any]
    compute: Callable[[Any], Array]
    higher_is_better: bool


class Mean(NamedTuple):
    """Sum over rows and number of rows; shape [], or [label] or [dim]."""

    total: Array
    count: Array  # int32


class Confusion(NamedTuple):
    """Numbers of rows per class (multi-label: per label), int32 [class]."""

    hit: Array  # in the class and predicted so
    predicted: Array
    actual: Array


class Variation(NamedTuple):
    """Errors and targets of a regression; shape [] or [dim]."""

    count: Array  # int32
    low: Array  # the smallest target, 0 where there is none
    offset: Array  # mean of target - low
    target_ss: Array  # sum of squares of the targets about their mean
    error_ss: Array  # sum of squared errors


def _add(states: Any) -> Any:
    return jax.tree.map(lambda s: s.sum(0, dtype=s.dtype), states)


def accuracy() -> Metric:
    """Fraction of labels predicted right: by the largest logit, or by the sign of a binary or multi-label logit."""

    def right(outputs: Float[Array, "..."], targets: Num[Array, "..."]) -> Bool[Array, "..."]:
        if _is_classification(outputs, targets):
            return _in_top(outputs, targets, 1)
        return jnp.where(targets > 0.5, outputs > 0, outputs <= 0)

    return _mean_metric("accuracy", right, True)


def top_k(k: int = 5) -> Metric:
    """Fraction of rows whose class is among the k largest logits, for classification; reported as ``top_5``.

    Of equal logits the lower class goes first, as in `jax.lax.top_k`, so that k = 1 is the accuracy.

    Raises:
      ValueError: if k is not 1, 2, ...; when measured, if the task is no classification or has no more than k classes.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"top_k: k={k!r} must be an integer of at least 1")

    def right(outputs: Float[Array, "*row classes"], targets: Num[Array, "..."]) -> Bool[Array, "*row"]:
        if not _is_classification(outputs, targets) or outputs.shape[-1] <= k:
            raise ValueError(f"top_{k} is for classification with more than {k} classes, not outputs {outputs.shape}")
        return _in_top(outputs, targets, k)

    return _mean_metric(f"top_{k}", right, True)


def macro_f1() -> Metric:
    """Mean of F1 = 2 hit / (predicted + actual) over the classes that occur among targets or predictions.

    As scikit-learn's ``f1_score(average="macro")``. A binary task has two classes; the labels of a multi-label task are
    its classes, and one that neither occurs nor is predicted is left out.
    """

    def measure(outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."]) -> Confusion:
        if _is_classification(outputs, targets):
            known = ~jnp.isnan(outputs).any(-1, keepdims=True)  # a row with nan predicts no class
            predicted = jax.nn.one_hot(outputs.argmax(-1), outputs.shape[-1], dtype=bool) & known
            actual = jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
        else:
            predicted, actual = outputs > 0, targets > 0.5
            if targets.ndim == 1:
                predicted = jnp.stack([outputs <= 0, predicted], axis=-1)
                actual = jnp.stack([~actual, actual], axis=-1)
        labelled = _expand(mask, actual)
        counted = (rows & labelled for rows in (predicted & actual, predicted, actual))
        return Confusion(*(rows.sum(tuple(range(rows.ndim - 1)), dtype=jnp.int32) for rows in counted))

    def compute(state: Confusion) -> Float[Array, ""]:
        hit, predicted, actual = (n.astype(jnp.float32) for n in state)  # the sum of two could pass int32
        either = predicted + actual
        return _macro(2 * hit / jnp.maximum(either, 1), either > 0)

    return Metric("macro_f1", measure, _add, compute, True)


def auroc() -> Metric:
    """Area under the ROC curve of a binary or multi-label task, exact; see `metrics_ranking.roc_area`."""
    return _ranking_metric("auroc", metrics_ranking.roc_area)


def average_precision() -> Metric:
    """Average precision of a binary or multi-label task, exact; see `metrics_ranking.average_precision`."""
    return _ranking_metric("average_precision", metrics_ranking.average_precision)


def mae() -> Metric:
    """Mean absolute error, in the target's units."""
    return _error_metric("mae", jnp.abs)


def rmse() -> Metric:
    """Root of the mean squared error, in the target's units; of a vector, the mean over its dims of their roots."""
    return _error_metric("rmse", jnp.square, jnp.sqrt)


def r2() -> Metric:
    """Coefficient of determination, 1 - error_ss / target_ss; undefined for fewer than two rows or constant targets.

    Sums of squares about each batch's mean are merged by the rule of Chan, Golub and LeVeque ("Algorithms for
    computing the sample variance", 1983), with means kept relative to the smallest target: targets of 10000 +- 1 lose
    nothing in float32, and constant targets have a sum of squares of exactly 0.
    """

    def merge(states: Variation) -> Variation:
        count, seen = states.count.sum(0, dtype=jnp.int32), states.count > 0
        low = jnp.where(count > 0, jnp.where(seen, states.low, jnp.inf).min(0), 0)
        offsets = jnp.where(seen, states.low - low + states.offset, 0)
        rows = states.count.astype(offsets.dtype)
        offset = (rows * offsets).sum(0) / jnp.maximum(count, 1).astype(offsets.dtype)
        between = jnp.where(seen, rows * (offsets - offset) ** 2, 0)
        return Variation(count, low, offset, (states.target_ss + between).sum(0), states.error_ss.sum(0))

    def measure(outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."]) -> Variation:
        _check_same_shape("r2", outputs, targets)
        outputs, targets, mask = _wide(outputs), _wide(targets), _expand(mask, targets)
        none, squares = jnp.zeros_like(targets), jnp.where(mask, (outputs - targets) ** 2, 0)
        return merge(Variation(mask.astype(jnp.int32), targets, none, none, squares))  # each row is a batch of one

    def compute(state: Variation) -> Float[Array, ""]:
        defined = (state.count > 1) & (state.target_ss != 0)
        return _macro(1 - state.error_ss / jnp.where(defined, state.target_ss, 1), defined)

    return Metric("r2", measure, merge, compute, True)


def _mean_metric(name: str, values: Callable, higher_is_better: bool, finish: Callable = lambda mean: mean) -> Metric:
    """`finish` of the mean over rows of ``values(outputs, targets)``, for each label or dim, averaged over these."""

    def measure(outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."]) -> Mean:
        mask, found = _expand(mask, targets), values(_wide(outputs), targets)
        if _is_classification(outputs, targets):  # rows may be tokens or pixels
            mask, found = mask.reshape(-1), found.reshape(-1)
        dtype = jnp.int32 if found.dtype == bool else found.dtype
        return Mean(found.sum(0, dtype=dtype, where=mask), mask.sum(0, dtype=jnp.int32))

    def compute(state: Mean) -> Float[Array, ""]:
        return _macro(finish(_wide(state.total) / _wide(jnp.maximum(state.count, 1))), state.count > 0)

    return Metric(name, measure, _add, compute, higher_is_better)


def _error_metric(name: str, cost: Callable, finish: Callable = lambda mean: mean) -> Metric:
    def values(outputs, targets):
        _check_same_shape(name, outputs, targets)
        return cost(outputs - targets)

    return _mean_metric(name, values, False, finish)


def _ranking_metric(name: str, area: Callable) -> Metric:
    def measure(outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."]) -> Any:
        _check_same_shape(name, outputs, targets)
        return metrics_ranking.measure(_wide(outputs), targets, _expand(mask, targets))

    return Metric(name, measure, metrics_ranking.merge, lambda state: _macro(*area(state)), True)


def _is_classification(outputs: Array, targets: Array) -> bool:
    """Whether outputs are [..., classes] for integer targets [...]; if not, they must have the targets' shape."""
    if outputs.shape[:-1] == targets.shape and jnp.issubdtype(targets.dtype, jnp.integer):
        return True
    _check_same_shape(f"a metric of {targets.dtype} targets", outputs, targets)
    return False


def _check_same_shape(name: str, outputs: Array, targets: Array) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(f"{name} needs outputs and targets of the same shape, not {outputs.shape} and {targets.shape}")


def _in_top(outputs: Float[Array, "*row classes"], targets: Num[Array, "*row"], k: int) -> Bool[Array, "*row"]:
    """Whether fewer than k classes come before the target's; nan comes before everything, so it is never right."""
    target = targets[..., None]
    own = jnp.take_along_axis(outputs, target, axis=-1)
    behind = (outputs < own) | ((outputs == own) & (jnp.arange(outputs.shape[-1], dtype=target.dtype) >= target))
    return (~behind).sum(-1, dtype=jnp.int32) < k


def _expand(mask: Bool[Array, "..."], like: Shaped[Array, "..."]) -> Bool[Array, "..."]:
    """A mask whose shape is a prefix of `like`'s, in `like`'s shape."""
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim)), like.shape)


def _wide(values: Num[Array, "..."]) -> Float[Array, "..."]:
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def _macro(values: Float[Array, "*label"], defined: Bool[Array, "*label"]) -> Float[Array, ""]:
    """Mean of the defined values. Not nanmean, which would hide a label or dim whose outputs have become nan."""
    count = defined.sum(dtype=jnp.int32)
    mean = jnp.where(defined, values, 0).sum() / jnp.maximum(count, 1).astype(values.dtype)
    return jnp.where(count > 0, mean, jnp.nan)


NAMES: dict[str, Callable[..., Metric]] = {
    f.__name__: f for f in (accuracy, top_k, macro_f1, auroc, average_precision, mae, rmse, r2)
}

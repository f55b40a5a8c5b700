"""Metrics of classes and labels: accuracy, top-k, macro F1, and mean intersection over union of pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from mtl_jax.metrics import base
from mtl_jax.metrics.base import (
    Confusion,
    Metric,
    Weights,
    add,
    check_same_shape,
    expand,
    macro,
    mean_metric,
    number,
    ratio,
    total,
)


def accuracy() -> Metric:
    """Fraction of labels predicted right: by the largest logit, or by the sign of a binary or multi-label logit.

    Tokens and pixels count like rows, so that this is token accuracy and pixel accuracy too.
    """

    def right(outputs: Float[Array, "..."], targets: Num[Array, "..."]) -> Bool[Array, "..."]:
        if _check_classification(outputs, targets):
            return _in_top(outputs, targets, 1)
        return jnp.where(targets > 0.5, outputs > 0, outputs <= 0)

    return mean_metric("accuracy", right, True)


def top_k(k: int = 5) -> Metric:
    """Fraction of rows whose class is among the k largest logits, for classification; reported as ``top_5``.

    Of equal logits the lower class goes first, as in `jax.lax.top_k`, so that k = 1 is the accuracy.

    Raises:
      ValueError: if k is not 1, 2, ...; when measured, if the task is no classification or has no more than k classes.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"top_k: k={k!r} must be an integer of at least 1")

    def right(outputs: Float[Array, "*row classes"], targets: Num[Array, "..."]) -> Bool[Array, "*row"]:
        if not _check_classification(outputs, targets) or outputs.shape[-1] <= k:
            raise ValueError(f"top_{k} is for classification with more than {k} classes, not outputs {outputs.shape}")
        return _in_top(outputs, targets, k)

    return mean_metric(f"top_{k}", right, True)


def macro_f1() -> Metric:
    """Mean of F1 = 2 hit / (predicted + actual) over the classes that occur among targets or predictions.

    As scikit-learn's ``f1_score(average="macro")``. A binary task has two classes; the labels of a multi-label task are
    its classes, and one that neither occurs nor is predicted is left out.
    """

    def compute(state: Confusion) -> Float[Array, ""]:
        hit, predicted, actual = (n.astype(jnp.float32) for n in state)  # the sum of two could pass int32
        either = predicted + actual
        return macro(ratio(2 * hit, either), either > 0)

    return Metric("macro_f1", _confusion, add, compute, True, True)


def mean_iou() -> Metric:
    """Mean of intersection over union, hit / (predicted + actual - hit), over classes in targets or predictions.

    As scikit-learn's ``jaccard_score(average="macro")``. Counts are accumulated over all pixels of the split before
    any ratio is taken, as PASCAL VOC has it (Everingham et al., 2015); the mean of per-image values is another number.
    """

    def compute(state: Confusion) -> Float[Array, ""]:
        hit, predicted, actual = (n.astype(jnp.float32) for n in state)
        union = predicted + actual - hit
        return macro(ratio(hit, union), union > 0)

    return Metric("mean_iou", _confusion, add, compute, True, True)


def _confusion(
    outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."], weights: Weights = None
) -> Confusion:
    if _check_classification(outputs, targets):
        known = ~jnp.isnan(outputs).any(-1, keepdims=True)  # a row with nan predicts no class
        predicted = jax.nn.one_hot(outputs.argmax(-1), outputs.shape[-1], dtype=bool) & known
        actual = jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
    else:
        predicted, actual = outputs > 0, targets > 0.5
        if targets.ndim == 1:
            predicted = jnp.stack([outputs <= 0, predicted], axis=-1)
            actual = jnp.stack([~actual, actual], axis=-1)
    each = number(expand(mask, actual), weights)
    each = each.reshape(-1, each.shape[-1])
    return Confusion(*(total(rows.reshape(each.shape), each) for rows in (predicted & actual, predicted, actual)))


def _check_classification(outputs: Array, targets: Array) -> bool:
    """`base.is_classification`; if not, an error unless they have the same shape."""
    if base.is_classification(outputs, targets):
        return True
    check_same_shape(f"a metric of {targets.dtype} targets", outputs, targets)
    return False


def _in_top(outputs: Float[Array, "*row classes"], targets: Num[Array, "*row"], k: int) -> Bool[Array, "*row"]:
    """Whether fewer than k classes come before the target's; nan comes before everything, so it is never right."""
    target = targets[..., None]
    own = jnp.take_along_axis(outputs, target, axis=-1)
    behind = (outputs < own) | ((outputs == own) & (jnp.arange(outputs.shape[-1], dtype=target.dtype) >= target))
    return (~behind).sum(-1, dtype=jnp.int32) < k

"""Losses of classes and labels: cross-entropies and the hinge."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer, Num

from mtl_jax.losses.base import Loss, check, matched, wide


def cross_entropy(label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> Loss:
    """Softmax cross-entropy of logits [..., classes] and integer targets [...], in nats; losses have shape [...].

    Args:
      label_smoothing: a in [0, 1); the target distribution is (1 - a) one_hot + a / classes (Szegedy et al.,
        "Rethinking the Inception Architecture", 2016, section 7).
      class_weights: one factor >= 0 per class; an example's loss is multiplied by the factor of its target class.

    Raises:
      ValueError: for a value outside its range; when called, if there is not one weight per class.
    """
    check("label_smoothing", label_smoothing, "in [0, 1)")
    weights = None if class_weights is None else tuple(class_weights)
    for weight in weights or ():
        check("class_weights", weight, ">= 0")
    if weights is not None and not any(weights):
        raise ValueError(f"class_weights={weights!r} must hold at least one factor above 0")

    def loss(outputs: Float[Array, "*row classes"], targets: Integer[Array, "..."]) -> Float[Array, "*row"]:
        if outputs.shape[:-1] != targets.shape:
            raise ValueError(f"cross_entropy: targets {targets.shape} do not fit logits {outputs.shape} [..., classes]")
        outputs = outputs.astype(wide(outputs))
        if label_smoothing:
            one_hot = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
            values = optax.losses.softmax_cross_entropy(outputs, optax.losses.smooth_labels(one_hot, label_smoothing))
        else:
            values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
        if weights is None:
            return values
        if len(weights) != outputs.shape[-1]:
            raise ValueError(f"class_weights has {len(weights)} entries, but there are {outputs.shape[-1]} classes")
        return values * jnp.asarray(weights, values.dtype)[targets]

    return loss


def binary_cross_entropy(label_smoothing: float = 0.0, pos_weight: float | Sequence[float] | None = None) -> Loss:
    """Sigmoid cross-entropy of logits and targets in [0, 1] of the same shape, in nats.

    With p the sigmoid of the logit and t the smoothed target, -(pos_weight t log p + (1 - t) log(1 - p)).

    Args:
      label_smoothing: a in [0, 1); t = (1 - a) target + a / 2.
      pos_weight: a factor > 0, or one per label (the last axis of a multi-label task).

    Raises:
      ValueError: for a value outside its range; when called, for outputs and targets of different shapes, or if there
        is not one weight per label.
    """
    check("label_smoothing", label_smoothing, "in [0, 1)")
    per_label = pos_weight is not None and not isinstance(pos_weight, Real)
    weight: Any = 1.0 if pos_weight is None else pos_weight
    weight = tuple(weight) if per_label else weight
    for factor in weight if per_label else (weight,):
        check("pos_weight", factor, "above 0")

    def loss(outputs: Float[Array, "*row"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        outputs, targets = matched("binary_cross_entropy", outputs, targets)
        if per_label and (outputs.ndim < 2 or len(weight) != outputs.shape[-1]):
            labels = outputs.shape[-1] if outputs.ndim > 1 else "no"
            raise ValueError(f"pos_weight has {len(weight)} entries, but outputs {outputs.shape} have {labels} labels")
        targets = (1 - label_smoothing) * targets + label_smoothing / 2
        cost = optax.losses.sigmoid_binary_cross_entropy
        if pos_weight is None:
            return cost(outputs, targets)
        positive, negative = cost(outputs, jnp.ones_like(outputs)), cost(outputs, jnp.zeros_like(outputs))
        return jnp.asarray(weight, outputs.dtype) * targets * positive + (1 - targets) * negative

    return loss


def hinge() -> Loss:
    """max(0, 1 - y output) with y = 2 target - 1, for binary logits and targets 0 or 1 of the same shape."""

    def loss(outputs: Float[Array, "*row"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        outputs, targets = matched("hinge", outputs, targets)
        return optax.losses.hinge_loss(outputs, 2 * targets - 1)

    return loss

"""Metrics of numbers: mean absolute and relative errors, root mean squared error, R2; of depth, over all pixels."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from mtl_jax.metrics.base import (
    Mean,
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
    wide,
)


class Variation(NamedTuple):
    """Errors and targets of a regression; shape [] or [dim]."""

    # int32, or sums of weights
    count: Array  # type: ignore[assignment]  # a tuple's method goes by this name too
    low: Array  # the smallest target, 0 where there is none
    offset: Array  # mean of target - low
    target_ss: Array  # sum of squares of the targets about their mean
    error_ss: Array  # sum of squared errors


def mae() -> Metric:
    """Mean absolute error, in the target's units."""
    return _error_metric("mae", jnp.abs)


def rmse() -> Metric:
    """Root of the mean squared error, in the target's units; of a vector, the mean over its dims of their roots."""
    return _error_metric("rmse", jnp.square, jnp.sqrt)


def abs_rel(origin: tuple[float, ...] = ()) -> Metric:
    """Mean of |output - target| / target over labelled elements whose target is above 0 (Eigen et al., 2014).

    All pixels of a split count alike; the mean of per-image values is another number.

    Args:
      origin: what outputs and targets are relative to (`scaler.Scaler`): one number, or one per dimension; () for 0. It
        enters the divisor alone, as the difference would lose digits in float32.
    """

    def measure(
        outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."], weights: Weights = None
    ) -> Mean:
        check_same_shape("abs_rel", outputs, targets)
        own = targets if not origin else targets + jnp.asarray(origin[0] if len(origin) == 1 else origin, jnp.float32)
        counted = expand(mask, targets) & (own > 0)
        relative = jnp.abs(wide(outputs) - targets) / jnp.where(counted, own, 1)
        each = number(counted, weights).ravel()
        return Mean(total(relative.ravel(), each), each.sum(dtype=each.dtype))

    def compute(state: Mean) -> Float[Array, ""]:
        return macro(ratio(state.total, state.count), state.count > 0)

    return Metric("abs_rel", measure, add, compute, False, True)


def r2() -> Metric:
    """Coefficient of determination, 1 - error_ss / target_ss; undefined for fewer than two rows or constant targets.

    Sums of squares about each batch's mean are merged by the rule of Chan, Golub and LeVeque ("Algorithms for
    computing the sample variance", 1983), with means kept relative to the smallest target: targets of 10000 +- 1 lose
    nothing in float32, and constant targets have a sum of squares of exactly 0.
    """

    def merge(states: Variation) -> Variation:
        count, seen = states.count.sum(0, dtype=states.count.dtype), states.count > 0
        low = jnp.where(count > 0, jnp.where(seen, states.low, jnp.inf).min(0), 0)
        offsets = jnp.where(seen, states.low - low + states.offset, 0)
        rows = states.count.astype(offsets.dtype)
        offset = ratio((rows * offsets).sum(0), count).astype(offsets.dtype)
        between = jnp.where(seen, rows * (offsets - offset) ** 2, 0)
        return Variation(count, low, offset, (states.target_ss + between).sum(0), states.error_ss.sum(0))

    def measure(
        outputs: Float[Array, "..."], targets: Num[Array, "..."], mask: Bool[Array, "..."], weights: Weights = None
    ) -> Variation:
        check_same_shape("r2", outputs, targets)
        outputs, targets, each = wide(outputs), wide(targets), number(expand(mask, targets), weights)
        if targets.ndim > 2:  # every pixel is a row
            outputs, targets, each = outputs.reshape(-1), targets.reshape(-1), each.reshape(-1)
        none, squares = jnp.zeros_like(targets), jnp.where(each > 0, (outputs - targets) ** 2 * each, 0)
        return merge(Variation(each, targets, none, none, squares))  # each row is a batch of one

    def compute(state: Variation) -> Float[Array, ""]:
        defined = state.target_ss != 0  # of one row it is 0
        return macro(1 - state.error_ss / jnp.where(defined, state.target_ss, 1), defined)

    return Metric("r2", measure, merge, compute, True, True)


def _error_metric(name: str, cost: Callable, finish: Callable = lambda mean: mean) -> Metric:
    def values(outputs, targets):
        check_same_shape(name, outputs, targets)
        return cost(outputs - targets)

    return mean_metric(name, values, False, finish)

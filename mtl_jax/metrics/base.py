"""What a metric is, and what several of them share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, Shaped

from mtl_jax.batch import aligned


class Metric(NamedTuple):
    """How a metric is measured on batches, merged and computed.

    Outputs are as `predictions.readable` gives them: logits, scores, or values in the target's own units. Targets and
    masks are as in `batch.Batch`; a mask's shape is a prefix of the target's.

    Attributes:
      name: as reported.
      measure: (outputs, targets, mask) -> state of one batch, a pytree of arrays; (outputs, targets, mask, weights)
        too, if it is `weighted`.
      merge: states stacked along a new leading axis -> one state.
      compute: state -> scalar, nan where undefined.
      higher_is_better: direction, for Delta_m.
      weighted: whether `measure` takes weights [row] as well, by which a row of weight 2 counts as two rows.
    """

    name: str
    measure: Callable[..., Any]
    merge: Callable[[Any], Any]
    compute: Callable[[Any], Array]
    higher_is_better: bool
    weighted: bool = False


class Mean(NamedTuple):
    """Sum over rows and number of rows; shape [], or [label] or [dim]."""

    total: Array
    # int32; of weighted rows, float32
    count: Array  # type: ignore[assignment]  # a tuple's method goes by this name too


class Confusion(NamedTuple):
    """How many are there of each class (multi-label: of each label; spans: in all); [class], or []; int32, or float32
    where rows are weighted.
    """

    hit: Array  # in the class and predicted so
    predicted: Array
    actual: Array


def add(states: Any) -> Any:
    """Merges states that are sums."""
    return jax.tree.map(lambda s: s.sum(0, dtype=s.dtype), states)


def mean_metric(name: str, values: Callable, higher_is_better: bool, finish: Callable = lambda mean: mean) -> Metric:
    """`finish` of the mean over labelled elements of ``values(outputs, targets)``.

    Where the values are [row, label or dim], of the mean over rows for each label or dim, averaged over these. Where
    the targets are images or class sequences, every token or pixel is a row. Values may lack the targets' last axes,
    which then belong to one element (a box, a normal).
    """

    def measure(
        outputs: Float[Array, "..."],
        targets: Num[Array, "..."],
        mask: Bool[Array, "..."],
        weights: Weights = None,
    ) -> Mean:
        found = values(wide(outputs), targets)
        each = number(expand(mask, found), weights)
        if found.ndim > 2 or is_classification(outputs, targets):
            each, found = each.reshape(-1), found.reshape(-1)
        return Mean(total(found, each), each.sum(0, dtype=each.dtype))

    def compute(state: Mean) -> Float[Array, ""]:
        return macro(finish(ratio(state.total, state.count)), state.count > 0)

    return Metric(name, measure, add, compute, higher_is_better, True)


Weights = Float[Array, " row"] | None


def number(mask: Bool[Array, "row ..."], weights: Weights) -> Num[Array, "row ..."]:
    """How many rows each counts for: int32 0 or 1, or its weight in float32."""
    if weights is None:
        return mask.astype(jnp.int32)
    return jnp.where(mask, expand(wide(weights), mask), 0)


def total(values: Shaped[Array, "row ..."], each: Num[Array, "row ..."]) -> Array:
    """The sum over rows of values times how many rows each counts for; counts of bools stay int32."""
    there = each > 0
    if each.dtype == jnp.int32:
        return values.sum(0, dtype=jnp.int32 if values.dtype == bool else values.dtype, where=there)
    return (wide(values) * each).sum(0, where=there)


def ratio(total: Num[Array, "..."], count: Num[Array, "..."]) -> Float[Array, "..."]:
    """Their quotient in float32; 0 / 1 where the count is 0."""
    return wide(total) / wide(jnp.where(count > 0, count, 1))


def is_classification(outputs: Array, targets: Array) -> bool:
    """Whether outputs are [..., classes] for integer targets [...]."""
    return outputs.shape[:-1] == targets.shape and jnp.issubdtype(targets.dtype, jnp.integer)


def check_same_shape(name: str, outputs: Array, targets: Array) -> None:
    """An error where NumPy would broadcast [N] against [N, 1] to [N, N]."""
    if outputs.shape != targets.shape:
        raise ValueError(f"{name} needs outputs and targets of the same shape, not {outputs.shape} and {targets.shape}")


def expand(mask: Shaped[Array, "..."], like: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """A mask, or weights, whose shape is a prefix of `like`'s, in `like`'s shape."""
    return jnp.broadcast_to(aligned(mask, like), like.shape)


def wide(values: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """float32, or float64 where that is used."""
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def macro(values: Float[Array, "*label"], defined: Bool[Array, "*label"]) -> Float[Array, ""]:
    """Mean of the defined values. Not nanmean, which would hide a label or dim whose outputs have become nan."""
    count = defined.sum(dtype=jnp.int32)
    mean = jnp.where(defined, values, 0).sum() / jnp.maximum(count, 1).astype(values.dtype)
    return jnp.where(count > 0, mean, jnp.nan)

"""Angles between vectors, in degrees: of surface normals (Fouhey, Gupta and Hebert, ICCV 2013)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.metrics.base import Metric, Weights, add, check_same_shape, expand, mean_metric, number, ratio, wide

BINS = 3600  # of the median's histogram, over 0..180 degrees: 0.05 degrees each


class Histogram(NamedTuple):
    """Numbers of angles, int32; or sums of their weights."""

    counts: Array  # [BINS]
    broken: Array  # [], labelled angles that are nan


def angle(outputs: Float[Array, "*row 3"], targets: Float[Array, "*row 3"]) -> Float[Array, "*row"]:
    """The angle between vectors of any length, in degrees; nan for an output that is nan.

    From sine and cosine, since the arc cosine of a float32 near 1 is off by up to 0.03 degrees. An output of length 0
    is at 0 degrees from nothing: its angle counts as 90.
    """
    check_same_shape("an angle", outputs, targets)
    outputs, targets = wide(outputs), wide(targets)
    sine = jnp.linalg.norm(jnp.cross(outputs, targets), axis=-1)
    cosine = (outputs * targets).sum(-1)
    degrees = jnp.degrees(jnp.arctan2(sine, cosine))
    return jnp.where((sine == 0) & (cosine == 0), 90, degrees)


def mean_angle() -> Metric:
    """Mean angle over all labelled pixels of the split."""
    return mean_metric("mean_angle", angle, False)


def median_angle() -> Metric:
    """Median angle over all labelled pixels, by a histogram of `BINS` fixed bins, which merges over batches.

    An angle that half of the angles do not exceed, up to the 0.05 degrees of a bin; within its bin it lies where it
    would if the bin's angles were evenly spread.
    """

    def measure(
        outputs: Float[Array, "*row 3"],
        targets: Float[Array, "*row 3"],
        mask: Bool[Array, "..."],
        weights: Weights = None,
    ) -> Histogram:
        found = angle(outputs, targets)
        each, broken = number(expand(mask, found), weights), jnp.isnan(found)
        place = jnp.where(broken, 0, found * (BINS / 180)).astype(jnp.int32)
        counts = jnp.zeros(BINS, each.dtype).at[jnp.minimum(place, BINS - 1)].add(jnp.where(broken, 0, each))
        return Histogram(counts, ((each > 0) & broken).sum(dtype=jnp.int32))

    def compute(state: Histogram) -> Float[Array, ""]:
        below = jnp.cumsum(state.counts, dtype=state.counts.dtype)
        half = below[-1].astype(jnp.float32) / 2
        place = jnp.argmax(below.astype(jnp.float32) >= half)
        inside = state.counts[place].astype(jnp.float32)
        share = ratio(half - (below[place].astype(jnp.float32) - inside), inside)
        median = (place.astype(jnp.float32) + share) * (180 / BINS)
        return jnp.where((below[-1] > 0) & (state.broken == 0), median, jnp.nan)

    return Metric("median_angle", measure, add, compute, False, True)


def angle_within(degrees: float = 11.25) -> Metric:
    """Share of labelled pixels whose angle is below `degrees`; reported as ``angle_within_11.25``.

    Raises:
      ValueError: if `degrees` is not between 0 and 180.
    """
    if not 0 < degrees < 180:
        raise ValueError(f"angle_within: degrees={degrees!r} must lie between 0 and 180")
    return mean_metric(f"angle_within_{degrees:g}", lambda o, t: angle(o, t) < degrees, True)

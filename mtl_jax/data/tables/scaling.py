"""Numbers to unit scale in float64: by mean and deviation, by quartiles where outliers rule, or by quantiles."""

import statistics
from typing import NamedTuple

import numpy as np

from mtl_jax.data.dataset import moments

SCALINGS = ("standard", "robust", "quantile")
BOUND = 10.0  # deviations from where values grow by their logarithm only
HEAVY = 10.0  # how much larger than the quartiles' a deviation is where outliers rule it
KNOTS = 256


class Scale(NamedTuple):
    """How one number is scaled.

    Attributes:
      centre, scale: (value - centre) / scale is what a model reads.
      knots: of "quantile": values in training that are evenly many apart; then normal scores are what it reads.
    """

    centre: float
    scale: float
    knots: tuple[float, ...] = ()

    def apply(self, values: np.ndarray) -> np.ndarray:
        """float64 [N] standardised; beyond `BOUND` by the logarithm, so that no value is out of reach. nan stays."""
        if self.knots:
            places = (np.arange(len(self.knots)) + 0.5) / len(self.knots)
            scores = np.array([statistics.NormalDist().inv_cdf(p) for p in places])
            knots, where = np.unique(self.knots, return_inverse=True)
            scores = np.bincount(where, scores) / np.bincount(where)  # of values that come often, their middle
            return np.where(np.isnan(values), np.nan, np.interp(values, knots, scores))
        scaled = (values - self.centre) / self.scale
        far = np.abs(scaled) > BOUND
        if far.any():
            size = np.abs(scaled[far])
            scaled[far] = np.sign(scaled[far]) * (BOUND + np.log1p(size - BOUND))
        return scaled


def fit_scale(values: np.ndarray, scaling: str = "standard") -> Scale:
    """The scale of training values float64 [N]; nan is missing.

    "standard" takes mean and standard deviation, but median and quartiles where these make a deviation that is ten
    times smaller: then a few outliers rule the mean. "robust" takes those always, "quantile" maps to normal scores.
    What is constant but for rounding is scaled by 1.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return Scale(0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = (float(m[0]) for m in moments(there[:, None], np.ones((len(there), 1), bool)))
    low, middle, high = (float(q) for q in np.quantile(there, (0.25, 0.5, 0.75)))
    spread = (high - low) / 1.349  # a normal distribution's deviation
    usable = spread > 1e-13 * max(abs(low), abs(high))
    if scaling == "quantile" and there.min() < there.max():
        knots = np.quantile(there, (np.arange(KNOTS) + 0.5) / KNOTS)
        return Scale(mean, std, tuple(map(float, knots)))
    if usable and (scaling == "robust" or not std < HEAVY * spread):
        return Scale(middle, spread)
    return Scale(mean, std) if np.isfinite(std) else Scale(middle, float(np.abs(there - middle).max()) or 1.0)

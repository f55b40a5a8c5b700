"""Do scores agree on the order of candidates?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float


def ranks(values: Sequence[float]) -> Float[np.ndarray, " candidate"]:
    """1 for the largest; equals share the mean of their places, and nan has none."""
    from scipy.stats import rankdata

    found = np.asarray(values, np.float64)
    there = np.isfinite(found)
    placed = np.full(len(found), np.nan)
    placed[there] = rankdata(-found[there])
    return placed


def taus(values: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    """{(score, score): Kendall's tau-b of the two orders}, over candidates that both have a value of; nan below two."""
    from scipy.stats import kendalltau

    names, found = list(values), {}
    for i, one in enumerate(names):
        for other in names[:i]:
            a, b = np.asarray(values[one], np.float64), np.asarray(values[other], np.float64)
            both = np.isfinite(a) & np.isfinite(b)
            varied = both.sum() > 1 and np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0
            found[other, one] = float(kendalltau(a[both], b[both]).statistic) if varied else float("nan")
    return found


def mean_tau(score: str, pairs: Mapping[tuple[str, str], float]) -> float:
    """The mean of a score's taus with all others; nan where there is none."""
    found = [tau for pair, tau in pairs.items() if score in pair and np.isfinite(tau)]
    return float(np.mean(found)) if found else float("nan")

"""Temperature scaling: one number per task that makes its probabilities as sure as they should be.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599. It changes no decision: the order
of classes, and the side of one half, stay.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

TINY = 1e-30  # a float32 probability may be 0; its logarithm may not be
NEAREST = 6e-8  # how near to 0 or 1 a probability of two sides is told apart in float32, where it ends at 1 exactly
LOW, HIGH = 0.05, 20.0  # what a temperature may be
FEWEST = 10  # labels below which a temperature is noise, and left at 1


def log_softened(
    probabilities: Float[np.ndarray, "rows classes"], temperature: float
) -> Float[np.ndarray, "rows classes"]:
    """log softmax(log p / temperature), without leaving logarithms."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY)) / temperature
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def softened(probabilities: Float[np.ndarray, "rows classes"], temperature: float) -> Float[np.ndarray, "rows classes"]:
    """softmax(log p / temperature), which is softmax(logits / temperature)."""
    return np.exp(log_softened(probabilities, temperature))


def two_sided(probability: Float[np.ndarray, " *rows"]) -> Float[np.ndarray, "*rows 2"]:
    """The probabilities of 0 and 1, of that of 1; both sides are cut off alike where float32 has no more digits."""
    probability = np.clip(np.asarray(probability, np.float64), NEAREST, 1 - NEAREST)
    return np.stack([1 - probability, probability], -1)


def negative_log_likelihood(
    probabilities: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    temperature: float = 1.0,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """The mean over rows, by their weights, of -log p of the label."""
    chosen = log_softened(probabilities, temperature)[np.arange(len(labels)), labels]
    return float(-np.average(chosen, weights=weights))


def fit_temperature(
    probabilities: Float[np.ndarray, "rows classes"],
    labels: Shaped[np.ndarray, " rows"],
    weights: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """The temperature of least negative log likelihood.

    The likelihood is convex in 1 / temperature, so that a search over an interval finds the minimum. It is 1 where
    there are fewer than `FEWEST` labels or one class only, and where the minimum is at an end of the interval: labels
    that are all predicted rightly say that any sureness is too little.
    """
    from scipy.optimize import minimize_scalar

    labels = np.asarray(labels).astype(int)
    if len(labels) < FEWEST or len(np.unique(labels)) < 2:
        return 1.0
    found = minimize_scalar(
        lambda inverse: negative_log_likelihood(probabilities, labels, 1 / inverse, weights),
        bounds=(1 / HIGH, 1 / LOW), method="bounded", options={"xatol": 1e-4},
    )  # fmt: skip
    warmth = float(1 / found.x)
    return warmth if 1.01 * LOW < warmth < HIGH / 1.01 else 1.0


def expected_calibration_error(
    probabilities: Float[np.ndarray, "rows classes"], labels: Int[np.ndarray, " rows"], bins: int = 15
) -> float:
    """The mean over rows of |accuracy - confidence| of the bin of a row's highest probability (Guo et al.)."""
    sure, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps: list[float] = []
    for b in range(bins):
        inside: Bool[np.ndarray, " rows"] = place == b
        if inside.any():
            gaps.append(inside.mean() * abs(right[inside].mean() - sure[inside].mean()))
    return float(sum(gaps))

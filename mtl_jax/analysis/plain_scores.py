"""One number of how well predictions fit, under many weightings of the rows at once, and a paired bootstrap of it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from mtl_jax.tasks import Task

HIGHER = ("auroc", "accuracy")  # where higher is better
AT_ONCE = 2**21  # weights that are held


def metric_of(task: Task) -> str | None:
    """The metric of a task's kind; None where it has none here."""
    return task.of_kind.against_trees


def score(
    metric: str,
    predicted: Float[np.ndarray, "row ..."],
    labels: Float[np.ndarray, " row"],
    weights: Float[np.ndarray, "draw row"],
    floor: Float[np.ndarray, "row ..."],
) -> Float[np.ndarray, " draw"]:
    """The score under each weighting; nan where there is none, as of one class only.

    Args:
      metric: "rrmse", "auroc" or "accuracy".
      predicted: amounts, the probability of 1, or of each class [row, class].
      labels: of the rows.
      weights: of the rows, a line for each weighting.
      floor: predictions of the best constant, which "rrmse" is relative to.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "rrmse":
            return np.sqrt((weights @ (labels - predicted) ** 2) / (weights @ (labels - floor) ** 2))
        if metric == "accuracy":
            return (weights @ (predicted.argmax(1) == labels)) / weights.sum(1)
        return auroc(predicted, labels, weights)


def auroc(
    predicted: Float[np.ndarray, " row"], labels: Float[np.ndarray, " row"], weights: Float[np.ndarray, "draw row"]
) -> Float[np.ndarray, " draw"]:
    """The share of pairs of a 1 and a 0, by weight, that are in the right order; half of those that are equal."""
    order = np.argsort(predicted, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(predicted[order]) > 0]))
    ones, zeros = (
        np.add.reduceat(weights[:, order] * (labels[order] == value), starts, 1) for value in (1, 0)
    )  # fmt: skip
    below = np.cumsum(zeros, 1) - zeros / 2
    return (ones * below).sum(1) / (ones.sum(1) * zeros.sum(1))


def errors_of_differences(
    metric: str,
    predicted: Mapping[str, Float[np.ndarray, "row ..."]],
    labels: Float[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"],
    floor: Float[np.ndarray, "row ..."],
    groups: Int[np.ndarray, " row"] | None = None,
    draws: int = 400,
) -> dict[str, float]:
    """{model: standard error of the difference of its score to that of "ours"}; infinite of one row, or one group.

    Samples are of rows, or of whole groups. The spread over n of them is sqrt((n - 1) / n) too small, which is made up.
    """
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units, random = int(unit.max()) + 1, np.random.default_rng(0)
    if units < 2:
        return {m: np.inf for m in predicted if m != "ours"}
    found: dict[str, list[np.ndarray]] = {m: [] for m in predicted}
    step = max(1, AT_ONCE // len(labels))
    for start in range(0, draws, step):
        times = random.multinomial(units, np.full(units, 1 / units), size=min(step, draws - start))
        for model, values in predicted.items():
            found[model].append(score(metric, values, labels, times[:, unit] * weights, floor))
    scores = {m: np.concatenate(x) for m, x in found.items()}
    return {
        m: float(np.nanstd(x - scores["ours"]) * np.sqrt(units / (units - 1))) for m, x in scores.items() if m != "ours"
    }

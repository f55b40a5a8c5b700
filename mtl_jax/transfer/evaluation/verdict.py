"""Whether transfer paid, in plain sentences, by paired differences over seeds."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.evaluation.trainings import SCRATCH


def bounds(values: Float[np.ndarray, " seed"]) -> tuple[float, float] | None:
    """The 95% t-interval of a mean of paired differences; None for fewer than two."""
    from scipy import stats

    if len(values) < 2 or not np.isfinite(values).all():
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def told_apart(values: Float[np.ndarray, " seed"]) -> int:
    """1 or -1 where the interval lies above or below 0, else 0."""
    found = bounds(values)
    return 0 if found is None else int(found[0] > 0) - int(found[1] < 0)


def difference(values: Float[np.ndarray, " seed"]) -> str:
    """A mean of differences and the half-width of its interval; "*" where 0 lies outside."""
    if not len(values) or not np.isfinite(values).all():
        return "-"
    found = bounds(values)
    half = "" if found is None else f" ± {(found[1] - found[0]) / 2:.3f}"
    return f"{values.mean():+.3f}{half}{' *' if told_apart(values) else ''}"


def in_words(found: Any) -> str:
    """The verdict of an `Evaluation`."""
    said, lines = {}, []
    for shots in found.shots:
        chosen = found.chosen(shots)
        labels = "all labels" if shots == "all" else f"{shots} label{'' if shots == 1 else 's'} of each class"
        if chosen is None or not found.trainings.get(SCRATCH, {}).get(shots):
            continue
        words, signs = [], []
        for (metric, _), tasks in found.metrics().items():
            gains = found.gains(chosen, shots, tasks)
            own, other = (found.values(w, shots, tasks) for w in (chosen, SCRATCH))
            span = bounds(gains)
            over = "one seed, no interval" if span is None else f"95% interval {span[0]:+.3f} to {span[1]:+.3f}"
            signs.append(told_apart(gains))
            words.append(
                f"{metric} {own.mean():.3f} against {other.mean():.3f} from scratch ({gains.mean():+.3f}; {over})"
            )
        said[shots] = verdict_of(signs)
        lines.append(f"with {labels}, {chosen}, which validation chose: {'; '.join(words)}: {SAYS[said[shots]]}")
    if not lines:
        return "no verdict: validation chose no method, or nothing was trained from scratch"
    return "\n".join([*lines, summary(said)])


SAYS = {
    1: "transfer paid",
    -1: "transfer did harm",
    0: "not told apart",
    2: "better in one metric and worse in another",
}


def verdict_of(signs: list[int]) -> int:
    """1, -1 or 0 of all metrics together; 2 where they disagree."""
    if 1 in signs and -1 in signs:
        return 2
    return 1 if 1 in signs else -1 if -1 in signs else 0


def summary(said: dict[Any, int]) -> str:
    """One sentence over all numbers of labels."""
    by: dict[int, list[str]] = {}
    for shots, what in said.items():
        by.setdefault(what, []).append(str(shots))
    words = {1: "paid", 0: "was not told apart from training from scratch", -1: "did harm",
             2: "was better in one metric and worse in another"}  # fmt: skip
    told = [f"{words[k]} with {listed(by[k])}" for k in (1, 0, -1, 2) if k in by]
    return f"Transfer {'; it '.join(told)} labels of each class."


def listed(names: list[str]) -> str:
    """1, 5 and all."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

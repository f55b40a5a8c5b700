"""Whether transfer paid, in plain sentences, by paired differences over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.kinds import one_class_a_row
from mtl_jax.tasks import Task


def bounds(values: Float[np.ndarray, " seed"], level: float = 0.95) -> tuple[float, float] | None:
    """The t-interval of a mean of paired differences; None for fewer than two, or without any spread.

    Differences that are all the same, such as of accuracies on few rows, say nothing of how they would scatter.
    """
    from scipy import stats

    if len(values) < 2 or not values.std() > 1e-12:
        return None
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def told_apart(values: Float[np.ndarray, " seed"], level: float = 0.95) -> int:
    """1 or -1 where the interval lies above or below 0, else 0."""
    found = bounds(values, level)
    return 0 if found is None else int(found[0] > 0) - int(found[1] < 0)


def difference(values: Float[np.ndarray, " seed"]) -> str:
    """A mean of differences and the half-width of its interval; "*" where 0 lies outside."""
    if not len(values):
        return "-"
    found = bounds(values)
    half = "" if found is None else f" ± {(found[1] - found[0]) / 2:.3f}"
    return f"{values.mean():+.3f}{half}{' *' if told_apart(values) else ''}"


def in_words(found: Any) -> str:
    """The verdict of an `Evaluation`; over several metrics, intervals are as much wider as Bonferroni says."""
    said, lines = {}, []
    each = of_each(found.tasks)
    metrics = found.metrics()
    level = 1 - 0.05 / len(metrics)
    for shots in found.shots:
        chosen = found.chosen(shots)
        labels = "all labels" if shots == "all" else f"{shots} label{'' if shots == 1 else 's'} {each}"
        if chosen is None:
            lines.append(f"with {labels}, validation chose no method")
            continue
        words, signs = [], []
        for (metric, _), tasks in metrics.items():
            own, other = found.pairs(chosen, shots, tasks)
            if not len(own):
                continue
            gains = found.gains(chosen, shots, tasks)
            span = bounds(gains, level)
            over = f"{level:.3g} interval {span[0]:+.3f} to {span[1]:+.3f}" if span else "no interval"
            over = over.replace("0.95 interval", "95% interval")
            signs.append(told_apart(gains, level))
            gain = f"{gains.mean():+.3f} over {len(gains)} seed{'' if len(gains) == 1 else 's'}; {over}"
            words.append(f"{metric} {own.mean():.3f} against {other.mean():.3f} from scratch ({gain})")
        if not words:
            lines.append(f"with {labels}, {chosen} and from scratch have no seed in common")
            continue
        said[shots] = verdict_of(signs)
        lines.append(f"with {labels}, {chosen}, which validation chose: {'; '.join(words)}: {SAYS[said[shots]]}")
    return "\n".join([*lines, summary(said, each)] if said else [*lines, "no verdict"])


def of_each(tasks: Sequence[Task]) -> str:
    """What labels are counted by."""
    by_class = [one_class_a_row(t.kind) for t in tasks]
    return "of each class" if all(by_class) else "of each class or task" if any(by_class) else "of each task"


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


def summary(said: dict[Any, int], each: str) -> str:
    """One sentence over all numbers of labels."""
    by: dict[int, list[str]] = {}
    for shots, what in said.items():
        by.setdefault(what, []).append(str(shots))
    words = {1: "paid", 0: "was not told apart from training from scratch", -1: "did harm",
             2: "was better in one metric and worse in another"}  # fmt: skip
    last = [v for k in (1, 0, -1, 2) for v in by.get(k, [])][-1]
    told = [f"{words[k]} with {listed(by[k])}" for k in (1, 0, -1, 2) if k in by]
    return f"Transfer {'; it '.join(told)} label{'' if last == '1' else 's'} {each}."


def listed(names: list[str]) -> str:
    """1, 5 and all."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""Many tasks on a screen: above `MANY`, what is shown task by task becomes the mean, the spread and the worst few.

All that prints asks here, so that 139 schools fit where three tasks did. Files keep every task.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MANY = 20  # up to so many tasks have a line or a column each
WORST = 5  # named where there are more


class Summary(NamedTuple):
    """One number of each of many tasks, in short.

    Attributes:
      count: tasks with a value.
      mean: over these, as all that follows; nan where there is none.
      quartiles: least, first quartile, median, third quartile and largest.
      worst: (task, value), the worst first; at most `WORST`.
      absent: tasks without a value.
    """

    count: int  # type: ignore[assignment]  # a tuple's method goes by this name too
    mean: float
    quartiles: tuple[float, ...]
    worst: tuple[tuple[str, float], ...]
    absent: tuple[str, ...]


def is_many(tasks: Collection[Any]) -> bool:
    """Whether there are too many tasks for a line each."""
    return len(tasks) > MANY


def summary(values: Mapping[str, Any], higher_is_better: bool = False) -> Summary:
    """The summary of {task: a number, or one a run, whose mean counts}; None and what is not finite are no values."""
    found = {task: _mean(value) for task, value in values.items()}
    there = {task: value for task, value in found.items() if np.isfinite(value)}
    numbers = np.array(list(there.values()), np.float64)
    # Of equals the first task comes first.
    worst = sorted(there.items(), key=lambda pair: pair[1] if higher_is_better else -pair[1])[:WORST]
    quartiles = np.quantile(numbers, (0, 0.25, 0.5, 0.75, 1)) if len(numbers) else np.full(5, np.nan)
    mean = float(numbers.mean()) if len(numbers) else float("nan")
    absent = tuple(task for task in found if task not in there)
    return Summary(len(there), mean, tuple(map(float, quartiles)), tuple(worst), absent)


def _mean(value: Any) -> float:
    values = np.atleast_1d(np.asarray(value, np.float64))
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def in_a_line(
    values: Mapping[str, Any], higher_is_better: bool = False, most: int = 1, form: str = ".4g", word: str = "worst"
) -> str:
    """``mean 0.52, 0.11 to 1.9, worst school_017 1.9``; ``all 33`` where all have one value.

    Args:
      values: {task: a number, or one a run}.
      higher_is_better: which end is the worse.
      most: how many of the worst are named.
      form: of the numbers, as `format` takes it.
      word: what the worst are called.
    """
    found = summary(values, higher_is_better)
    if not found.count:
        return "no values"
    absent = f", {len(found.absent)} without a value" if found.absent else ""
    mean, least, *_, greatest = (format(v, form) for v in (found.mean, *found.quartiles))
    if found.quartiles[0] == found.quartiles[-1]:
        return f"all {mean}{absent}"
    return f"mean {mean}, {least} to {greatest}, {word} {worst_text(found, form, most)}{absent}"


QUARTILES = ("min", "25%", "50%", "75%", "max")  # what `quartiles_text` are


def quartiles_text(found: Summary, form: str = ".4f") -> tuple[str, ...]:
    """The quartiles as text; "-" where there is no value."""
    return tuple("-" if np.isnan(v) else format(v, form) for v in found.quartiles)


def worst_text(found: Summary, form: str = ".4f", most: int = WORST) -> str:
    """``school_017 1.9000, school_003 1.8000``; "-" where there is no value."""
    return ", ".join(f"{task} {format(value, form)}" for task, value in found.worst[:most]) or "-"


def spread_over_tasks(
    names: Sequence[str], headlines: Sequence[tuple[str, bool]], values: Mapping[str, Sequence[Any]]
) -> dict[str, dict[str, str]]:
    """{column: {method: text}} of each metric's quartiles over tasks, and of the tasks where a method is worst.

    Args:
      names: of the tasks.
      headlines: (metric, is higher better) of each task.
      values: {method: [seeds] of each task}.
    """
    found: dict[str, dict[str, str]] = {}
    metrics = list(dict.fromkeys(headlines))
    for metric, higher in metrics:
        of = f" {metric}" if len(metrics) > 1 else ""
        own = [i for i, h in enumerate(headlines) if h == (metric, higher)]
        for method, v in values.items():
            short = summary({names[i]: v[i] for i in own}, higher)
            quartiles = " ".join(quartiles_text(short, ".3g"))
            found.setdefault(f"{' '.join(QUARTILES)}{of}", {})[method] = quartiles
            found.setdefault(f"worst{of}", {})[method] = worst_text(short, ".3g", 2)
    return found


def some(names: Sequence[str], most: int = 8) -> str:
    """Names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(names: Sequence[str]) -> str:
    """Names as the text of a list; of many the first ones and how many there are."""
    return repr(list(names)) if not is_many(names) else f"[{some([repr(n) for n in names], 3)}]"


def warn_of(texts: Mapping[str, str], tasks: Collection[Any], stacklevel: int) -> None:
    """A UserWarning for each task of `texts`; among many tasks one, with the first one's text and the others' names.

    Args:
      texts: {task: what is to be said of it, beginning with its name}.
      tasks: all tasks, of which these are some.
      stacklevel: as `warnings.warn` takes it in the caller's place.
    """
    if not is_many(tasks) or len(texts) < 2:
        for text in texts.values():
            warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)
        return
    first, *others = texts
    warnings.warn(
        f"{texts[first]} (so it is with {len(others)} more of {len(tasks)} tasks: {some(others, WORST)})", UserWarning,
        stacklevel=stacklevel + 1,
    )  # fmt: skip


def by_reason(reasons: Mapping[str, str]) -> str:
    """``a (no labels in val); b (...)``; of many tasks ``31 tasks (no labels in val): a, b, c and 28 more``."""
    if not is_many(reasons):
        return "; ".join(f"{task} ({why})" for task, why in reasons.items())
    groups: dict[str, list[str]] = {}
    for task, why in reasons.items():
        groups.setdefault(why, []).append(task)
    largest = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    shown = [f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} ({why}): {some(tasks, WORST)}"
             for why, tasks in largest[:WORST]]  # fmt: skip
    rest = sum(len(tasks) for _, tasks in largest[WORST:])
    return "; ".join([*shown, *([f"{rest} more for other reasons"] if rest else [])])

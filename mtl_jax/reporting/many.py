"""Many tasks on a screen: above `MANY`, what is shown task by task becomes the mean, the spread and the worst few.

All that prints asks here, so that 139 schools fit where three tasks did. Files keep every task.
"""

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

    count: int
    mean: float
    quartiles: tuple[float, float, float, float, float]
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


def in_a_line(values: Mapping[str, Any], higher_is_better: bool = False, worst: int = 1) -> str:
    """``139 tasks: mean 0.52, 0.11 to 1.9, worst school_017 1.9``; numbers with four digits."""
    found = summary(values, higher_is_better)
    if not found.count:
        return f"{len(values)} tasks: no values"
    named = ", ".join(f"{task} {value:.4g}" for task, value in found.worst[:worst])
    absent = f", {len(found.absent)} without a value" if found.absent else ""
    least, *_, most = found.quartiles
    return f"{len(values)} tasks: mean {found.mean:.4g}, {least:.4g} to {most:.4g}, worst {named}{absent}"


HEADER = ("mean", "min", "25%", "50%", "75%", "max")  # what `cells` are


def cells(found: Summary, digits: int = 4) -> tuple[str, ...]:
    """Mean and quartiles as text; "-" where there is no value."""
    return tuple("-" if np.isnan(v) else f"{v:.{digits}f}" for v in (found.mean, *found.quartiles))


def worst_text(found: Summary, digits: int = 4) -> str:
    """``school_017 1.9000, school_003 1.8000``."""
    return ", ".join(f"{task} {value:.{digits}f}" for task, value in found.worst) or "-"


def some(names: Sequence[str], most: int = 8) -> str:
    """Names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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

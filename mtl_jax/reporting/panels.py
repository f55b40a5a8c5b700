"""A comparison as a figure: a panel per task, of many tasks one per metric."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.reporting import compare, many
from mtl_jax.tasks import Task


class Panel(NamedTuple):
    """What one panel shows: its title, {method: values that are points}, and the best constant's value or nan."""

    title: str
    points: dict[str, np.ndarray]
    constant: float


def panels_of(
    tasks: Sequence[Task], results: Mapping[str, Mapping[str, Any]], constant: Mapping[str, Mapping[str, float]]
) -> list[Panel]:
    """A panel per task with a point per seed; of many tasks one per headline metric, with a point per task.

    Args:
      tasks: the columns of the comparison.
      results: {method: {task: {metric: [seeds]}}}.
      constant: {task: {metric: value}} of the best constants, or {}.
    """

    def floor(task: Task, headline: tuple[str, bool]) -> float:
        value = constant.get(task.name, {}).get(headline[0])
        return float("nan") if value is None else float(value)

    def title(name: str, metric: str, higher: bool) -> str:
        return f"{name}: {metric} {'↑' if higher else '↓'}"

    headlines = [compare.headline(t) for t in tasks]
    if not many.is_many(tasks):
        return [
            Panel(title(t.name, *h), {m: compare.headline_values(t, r, h[0]) for m, r in results.items()}, floor(t, h))
            for t, h in zip(tasks, headlines, strict=True)
        ]
    found = []
    for metric in dict.fromkeys(headlines):
        own = [t for t, h in zip(tasks, headlines, strict=True) if h == metric]
        points = {
            m: np.array([float(compare.mean_there(compare.headline_values(t, r, metric[0]))) for t in own])
            for m, r in results.items()
        }
        constants = compare.mean_there([floor(t, metric) for t in own])
        found.append(Panel(title(f"{len(own)} tasks", *metric), points, float(constants)))
    return found


def figure_of(panels: Sequence[Panel]) -> Any:
    """A matplotlib figure: a row per method, values as points, their mean a bar, the constant dotted.

    Raises:
      ImportError: without matplotlib, naming the extra that has it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'mtl_jax[plot]'") from error
    names = list(panels[0].points)
    figure = Figure(figsize=(1 + 2.6 * len(panels), 1.2 + 0.3 * len(names)), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for row, name in enumerate(names):
            values = panel.points[name]
            axis.plot(values, [row] * len(values), "o", color="C0", alpha=0.4, markersize=4)
            axis.plot([compare.mean_there(values)], [row], "|", color="C0", markersize=14, markeredgewidth=2)
        axis.set(title=panel.title, ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), names if axis.get_subplotspec().is_first_col() else [""] * len(names))
        axis.grid(axis="x", alpha=0.3)
        if np.isfinite(panel.constant):
            axis.axvline(panel.constant, color="0.6", linestyle=":", linewidth=1)
    return figure

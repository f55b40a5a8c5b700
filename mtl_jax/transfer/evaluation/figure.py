"""Few-shot curves as a figure."""

from typing import Any

import numpy as np

from mtl_jax.transfer.evaluation import verdict
from mtl_jax.transfer.evaluation.trainings import SCRATCH

LINES = ("-", ":", "-.")


def figure_of(found: Any) -> Any:
    """A panel for each headline metric of an `Evaluation`: labels against the metric, a line for each way.

    Raises:
      ImportError: without matplotlib, naming the extra that has it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'mtl_jax[plot]'") from error
    metrics = found.metrics()
    figure = Figure(figsize=(1.5 + 5.5 * len(metrics), 3 + 0.17 * len(found.trainings)), layout="constrained")
    for axis, ((metric, higher), tasks) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(),
                                               strict=True):  # fmt: skip
        for i, way in enumerate(found.trainings):
            values = [v[np.isfinite(v)] for s in found.shots for v in [found.values(way, s, tasks)]]
            at = [j for j, v in enumerate(values) if len(v)]
            spans = [verdict.bounds(values[j]) for j in at]
            means = [values[j].mean() for j in at]
            half = [0.0 if s is None else (s[1] - s[0]) / 2 for s in spans]
            scratch = way == SCRATCH
            axis.errorbar(
                [j + 0.3 * (i / max(len(found.trainings) - 1, 1) - 0.5) for j in at], means, half, label=way,
                color="black" if scratch else f"C{i % 10}", linestyle="--" if scratch else LINES[i // 10 % len(LINES)],
                marker="o", markersize=3, linewidth=2 if scratch else 1, elinewidth=0.6, capsize=1.5,
            )  # fmt: skip
        floor = [found.constant.get(t.name, {}).get(metric) for t in tasks]
        if all(v is not None for v in floor):
            axis.axhline(np.mean(np.array(floor, float) / found.units(tasks)), color="0.6", linestyle=":", linewidth=1)
        axis.set_xticks(range(len(found.shots)), [str(s) for s in found.shots])
        axis.set(xlabel="labels of each class", ylabel=f"test {metric} {'↑' if higher else '↓'}",
                 title=f"mean of {len(tasks)} tasks" if len(tasks) > 1 else tasks[0].name)  # fmt: skip
        axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize="x-small")
    return figure

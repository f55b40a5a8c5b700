"""Is sharing worth it? Delta_m, and tables of means with spread over seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.reporting.describe import table
from mtl_jax.tasks import Task, metric_functions


def headline(task: Task) -> tuple[str, bool]:
    """(name, is higher better) of a task's first metric."""
    metric = metric_functions(task)[0]
    return metric.name, metric.higher_is_better


def delta_m(
    tasks: Sequence[Task], results: Mapping[str, Mapping[str, Any]], single: Mapping[str, Mapping[str, Any]]
) -> np.ndarray:
    """Delta_m in percent: the mean over tasks of the relative gain over single-task learning in the headline metric.

    Maninis, Radosavovic and Kokkinos (CVPR 2019, arXiv:1904.08918), equation 4, with the sign turned for metrics
    where lower is better.

    Args:
      tasks: what to average over.
      results: {task: {metric: value, or one value per seed}}.
      single: the same for the single-task baseline; its mean over seeds is what is compared with.

    Returns:
      [seeds], or [] where `results` holds single values. A baseline of 0 gives nan.
    """
    gains = []
    for task in tasks:
        name, higher = headline(task)
        base = np.mean(np.asarray(single[task.name][name], np.float64))
        value = np.asarray(results[task.name][name], np.float64)
        gains.append((1 if higher else -1) * (value - base) / base if base else np.full(value.shape, np.nan))
    return 100 * np.mean(gains, axis=0)


def spread(values: Any, digits: int = 3) -> str:
    """Mean and standard deviation (of a sample) over seeds, as text."""
    values = np.atleast_1d(np.asarray(values, np.float64))
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def interval(values: Any, digits: int = 3) -> str:
    """Mean and half-width of the 95% t-interval over seeds, as text."""
    from scipy import stats

    values = np.atleast_1d(np.asarray(values, np.float64))
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {half:.{digits}f}"


def mean_ranks(tasks: Sequence[Task], results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """{method: mean over tasks of its rank by the headline metric's mean over seeds}; 1 is best, ties share."""
    from scipy import stats

    total = np.zeros(len(results))
    for task in tasks:
        name, higher = headline(task)
        means = [np.nanmean(np.asarray(found[task.name][name], np.float64)) for found in results.values()]
        total += stats.rankdata([-m if higher else m for m in means])
    return dict(zip(results, (total / len(tasks)).tolist(), strict=True))


def methods_table(
    tasks: Sequence[Task],
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    baseline: str | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    text: Callable[..., str] = spread,
    most_columns: int = 6,
) -> str:
    """A row per method, a column per task (its headline metric, mean and spread over seeds), and Delta_m.

    Where there are many tasks of one metric, one column has the mean over tasks instead.

    Args:
      tasks: the columns.
      results: {method: {task: {metric: values}}}.
      baseline: the method that Delta_m compares with; None for no such column.
      extra: {column: {method: text}}, further columns.
      text: how values over seeds are written: `spread` or `interval`.
      most_columns: how many tasks have a column each.
    """
    columns = [headline(t) for t in tasks]
    if len(tasks) > most_columns and len(set(columns)) == 1:
        metric = columns[0][0]
        whole = Task(f"mean over {len(tasks)} tasks:", "binary", metrics=metric_functions(tasks[0])[:1])
        means = {
            method: {whole.name: {metric: np.mean([np.asarray(found[t.name][metric], float) for t in tasks], 0)}}
            for method, found in results.items()
        }
        delta = {m: text(delta_m(tasks, r, results[baseline]), 2) for m, r in results.items()} if baseline else {}
        delta |= {baseline: "0"} if baseline else {}
        columns_behind = ({"Delta_m %": delta} if baseline else {}) | dict(extra or {})
        return methods_table((whole,), means, None, columns_behind, text, most_columns)
    header = [
        "method",
        *(f"{t.name} {name} {'↑' if up else '↓'}" for t, (name, up) in zip(tasks, columns, strict=True)),
    ]
    header += ["Delta_m %"] if baseline else []
    header += list(extra or {})
    rows = []
    for method, found in results.items():
        row = [method, *(text(found[t.name][name]) for t, (name, _) in zip(tasks, columns, strict=True))]
        if baseline == method:
            row.append("0")
        elif baseline:
            row.append(text(delta_m(tasks, found, results[baseline]), 2))
        rows.append((*row, *(column.get(method, "") for column in (extra or {}).values())))
    return table(rows, tuple(header), right=tuple(range(1, len(header))))

"""Is sharing worth it? Delta_m, and tables of means with spread over seeds.

Means are over what has a value: a task without test labels, or with one class only, has no AUROC. What a table leaves
out, and what is worse than the best constant, its closing lines name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.reporting import many
from mtl_jax.reporting.describe import table
from mtl_jax.reporting.many import some
from mtl_jax.tasks import Task, metric_functions

CONSTANT = "best constant"  # the row of the predictor that knows nothing of the inputs
WORSE = "!"  # marks a value that is worse than that row's


def headline(task: Task) -> tuple[str, bool]:
    """(name, is higher better) of a task's first metric."""
    metric = metric_functions(task)[0]
    return metric.name, metric.higher_is_better


def headline_values(
    task: Task, results: Mapping[str, Mapping[str, Any]], metric: str | None = None
) -> Float[np.ndarray, " seed"]:
    """A task's headline metric, where its name is not known already, in every run; nan, not None, without a value."""
    return np.atleast_1d(np.asarray(results[task.name][metric or headline(task)[0]], np.float64))


def mean_there(values: Any, axis: int | None = None) -> Any:
    """The mean of what is finite; nan where nothing is."""
    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


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
      [seeds], or [] where `results` holds single values. Tasks without a value are left out, and so are those whose
      baseline is not above 0, as nothing is relative to it; nan where no task is left.
    """
    gains = []
    for task in tasks:
        name, higher = headline(task)
        base = float(mean_there(headline_values(task, single, name)))
        value = np.asarray(results[task.name][name], np.float64)
        gains.append((1 if higher else -1) * (value - base) / base if base > 0 else np.full(value.shape, np.nan))
    return np.asarray(100 * mean_there(gains, 0))


def spread(values: Any, digits: int = 3) -> str:
    """Mean and standard deviation (of a sample) over seeds, as text; "-" where there is no value."""
    return _with_spread(values, digits, lambda there: there.std(ddof=1))


def interval(values: Any, digits: int = 3) -> str:
    """Mean and half-width of the 95% t-interval over seeds, as text; "-" where there is no value."""
    from scipy import stats

    return _with_spread(
        values, digits, lambda there: stats.t.ppf(0.975, len(there) - 1) * there.std(ddof=1) / np.sqrt(len(there))
    )


def _with_spread(values: Any, digits: int, width: Callable) -> str:
    values = np.atleast_1d(np.asarray(values, np.float64))
    there = values[np.isfinite(values)]
    if not len(there):
        return "-"
    return f"{there.mean():.{digits}f}" + (f" ± {width(there):.{digits}f}" if len(there) > 1 else "")


def mean_ranks(tasks: Sequence[Task], results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """{method: mean over tasks of its rank by the headline metric's mean over seeds}; 1 is best, ties share.

    Tasks in which no method has a value are left out; a method without a value comes last.
    """
    from scipy import stats

    ranks = []
    for task in tasks:
        name, higher = headline(task)
        means = np.array([float(mean_there(headline_values(task, found, name))) for found in results.values()])
        if np.isfinite(means).any():
            means = -means if higher else means
            ranks.append(stats.rankdata(np.where(np.isfinite(means), means, np.inf)))
    means = np.mean(ranks, 0) if ranks else np.full(len(results), np.nan)
    return dict(zip(results, means.tolist(), strict=True))


def methods_table(
    tasks: Sequence[Task],
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    baseline: str | None = None,
    extra: Mapping[str, Mapping[str, str]] | None = None,
    text: Callable[..., str] = spread,
    most_columns: int = 6,
    constant: Mapping[str, Mapping[str, float]] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> str:
    """A row per method, a column per task (its headline metric, mean and spread over seeds), and Delta_m.

    Where there are some more tasks of one metric, one column has the mean over tasks instead; of many tasks
    (`reporting.many`) so has each metric, with the quartiles over tasks and the worst ones beside it.

    Args:
      tasks: the columns.
      results: {method: {task: {metric: values}}}.
      baseline: the method that Delta_m compares with; None for no such column.
      extra: {column: {method: text}}, further columns.
      text: how values over seeds are written: `spread` or `interval`.
      most_columns: how many tasks have a column each.
      constant: {task: {metric: value}} of the best constants (`training.constants`), for a row of their own.
      reasons: {task: why its metrics have no value}, where that is known.
    """
    rows_of = {**results, CONSTANT: constant} if constant else dict(results)
    headlines = [headline(t) for t in tasks]
    values = {
        m: [headline_values(t, found, h[0]) for t, h in zip(tasks, headlines, strict=True)]
        for m, found in rows_of.items()
    }
    columns, extra = [(t.name, *h) for t, h in zip(tasks, headlines, strict=True)], dict(extra or {})
    if many.is_many(tasks) or (len(tasks) > most_columns and len(set(headlines)) == 1):
        if many.is_many(tasks):
            extra = many.spread_over_tasks([t.name for t in tasks], headlines, values) | extra
        columns, values = means_by_metric(headlines, values)
    rows = []
    for method, found in rows_of.items():
        row = [method]
        for i, (_, _, higher) in enumerate(columns):
            worse = constant and is_worse(values[method][i], values[CONSTANT][i], higher)
            row.append(text(values[method][i]) + (f" {WORSE}" if worse else ""))
        if baseline:
            row.append("0" if method == baseline else text(delta_m(tasks, found, results[baseline]), 2))
        rows.append((*row, *(column.get(method, "") for column in extra.values())))
    header = ("method", *(f"{name} {metric} {'↑' if up else '↓'}" for name, metric, up in columns))
    header += (("Delta_m %",) if baseline else ()) + tuple(extra)
    shown = table(rows, header, right=tuple(range(1, len(header))))
    return "\n".join([shown, *closing_lines(tasks, results, baseline, constant, reasons)])


def means_by_metric(
    headlines: Sequence[tuple[str, bool]], values: Mapping[str, Sequence[Any]]
) -> tuple[list[tuple[str, str, bool]], dict[str, list[Any]]]:
    """(columns, {method: values of each}): the mean over the tasks of a metric in which some method has a value.

    Args:
      headlines: the metric of each task.
      values: {method: [seeds] of each task}.
    """
    columns, means = [], {method: [] for method in values}
    for metric in dict.fromkeys(headlines):
        of_metric = [i for i, h in enumerate(headlines) if h == metric]
        measured = [i for i in of_metric if any(np.isfinite(v[i]).any() for m, v in values.items() if m != CONSTANT)]
        columns.append((f"mean over {len(measured)} tasks:", *metric))
        for method, v in values.items():
            means[method].append(mean_there([v[i] for i in measured], 0) if measured else v[of_metric[0]])
    return columns, means


def is_worse(values: Any, constant: Any, higher_is_better: bool) -> bool:
    """Whether the mean of values is worse than the constant's by more than float32 rounds it."""
    mean, floor = float(mean_there(values)), float(mean_there(constant))
    short = floor - mean if higher_is_better else mean - floor
    return short > 1e-5 * max(abs(mean), abs(floor))


def closing_lines(
    tasks: Sequence[Task],
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    baseline: str | None = None,
    constant: Mapping[str, Mapping[str, float]] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> list[str]:
    """What a table of methods has to say beside its numbers: who is worse than a constant, and what is left out."""
    lines, worse, absent, partly, no_base = [], {}, {}, {}, {}
    for task in tasks:
        name, higher = headline(task)
        values = {m: headline_values(task, found, name) for m, found in results.items()}
        if not any(np.isfinite(v).any() for v in values.values()):
            why = (reasons or {}).get(task.name)
            absent[task.name] = f"no {name}" + (f" ({why})" if why else "")
            continue
        for method, found in values.items():
            if missing := int((~np.isfinite(found)).sum()):
                partly.setdefault((method, name), {})[task.name] = f"{missing} of {len(found)} runs"
            if constant and is_worse(found, constant[task.name][name], higher):
                worse.setdefault(method, []).append(task.name)
        if baseline and not float(mean_there(values[baseline])) > 0:
            no_base[task.name] = f"{name} of {baseline} is {text_of(mean_there(values[baseline]))}"
    if worse:
        named = "; ".join(f"{method}: {some(worse[method])}" for method in results if method in worse)
        lines.append(f"{WORSE} worse than the {CONSTANT}: {named}")
    if absent:
        said = "; ".join(f"{task} has {why}" for task, why in absent.items())
        lines.append(f"left out of means and ranks: {many.by_reason(absent) if many.is_many(absent) else said}")
    if partly:
        said = [text for (method, name), runs in partly.items() for text in _partly(method, name, runs)]
        lines.append("left out of means, and last in ranks where in all runs: " + "; ".join(said))
    if no_base:
        said = many.by_reason(dict.fromkeys(no_base, f"{baseline} has none")) if many.is_many(no_base) else (
            many.by_reason(no_base))  # fmt: skip
        lines.append(f"left out of Delta_m, which is relative to a value above 0: {said}")
    return lines


def _partly(method: str, metric: str, runs: Mapping[str, str]) -> list[str]:
    if many.is_many(runs):
        return [f"{method} has no {metric} of {len(runs)} tasks ({some(list(runs))}) in some runs"]
    return [f"{method} has no {metric} of {task} in {count}" for task, count in runs.items()]


def text_of(value: Any) -> str:
    """A number in short, or "missing"."""
    return f"{float(value):.3g}" if np.isfinite(value) else "missing"

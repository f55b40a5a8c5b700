"""What a finished run comes to: metrics on val and test, parameters, FLOPs, memory and time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax import partition
from mtl_jax.data.dataset import Dataset
from mtl_jax.reporting import compare, many
from mtl_jax.reporting.describe import forward_flops, table
from mtl_jax.tasks import Task, metric_functions
from mtl_jax.training.constants import constant_results
from mtl_jax.training.records import plain
from mtl_jax.training.run import Run


def summarize(run: Run, data: Dataset) -> dict[str, Any]:
    """The content of summary.json; numbers that could not be measured are None.

    Keys: ``steps``, ``best_steps`` (task to the step that was kept), ``without_say`` (tasks that had no part in
    choosing it, and why), ``fallback`` (task to verdicts and constant; None without, see `training.fallback`), ``val``
    and ``test`` (task to metric to value), ``constant`` (the same of the best constants of train), ``parameters``
    (owner to count, with total and trainable), ``flops`` (forward pass, per row), ``peak_bytes`` (of one compiled
    dispatch), ``compile_seconds``, ``seconds`` (in all, before a resume too).
    """
    counts, trainable = parameter_counts(run)
    splits = {k: s for k in ("val", "test") if (s := getattr(data, k)) is not None}
    variables = run.member(0).variables if run.members else run.variables
    return {
        "steps": run.steps,
        "best_steps": None if run.best is None else dict(
            zip([t.name for t in run.tasks], np.asarray(run.best.steps).T.tolist(), strict=True)
        ),
        "without_say": run.without_say,
        "fallback": None if run.fallback is None else run.fallback.content(),
        **{k: plain(run.evaluate(s)) for k, s in splits.items()},
        "constant": {k: plain(constant_results(run.tasks, data.train, s)) for k, s in splits.items()},
        "parameters": {**counts, "total": sum(counts.values()), "trainable": trainable},
        "flops": plain(forward_flops(run.model, variables, run.example)),
        "engine": run.engine,
        "peak_bytes": run.cost.get("peak_bytes"),
        "compile_seconds": run.cost.get("compile_seconds"),
        "seconds": round(run.seconds, 3),
    }  # fmt: skip


def parameter_counts(run: Run) -> tuple[dict[str, int], int]:
    """({owner: number of parameters}, how many of all train); one member's, if there are several."""
    counts: dict[str, int] = {"shared": 0}
    trainable, skip = 0, 1 if run.members else 0
    for path, leaf in partition.flatten(run.params).items():
        size = int(np.prod(leaf.shape[skip:]))
        owner = partition.owner(path)
        counts[owner] = counts.get(owner, 0) + size
        trainable += size if path in run.trainable else 0
    return counts, trainable


def metrics_table(
    results: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[Task] = (),
    constant: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """{task: {metric: value}} as text, a row per task and metric; several runs as mean and spread.

    Of many tasks (`reporting.many`) a row per metric: mean, quartiles over tasks, and the worst ones by name.

    Args:
      results: as `Run.evaluate` has them; None stands for nan.
      tasks: of the results, needed with `constant`.
      constant: the same of the best constants (`training.constants`), for a column of their own; what is worse than
        they are is marked.
    """
    higher = {t.name: {m.name: m.higher_is_better for m in metric_functions(t)} for t in tasks}
    if many.is_many(results):
        return _table_of_many(results, higher, constant)
    rows, worse = [], {}
    for task, found in results.items():
        for metric, value in found.items():
            row = (task, metric, compare.spread(value, 4))
            if constant:
                floor = constant[task][metric]
                short = compare.is_worse(value, floor, higher[task].get(metric, False))
                row = (*row[:2], f"{row[2]} {compare.WORSE}" if short else row[2], compare.spread(floor, 4))
                if short:
                    worse.setdefault(task, []).append(metric)
            rows.append(row)
    header = ("task", "metric", "value") + ((compare.CONSTANT,) if constant else ())
    shown = table(rows, header, right=(2, 3) if constant else (2,))
    if not worse:
        return shown
    named = "; ".join(f"{task}: {', '.join(metrics)}" for task, metrics in worse.items())
    return f"{shown}\n{compare.WORSE} worse than the {compare.CONSTANT} of the training labels: {named}"


def _table_of_many(
    results: Mapping[str, Mapping[str, Any]],
    higher: Mapping[str, Mapping[str, bool]],
    constant: Mapping[str, Mapping[str, Any]] | None,
) -> str:
    """`metrics_table` of many tasks; quartiles and the worst are of means over runs, and of tasks with a value."""
    rows, lines, worse = [], [], {}
    for metric in dict.fromkeys(m for found in results.values() for m in found):
        values = {task: found[metric] for task, found in results.items() if metric in found}
        is_higher = any(higher.get(task, {}).get(metric, False) for task in values)
        found = many.summary(values, is_higher)
        there = [t for t in values if t not in found.absent]
        by_run = [np.atleast_1d(np.asarray(values[t], np.float64)) for t in there]
        mean = compare.mean_there(by_run, 0) if there else None
        row = (metric, str(found.count), compare.spread(mean, 4), *many.quartiles_text(found))
        if constant:
            floors = {task: constant[task][metric] for task in there}
            floor = many.summary(floors).mean
            short = bool(there) and compare.is_worse(found.mean, floor, is_higher)
            mark = f" {compare.WORSE}" if short else ""
            row = (*row[:2], row[2] + mark, *row[3:], compare.spread(floor, 4))
            if named := [t for t in there if compare.is_worse(values[t], floors[t], is_higher)]:
                worse[metric] = f"{metric} of {len(named)} tasks ({many.some(named, many.WORST)})"
        rows.append(row)
        if higher and there:  # else which end is the worse is not known
            lines.append(f"worst {metric}: {many.worst_text(found)}")
        if found.absent:
            lines.append(f"no {metric}: {many.some(found.absent, many.WORST)}")
    header = ("metric", "tasks", "mean", *many.QUARTILES) + ((compare.CONSTANT,) if constant else ())
    if worse:
        named = "; ".join(worse.values())
        lines.append(f"{compare.WORSE} worse than the {compare.CONSTANT} of the training labels: {named}")
    return "\n".join([table(rows, header, right=tuple(range(1, len(header)))), *lines])

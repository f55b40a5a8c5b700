"""What a finished run comes to: metrics on val and test, parameters, FLOPs, memory and time."""

from typing import Any

import numpy as np

from mtl_jax import partition
from mtl_jax.data.dataset import Dataset
from mtl_jax.reporting.describe import forward_flops, table
from mtl_jax.training.records import plain
from mtl_jax.training.run import Run


def summarize(run: Run, data: Dataset) -> dict[str, Any]:
    """The content of summary.json; numbers that could not be measured are None.

    Keys: ``steps``, ``best_steps`` (task to the step that was kept), ``val`` and ``test`` (task to metric to value),
    ``parameters`` (owner to count, with total and trainable), ``flops`` (forward pass, per row), ``peak_bytes`` (of
    one compiled dispatch), ``compile_seconds``, ``seconds`` (in all, before a resume too).
    """
    counts, trainable = parameter_counts(run)
    variables = run.member(0).variables if run.members else run.variables
    return {
        "steps": run.steps,
        "best_steps": None if run.best is None else dict(
            zip([t.name for t in run.tasks], np.asarray(run.best.steps).T.tolist(), strict=True)
        ),
        **{k: plain(run.evaluate(s)) for k in ("val", "test") if (s := getattr(data, k)) is not None},
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


def metrics_table(results: dict[str, dict[str, Any]]) -> str:
    """{task: {metric: value}} as text, a row per task and metric."""
    rows = [
        (task, metric, "-" if value is None else f"{value:.4f}")
        for task, found in results.items()
        for metric, value in found.items()
    ]
    return table(rows, ("task", "metric", "value"), right=(2,))

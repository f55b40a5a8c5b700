"""`rank`: every score of every candidate on the target's training rows."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, counted, inputs_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.on_disk import rows_of
from mtl_jax.tasks import Task
from mtl_jax.training.arguments import check_data
from mtl_jax.transfer.ranking import candidates, scores
from mtl_jax.transfer.ranking.result import Ranking

KINDS = ("classification", "binary", "regression")


def rank(
    given: Any,
    data: Dataset,
    *,
    tasks: Sequence[str] | str | None = None,
    scores_of: Sequence[str] | str = tuple(scores.NAMES),
    max_rows: int = 2000,
    batch_size: int = 256,
    seed: int = 0,
) -> Ranking:
    """Scores candidates on the training rows of a target: one forward pass each, then every score on its features.

    Args:
      given: {name: candidate}, or a list. A candidate is a run or its folder, (encoder, variables), or a function from
        inputs to features [N, D].
      data: the target. Its rows without a label are left out, and that is said.
      tasks: those of the target to score by; None for all. Their kinds must be classification, binary or regression.
      scores_of: names of `scores.NAMES`, with options where wanted: ``"knn(k=1)"``.
      max_rows: labelled rows of a task that are read at most, drawn with `seed`; k-NN and PARC compare all pairs.
      batch_size: rows per compiled call at most.
      seed: of the draw.

    Raises:
      ValueError: for what is no candidate, inputs that one cannot read (it is named), or a task of another kind.
    """
    check_data(data)
    parts.check_whole("max_rows", max_rows, 4)
    parts.check_whole("batch_size", batch_size)
    chosen = target_tasks(data, tasks)
    texts = (scores_of,) if isinstance(scores_of, str) else tuple(scores_of)
    built = {text: scores.build(text) for text in texts}
    if not built:
        raise ValueError(f"scores_of is empty; scores are {', '.join(scores.NAMES)}")
    read = candidates.read_candidates(given)
    candidates.warn_of_other_columns(read, data)
    rows, notes = labelled_rows(chosen, data.train, max_rows, seed)
    values: dict[str, Any] = {}
    blank: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, candidate in read.items():
        for task, seen, at in seen_by_task(name, candidate, chosen, data.train, rows, batch_size):
            seconds[name] = seconds.get(name, 0.0) + seen.seconds
            labels = targets_of(task, data.train, rows[task.name])
            if len(seen.probabilities) > 1 and any(s.reads == "probabilities" for s in built.values()):
                notes += (
                    f"{name} has several heads, {', '.join(seen.probabilities)}: leep and nce are the best head's",
                )
            for reading, shown in candidates.names_of(list(seen.features), name).items():
                found = {s: _score(score, task, seen, reading, at, labels) for s, score in built.items()}
                values.setdefault(task.name, {})[shown] = {s: v for s, (v, _, _) in found.items()}
                blank.setdefault(task.name, {})[shown] = {s: why for s, (_, why, _) in found.items() if why}
                seconds["scores"] = seconds.get("scores", 0.0) + sum(t for _, _, t in found.values())
    return Ranking(tuple(t.name for t in chosen), values, blank, read, seconds, notes)


def target_tasks(data: Dataset, tasks: Sequence[str] | str | None) -> tuple[Task, ...]:
    """The tasks to score by.

    Raises:
      ValueError: for one that the data set lacks, or of a kind that no score reads.
    """
    names = [t.name for t in data.tasks] if tasks is None else [tasks] if isinstance(tasks, str) else list(tasks)
    by_name = {t.name: t for t in data.tasks}
    for name in names:
        if name not in by_name:
            raise parts.unknown(f"task of data set {data.name!r}", name, by_name)
        if by_name[name].kind not in KINDS:
            others = [n for n in names if by_name.get(n) is not None and by_name[n].kind in KINDS]
            hint = f"; rank by others: tasks={others}" if others and tasks is None else ""
            raise ValueError(f"task {name!r} is {by_name[name].kind}; scores read {', '.join(KINDS)}{hint}")
    if not names:
        raise ValueError("tasks is empty; name one at least, or None for all")
    return tuple(by_name[n] for n in names)


def labelled_rows(
    tasks: Sequence[Task], train: Batch, most: int, seed: int
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """({task: numbers of the rows to read, ascending}, what was left out, in words)."""
    found, notes = {}, []
    for task in tasks:
        mask, weights = counted(train, task.name)
        there = np.flatnonzero(mask.reshape(len(mask), -1).all(1))
        if len(there) < len(mask):
            notes.append(f"task {task.name}: {len(there):,} of {len(mask):,} training rows have a label; the others "
                         "are left out")  # fmt: skip
        if len(there) < 4:
            raise ValueError(f"task {task.name!r} has {len(there)} labelled training rows; a ranking needs 4 at least")
        if len(there) > most:
            notes.append(
                f"task {task.name}: {most:,} of {len(there):,} labelled rows were drawn (max_rows, seed {seed})"
            )
            there = np.sort(np.random.default_rng(seed).choice(there, most, replace=False))
        if np.ptp(weights[there]) > 0:
            notes.append(f"task {task.name}: rows have weights, which scores do not read")
        found[task.name] = there
    return found, tuple(notes)


def seen_by_task(
    name: str, candidate: Any, tasks: Sequence[Task], train: Batch, rows: dict[str, np.ndarray], batch_size: int
) -> list[tuple[Task, candidates.Seen, np.ndarray]]:
    """(task, what the candidate sees, which of the seen rows are the task's); common inputs are passed once for all."""
    if isinstance(train.inputs, PerTask):
        found = []
        for task in tasks:
            own = jax.tree.map(lambda x, t=task: rows_of(x, rows[t.name]), inputs_of(train.inputs, task.name))
            found.append((task, candidates.see(name, candidate, own, batch_size), np.arange(len(rows[task.name]))))
        return found
    union = np.unique(np.concatenate(list(rows.values())))
    inputs = jax.tree.map(lambda x: rows_of(x, union), train.inputs)
    seen = candidates.see(name, candidate, inputs, batch_size)
    none = seen._replace(seconds=0.0)
    return [(t, none if i else seen, np.searchsorted(union, rows[t.name])) for i, t in enumerate(tasks)]


def targets_of(task: Task, train: Batch, rows: np.ndarray) -> np.ndarray:
    """Class numbers [N], or numbers in units of their own spread [N, K]."""
    found = np.asarray(train.targets[task.name])[rows]
    if task.of_kind.labels != "numbers":
        if len(np.unique(found)) < 2:
            raise ValueError(
                f"task {task.name!r}: every label that is read is {found[0]:g}; a ranking needs two classes"
            )
        return found.astype(np.int64)
    found = found.astype(np.float64).reshape(len(found), -1)
    spread = found.std(0)
    if not (spread > 0).any():
        raise ValueError(
            f"task {task.name!r}: every label that is read is {found[0, 0]:g}; there is nothing to explain"
        )
    return ((found - found.mean(0)) / np.where(spread > 0, spread, 1))[:, spread > 0]


def _score(
    score: scores.Score, task: Task, seen: candidates.Seen, reading: str, at: np.ndarray, labels: np.ndarray
) -> tuple[float, str, float]:
    """(value or nan, why there is none, seconds)."""
    started, classes = time.perf_counter(), task.of_kind.labels != "numbers"
    if not classes and score.targets == "classes":
        return float("nan"), "it reads classes, and the task has numbers", 0.0
    if score.reads == "probabilities":
        if not seen.probabilities:
            return float("nan"), "the candidate has no classification head", 0.0
        own = {reading: seen.probabilities[reading]} if reading in seen.probabilities else seen.probabilities
        values = [score.function(p[at].astype(np.float64) / p[at].sum(1, keepdims=True), labels) for p in own.values()]
        return max(values), "", time.perf_counter() - started
    options = {"classes": classes} if score.targets == "any" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            value = score.function(seen.features[reading][at], labels, **options)
    except (ValueError, ImportError, RuntimeWarning, np.linalg.LinAlgError) as error:
        return float("nan"), str(error), time.perf_counter() - started
    return value, "", time.perf_counter() - started

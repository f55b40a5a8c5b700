"""Few-shot sets: so many labels of each class, drawn so that fewer are among more."""

import dataclasses
import zlib
from typing import Any

import numpy as np
from jaxtyping import Bool

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, labels_of
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import Dataset, fit_scaler, gather_rows
from mtl_jax.kinds import one_class_a_row
from mtl_jax.tasks import Task
from mtl_jax.training.arguments import check_data


def few_shot(data: Dataset, shots: int, seed: int = 0, val: int | None = None) -> Dataset:
    """The data set with `shots` training labels of each class of each task; the test split is whole.

    Tasks of one class a row (classification, binary) keep so many rows of each class; other tasks keep so many rows
    with a label. Where tasks read common rows, the rows are those that any task keeps, and a task's labels beyond its
    own are masked. Under one seed, fewer shots are among more. Scalers are fitted to what is left.

    Args:
      data: any; rows of a class that has fewer labels than `shots` are all kept.
      shots: at least 1.
      seed: of the draw.
      val: labels of each class in the validation split; None: as many as `shots`; 0: no validation split.

    Raises:
      ValueError: for numbers that are none, or a task without training labels.
    """
    check_data(data)
    parts.check_whole("shots", shots)
    parts.check_seed(seed)
    kept = {"train": shots, "val": shots if val is None else val}
    parts.check_whole("val", kept["val"], 0)
    splits: dict[str, Any] = {"train": None, "val": None}
    rows: dict[str, Any] = {}
    for name, count in kept.items():
        split = getattr(data, name)
        if split is not None and count:
            splits[name], rows[name] = _drawn(data.tasks, split, count, seed + (name == "val"), name)
    scalers = {t.name: fit_scaler(t, splits["train"]) if t.scaler else None for t in data.tasks}
    tasks = tuple(dataclasses.replace(t, scaler=scalers[t.name]) for t in data.tasks)
    groups = None
    if data.groups is not None:
        groups = {k: g if k == "test" else g[rows[k]] for k, g in data.groups.items() if k == "test" or k in rows}
    new = dataclasses.replace(data, tasks=tasks, **splits, spec=None, rows=None, groups=groups)
    check_dataset(new)
    return new


def _drawn(tasks: tuple[Task, ...], split: Batch, shots: int, seed: int, name: str) -> tuple[Batch, Any]:
    """(the rows of a split with the labels that are kept, which rows)."""
    chosen = {t.name: chosen_rows(t, split, shots, seed) for t in tasks}
    for task, of_task in chosen.items():
        if name == "train" and not of_task.any():
            raise ValueError(f"few_shot: task {task!r} has no label in train")
    if isinstance(split.inputs, PerTask):
        rows: Any = {t: np.flatnonzero(c) for t, c in chosen.items()}
        return gather_rows(split, rows), rows
    rows = np.flatnonzero(np.any(list(chosen.values()), 0))
    few = gather_rows(split, rows)
    masks = {t: _and(np.asarray(few.masks[t]), c[rows]) for t, c in chosen.items()}
    return few._replace(masks=masks), rows


def _and(mask: np.ndarray, rows: Bool[np.ndarray, " row"]) -> np.ndarray:
    return mask & rows.reshape(-1, *(1,) * (mask.ndim - 1))


def chosen_rows(task: Task, split: Batch, shots: int, seed: int) -> Bool[np.ndarray, " row"]:
    """Which rows of a split a task keeps the labels of."""
    target, there = labels_of(split, task.name)[0], labelled(split, task)
    order = np.random.default_rng([seed, zlib.crc32(task.name.encode())]).permutation(len(there))
    order = order[there[order]]
    chosen = np.zeros(len(there), bool)
    if not one_class_a_row(task.kind):
        chosen[order[:shots]] = True
        return chosen
    classes = np.asarray(target).reshape(len(there), -1)[order, 0].astype(int)
    for c in np.unique(classes):
        chosen[order[classes == c][:shots]] = True
    return chosen


def labelled(split: Batch, task: Task) -> Bool[np.ndarray, " row"]:
    """Which rows have a label of a task that counts."""
    mask, weights = np.asarray(split.masks[task.name]), labels_of(split, task.name)[2]
    there = np.asarray(mask.reshape(mask.shape[0], -1).any(1))
    return there if weights is None else there & (np.asarray(weights).reshape(len(there), -1) > 0).any(1)

"""What a data set must hold, checked once before training; each error names task, split, row and value."""

from typing import Any

import jax
import numpy as np

from mtl_jax import inputs, partition, parts
from mtl_jax.batch import Batch, counted, inputs_of, labelled_elements, num_rows
from mtl_jax.tasks import Task, check_names


def check_dataset(data: Any) -> None:
    """Checks the tasks and every split of a `Dataset`.

    Raises:
      ValueError: for rows that do not match, inputs or labels that are not finite, of the wrong dtype or shape or out
        of range, and for a task without a single training label.
    """
    check_names(data.tasks)
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        if split is not None:
            check_split(data.tasks, split, name)
            groups = None if data.groups is None else data.groups.get(name)
            if groups is not None and np.shape(groups) != (num_rows(split),):
                raise ValueError(f"groups of {name} have shape {np.shape(groups)}; they must be one number for each of "
                                 f"{num_rows(split)} rows")  # fmt: skip
    for task in data.tasks:
        if not np.asarray(data.train.masks[task.name]).any():
            raise ValueError(f"task {task.name!r} has no label in train; leave it out, or give it labels")
        if not counted(data.train, task.name)[0].any():
            raise ValueError(
                f"task {task.name!r}: every labelled row of train has weight 0; leave it out or give it weights above 0"
            )


def check_split(tasks: tuple[Task, ...], split: Batch, name: str) -> None:
    """Checks one split."""
    for key, leaf in jax.tree.leaves_with_path(split.inputs):
        if inputs.are_bytes_on_disk(leaf):
            continue
        leaf, what = np.asarray(leaf), inputs.place(name)(partition.path_name(key))
        if leaf.dtype == object or leaf.dtype.kind in "USMm":
            raise ValueError(f"{what} have dtype {leaf.dtype}; they must be numbers")
        # nan may stand for a value that is missing; an encoder says what it can read (`Encoder.check`).
        inputs.check_numbers(leaf, what)
    weights = split.weights or {}
    for task in tasks:
        for field in ("targets", "masks"):
            if task.name not in getattr(split, field):
                raise ValueError(f"task {task.name!r} has no {field} in {name}")
        lengths = {len(x) for x in jax.tree.leaves(inputs_of(split.inputs, task.name))}
        target, mask = np.asarray(split.targets[task.name]), np.asarray(split.masks[task.name])
        lengths |= {len(target), len(mask)}
        if len(lengths) > 1:
            raise ValueError(
                f"task {task.name!r}: {name} has {num_rows(split, task.name)} rows of inputs, {len(target)} targets "
                f"and {len(mask)} masks"
            )
        check_labels(task, target, mask, name)
        if task.name in weights:
            check_weights(task.name, np.asarray(weights[task.name]), len(target), name)
    for unknown in set(weights) - {t.name for t in tasks}:
        raise parts.unknown(f"task in weights of {name}", unknown, [t.name for t in tasks])


def check_weights(task: str, weights: np.ndarray, rows: int, split: str) -> None:
    """Checks the weights of one task's rows."""
    where = f"task {task!r}: weights of {split}"
    if weights.dtype.kind not in "fiub" or weights.shape != (rows,):
        raise ValueError(
            f"{where} are {weights.dtype} {weights.shape}; they must be numbers of shape ({rows},), one a row"
        )
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{where}: {weights[row]:g} in row {row} must be finite and at least 0; 0 leaves a row out")


def check_labels(task: Task, target: np.ndarray, mask: np.ndarray, split: str) -> None:
    """Checks the labels of one task; what is masked may hold anything."""
    kind, where = task.of_kind, f"task {task.name!r}"
    if mask.dtype != bool or mask.shape != target.shape[: mask.ndim]:
        raise ValueError(
            f"{where}: the mask of {split} is {mask.dtype} {mask.shape}; it must be bool, "
            f"of a shape that begins the target's, {target.shape}"
        )
    row = task.row_axes
    fits = zip(row, target.shape[1:], strict=False)
    if len(target.shape) != 1 + len(row) or any(isinstance(wanted, int) and wanted != n for wanted, n in fits):
        size = "" if task.size is None else f" of size {task.size}"
        raise ValueError(
            f"{where}: targets of {split} have shape {target.shape}; {task.kind}{size} takes "
            f"({', '.join(['rows', *map(str, row)])})"
        )
    if kind.whole and mask.ndim == target.ndim:
        raise ValueError(
            f"{where}: the mask of {split} has shape {mask.shape}; a {task.kind} label is there as a whole or not at "
            f"all, so that the mask must have at most the axes {target.shape[:-1]}"
        )
    wanted = "i" if kind.labels == "classes" else "f"
    if target.dtype.kind != wanted:
        names = {"i": "integers (int32)", "f": "float32"}
        raise ValueError(f"{where}: targets of {split} are {target.dtype}; {task.kind} takes {names[wanted]}")
    labelled = labelled_elements(target, mask)
    bad, allowed = wrong_labels(task, np.where(labelled, target, 0))
    bad &= labelled
    if bad.any():
        at = tuple(np.argwhere(bad)[0].tolist())
        place = f", column {at[1]}" if len(at) == 2 else f", position {at[1:]}" if len(at) > 2 else ""
        value = f"{target[at].item():g}" if not kind.whole else target[at[:-1]].tolist()
        place = place if not kind.whole else f", position {at[1:-1]}" if len(at) > 2 else ""
        raise ValueError(f"{where}: label {value} in row {at[0]}{place} of {split} is {allowed}")


def wrong_labels(task: Task, target: np.ndarray) -> tuple[np.ndarray, str]:
    """(where a label is none of its kind, what is wrong with it)."""
    kind = task.of_kind
    if kind.labels == "classes":
        size = task.num_classes or 0
        return (target < 0) | (target >= size), f"outside 0..{size - 1}"
    if kind.labels == "zero_one":
        return (target != 0) & (target != 1), "neither 0 nor 1"
    bad = ~np.isfinite(target)
    if bad.any() or kind.wrong is None:
        return bad, "not finite"
    return kind.wrong(target)

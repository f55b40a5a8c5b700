"""Labels by the names of their classes: numbers of one data set become those of another, or of a run."""

from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, labelled_elements
from mtl_jax.kinds import dtype_of
from mtl_jax.tasks import Task


def in_order_of(tasks: Sequence[Task], split: Batch, given: Sequence[Task], where: str) -> Batch:
    """The split with labels of the `tasks` that it has, numbered as these have their classes.

    Args:
      tasks: whose class numbers are wanted.
      split: its labels are class numbers of `given`, or of `tasks` already where `given` has no names.
      given: the tasks that the split belongs to.
      where: the split's name in messages.

    Raises:
      ValueError: naming a class of the split that a task does not have.
    """
    by_name = {t.name: t for t in given}
    targets, masks = dict(split.targets), dict(split.masks)
    for task in tasks:
        old = by_name.get(task.name)
        if old is None or task.name not in targets or not old.classes or not task.classes:
            continue
        if old.classes == task.classes and old.kind == task.kind:
            continue
        target, mask = np.asarray(targets[task.name]), np.asarray(masks[task.name])
        if names_elements(task) and names_elements(old):
            targets[task.name] = renumbered(task, old, target, mask, where)
        elif not names_elements(task) and old.kind == task.kind:
            order = columns(task, old, where)
            targets[task.name] = target[..., order]
            masks[task.name] = mask[..., order] if mask.ndim == target.ndim else mask
    return Batch(split.inputs, targets, masks, split.weights)


def names_elements(task: Task) -> bool:
    """Whether a label is one of the classes, rather than that `classes` names columns of labels."""
    return task.of_kind.labels == "classes" or (task.of_kind.two and len(task.classes) == 2)


def renumbered(task: Task, old: Task, target: np.ndarray, mask: np.ndarray, where: str) -> np.ndarray:
    """Class numbers of `old` as those of `task`, in the dtype of its kind; 0 where there is no label."""
    known = {c: i for i, c in enumerate(task.classes)}
    table = np.array([known.get(c, -1) for c in old.classes])
    there = labelled_elements(target, mask)
    new = table[np.where(there, target, 0).astype(np.int32)]
    lost = there & (new < 0)
    if lost.any():
        row = np.argwhere(lost)[0]
        name = old.classes[int(target[tuple(row)])]
        raise parts.unknown(f"class in row {row[0]} of {where}, for task {task.name!r}:", name, task.classes)
    return np.where(there, new, 0).astype(dtype_of(task.of_kind))


def columns(task: Task, old: Task, where: str) -> list[int]:
    """Where each label of `task` lies among the columns of `old`."""
    if sorted(task.classes) != sorted(old.classes):
        raise ValueError(
            f"task {task.name!r}: {where} has the labels {', '.join(old.classes)}; it takes {', '.join(task.classes)}"
        )
    return [old.classes.index(c) for c in task.classes]

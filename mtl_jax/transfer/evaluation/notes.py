"""What a reader of an evaluation must know, found out before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.batch import Batch, labels_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.kinds import one_class_a_row
from mtl_jax.reporting.many import some
from mtl_jax.tasks import Task
from mtl_jax.training.constants import untold
from mtl_jax.training.run import Run
from mtl_jax.transfer.evaluation.few_shot import labelled
from mtl_jax.transfer.evaluation.reading import ALL


def told_of(data: Dataset, counts: Sequence[int | str], validation: int | None) -> tuple[tuple[Task, ...], list[str]]:
    """(the tasks that test labels can judge, notes).

    Raises:
      ValueError: if they can judge none.
    """
    assert data.test is not None  # asked for before
    untested = {t.name: why for t in data.tasks if (why := untold(t, data.test))}
    told = tuple(t for t in data.tasks if t.name not in untested)
    if not told:
        raise ValueError(f"test labels can judge no task: {'; '.join(f'{t}: {why}' for t, why in untested.items())}")
    notes = [f"left out of every figure: {t}, {why} in test" for t, why in untested.items()]
    for name, asked in (("train", counts), ("val", counts if validation is None else [validation])):
        split = getattr(data, name)
        if split is None or asked == [0]:
            continue
        for count in asked:
            short = [t.name for t in data.tasks if count != ALL and fewest(split, t) < int(count)]
            if short:
                notes.append(f"{count} labels: in {name}, classes of {some(short, 5)} have fewer, which are all there")
    for task in data.tasks:
        if missing := without_labels(data.train, task):
            notes.append(f"{task.name}: {missing} of its {task.size} classes have no training label")
    if data.val is None or validation == 0:
        notes.append("there is no validation: the last variables count, and no method is chosen")
    return told, notes


def counts_of(split: Batch, task: Task) -> np.ndarray:
    """Labels of each class; of a task without classes of rows, how many there are."""
    there = labelled(split, task)
    if not one_class_a_row(task.kind):
        return np.array([there.sum()])
    target = np.asarray(labels_of(split, task.name)[0]).reshape(len(there), -1)[there, 0].astype(int)
    return np.bincount(target, minlength=2 if task.of_kind.two else task.size or 0)


def fewest(split: Batch, task: Task) -> int:
    """Labels of the rarest class that has any."""
    counts = counts_of(split, task)
    return int(counts[counts > 0].min(initial=np.iinfo(np.int32).max))


def without_labels(split: Batch, task: Task) -> int:
    """How many classes have no label."""
    return int((counts_of(split, task) == 0).sum()) if one_class_a_row(task.kind) else 0


def why_not_lost(source: Any, data: Dataset, old: Dataset | None, given: Mapping[str, Any]) -> str:
    """Why what old tasks lose cannot be measured; "" where it can, or was not asked for."""
    if old is None:
        return ""
    assert isinstance(source, Run)  # asked for before
    names = {t.name for t in source.tasks}
    if old.test is None:
        return "the old data have no test split"
    if lacking := sorted(names - {t.name for t in old.tasks}):
        return f"the old data lack the source's task {lacking[0]!r}"
    if both := sorted(names & {t.name for t in data.tasks}):
        return f"old and new tasks are both called {both[0]!r}"
    if "model" in given:
        return "the new model is of another make than the source's"
    return ""

"""A data set: tasks with their class names and scalers, and up to three splits, each one long `Batch` in memory."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Tasks and their splits.

    Attributes:
      name: for tables and messages.
      tasks: their order is the order of every task axis.
      train, val, test: NumPy batches of whole splits; val and test may be None.
      spec: the call that loads it again, such as ``"tox21()"``; None for data that the caller holds.
    """

    name: str
    tasks: tuple[Task, ...]
    train: Batch
    val: Batch | None = None
    test: Batch | None = None
    spec: str | None = None

    def select(self, names: Sequence[str]) -> "Dataset":
        """The same rows with these tasks only, in this order."""
        by_name = {t.name: t for t in self.tasks}
        for name in names:
            if name not in by_name:
                raise parts.unknown("task", name, by_name)
        tasks = tuple(by_name[n] for n in names)
        splits = {k: select_tasks(getattr(self, k), names) for k in ("train", "val", "test")}
        return dataclasses.replace(self, tasks=tasks, spec=None, **splits)

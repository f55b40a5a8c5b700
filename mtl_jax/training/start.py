"""What a fit starts from: tasks with their scalers, first variables, and what transfer brings along."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax import partition, parts
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.sharing.model import MultiTaskModel
from mtl_jax.tasks import Task


class Adapted(NamedTuple):
    """A model with variables brought from another run.

    Attributes:
      model: on the new tasks.
      variables: {"params": {path: array}, "state": {path: array}} to start from; the rest is initialised afresh.
      freeze: rules for what stays as it is.
      report: which paths were loaded, initialised afresh and left behind.
      members: length of the leading axis of `variables`, if they come from several runs; else 0.
      columns: how the columns of the source run's table were encoded; None if it was none.
    """

    model: MultiTaskModel
    variables: dict[str, dict[str, Any]]
    freeze: Any
    report: dict[str, list[str]]
    members: int = 0
    columns: Any = None

    def member(self, index: int) -> dict[str, dict[str, Any]]:
        """The variables of one of several runs."""
        return jax.tree.map(lambda x: x[index], self.variables) if self.members else self.variables


def resolve_tasks(tasks: Sequence[Task], data: Dataset) -> tuple[Task, ...]:
    """The model's tasks, with the scalers that the data set fitted where they have none of their own.

    Raises:
      ValueError: for a task that the data set lacks, or whose kind or size differs there.
    """
    of_data = {t.name: t for t in data.tasks}
    resolved = []
    for task in tasks:
        if task.name not in of_data:
            raise parts.unknown(f"task of data set {data.name!r}", task.name, of_data)
        other = of_data[task.name]
        if (task.kind, task.size) != (other.kind, other.size):
            raise ValueError(
                f"task {task.name!r} is {task.kind} of size {task.size} in the model, "
                f"but {other.kind} of size {other.size} in data set {data.name!r}"
            )
        new = dataclasses.replace(task, scaler=task.scaler or other.scaler, classes=task.classes or other.classes)
        resolved.append(new)
    return tuple(resolved)


def small_batch(split: Batch, rows: int = 2) -> Batch:
    """The first rows of a split, to learn shapes from."""
    return jax.tree.map(lambda x: np.asarray(x[:rows]), split)


def initial_variables(model: MultiTaskModel, example: Batch, key: jax.Array, given: dict[str, Any]) -> Any:
    """The model's initial variables with those of `given` ({"params", "state"}: {path: array}) in their place."""
    variables = model.init(key, example)
    return {
        kind: partition.unflatten(given.get(kind, {}), variables[kind]) if kind in given else variables[kind]
        for kind in variables
    }

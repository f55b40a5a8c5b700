"""A split that knows its tasks, so that its class numbers can be read by another data set's names."""

from typing import Any

from mtl_jax.batch import Batch
from mtl_jax.tasks import Task


class Split(Batch):
    """A whole split of a `Dataset`: a `Batch`, whose class numbers are those of `tasks`.

    What is computed from one by `jax.tree.map` has no tasks: its class numbers mean what they are taken for.
    """

    tasks: tuple[Task, ...] = ()

    def _replace(self, **changes: Any) -> "Split":
        return of(super()._replace(**changes), self.tasks)


def of(batch: Batch, tasks: tuple[Task, ...]) -> Split:
    """A batch as a split of these tasks."""
    split = Split(*batch)
    split.tasks = tuple(tasks)
    return split


def plain(batch: Batch) -> Batch:
    """A split without its tasks, so that all batches of a program have one type."""
    return Batch(*batch)

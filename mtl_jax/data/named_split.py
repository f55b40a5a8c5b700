"""A split that knows its tasks, so that its class numbers can be read by another data set's names."""

from typing import Any

from mtl_jax.batch import Batch
from mtl_jax.tasks import Task


class Split(Batch):
    """A whole split of a `Dataset`: a `Batch`, whose class numbers are those of `tasks`.

    Of a table, `columns` is what encoded its inputs (`tables.Encoding`), so that a model is not shown other units.

    What is computed from one by `jax.tree.map` has no tasks: its class numbers mean what they are taken for.
    """

    tasks: tuple[Task, ...] = ()
    columns: Any = None

    def _replace(self, **changes: Any) -> "Split":
        return of(super()._replace(**changes), self.tasks, self.columns)


def of(batch: Batch, tasks: tuple[Task, ...], columns: Any = None) -> Split:
    """A batch as a split of these tasks."""
    split = Split(*batch)
    split.tasks, split.columns = tuple(tasks), columns
    return split


def plain(batch: Batch) -> Batch:
    """A split without its tasks, so that all batches of a program have one type."""
    return Batch(*batch)

"""A funnel: yes/no tasks in an order, each of which can only happen where the one before did, such as click and buy."""

from collections.abc import Callable, Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.tasks import Task


def check_funnel(funnel: Sequence[str], tasks: Sequence[Task], sharing: str) -> tuple[str, ...]:
    """The names as a tuple, or an error if they are not two or more binary tasks, each named once."""
    by_name = {t.name: t for t in tasks}
    if isinstance(funnel, str) or not hasattr(funnel, "__iter__") or len(tuple(funnel)) < 2:
        raise ValueError(f"{sharing}: a funnel has two tasks at least, first to last, not {funnel!r}")
    for name in funnel:
        task = parts.lookup(name, by_name, f"task in {sharing}")
        if list(funnel).count(name) > 1:
            raise ValueError(f"{sharing}: the funnel has task {name!r} twice")
        if task.kind != "binary":
            raise ValueError(f"{sharing}: task {name!r} is {task.kind}, and a step of a funnel is binary")
    return tuple(funnel)


def labels_of_all_rows(funnel: Sequence[str], sharing: str) -> Callable[[Batch, str], None]:
    """The `MultiTaskModel.check` of losses over all rows: a step that cannot have happened is labelled 0.

    Raises:
      ValueError: (when called) for rows that have a label 1 after a 0, or no label there.
    """

    def check(split: Batch, name: str) -> None:
        if isinstance(split.inputs, PerTask):  # whose rows are not the same: `walked` refuses them
            return
        for before, after in zip(funnel, funnel[1:], strict=False):
            stopped = np.asarray(split.masks[before]) & (np.asarray(split.targets[before]) == 0)
            labelled = np.asarray(split.masks[after])
            wrong = stopped & labelled & (np.asarray(split.targets[after]) == 1)
            if wrong.any():
                raise ValueError(
                    f"{sharing}: row {wrong.argmax()} of {name} has {after!r} 1 and {before!r} 0, and in a funnel "
                    f"{after!r} follows {before!r}; correct the labels, or the order of the tasks"
                )
            if missing := (stopped & ~labelled).sum():
                raise ValueError(
                    f"{sharing}: {missing} rows of {name} have {before!r} 0 and no label of {after!r}, whose loss is "
                    f"over all rows; label it 0 where {before!r} is 0"
                )

    return check

"""A batch of one's own, as the compiled steps read it: a split of which each row is read once."""

from typing import Any

import numpy as np

from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.parallel import check_batch_size
from mtl_jax.scaler import centred
from mtl_jax.stacking import Layout
from mtl_jax.training.arguments import check_is_split, read_labels
from mtl_jax.training.compiled import read
from mtl_jax.training.dispatch import lay_out, offsets


def laid_out(plan: Any, program: Any, step: int, batch: Batch, validation: Batch | None) -> tuple[tuple, list[tuple]]:
    """(splits, the rows of each member) of one step: the given batches, and else the rows that the step would read.

    Raises:
      ValueError: for labels or inputs that do not fit, or a validation batch that the method does not read.
    """
    splits, rows = list(program.splits), [list(feed.rows(step, 1)) for feed in program.feeds]
    if validation is not None and len(splits) < 2:
        raise ValueError("the balancer reads training batches only; leave the validation batch out")
    for i, given in enumerate((batch, validation)):
        if given is not None or i == 0:
            split = checked(plan, program, given)
            splits[i] = lay_out(split, program.layout)
            for of_member in rows:
                of_member[i] = every_row(split, program.layout)
    return tuple(splits), [tuple(r) for r in rows]


def checked(plan: Any, program: Any, batch: Any) -> Batch:
    """The batch with labels in the dtypes of their kinds, and inputs in the form that the model reads."""
    check_is_split(batch)
    inputs = read(plan.model, program.example, batch.inputs)
    batch = read_labels(plan.tasks, batch._replace(inputs=inputs))
    sizes = {num_rows(batch, t.name) for t in plan.tasks} if isinstance(inputs, PerTask) else {num_rows(batch)}
    if len(sizes) > 1:
        raise ValueError(f"the batch has {min(sizes)} rows of one task and {max(sizes)} of another; give equally many")
    check_batch_size(sizes.pop(), plan.mesh)
    return centred(plan.tasks, batch)


def every_row(split: Batch, layout: Layout) -> Any:
    """Rows as `Feed.rows` has them, of one step that reads all."""
    if not isinstance(split.inputs, PerTask):
        return np.arange(num_rows(split), dtype=np.int32)[None]
    starts = offsets(split, layout)
    return {
        first: (starts[first][:, None] + np.arange(num_rows(split, names[0]), dtype=np.int32))[None]
        for first, names in layout.groups.items()
    }

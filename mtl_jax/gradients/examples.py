"""Losses row by row: the objectives task x example, and the two halves of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.gradients import rows
from mtl_jax.gradients.heads import Heads
from mtl_jax.gradients.linearization import Examples
from mtl_jax.parallel import global_sum
from mtl_jax.tasks import Task, divisor, elements, loss_sum


def examples_of(heads: Heads) -> Examples:
    """The objectives task x example.

    Raises:
      ValueError: if a task's loss joins rows of the batch.
    """
    check_rows(heads)
    sums, by_row = row_losses(heads)
    scale = labelled_examples(heads)
    share = scale[:, None] * sums / divisor(heads.counts)[:, None]
    present = (by_row > 0) & heads.usable[:, None]
    return Examples(jnp.where(present, share, 0), present, scale)


def labelled_examples(heads: Heads) -> Float[Array, " task"]:
    """How many examples have labels for each task."""
    return (row_losses(heads)[1] > 0).sum(1).astype(heads.losses.dtype)


def halves(
    heads: Heads, unit: Array
) -> tuple[Float[Array, "task batch"], Float[Array, "task batch"], Bool[Array, " task"]]:
    """Factors of rows that make the gradients of a batch those of its first and second half, and the tasks in both.

    Args:
      heads: of the batch.
      unit: a factor of both.

    Raises:
      ValueError: if the batch cannot be halved, or a task's loss joins its rows.
    """
    size = heads.point.size
    if size % 2:
        raise ValueError(f"two samples are two halves of a batch, and {size} rows cannot be halved; "
                         "use an even batch_size")  # fmt: skip
    check_rows(heads)
    _, by_row = row_losses(heads)
    inside = jnp.arange(size) % 2 == jnp.arange(2)[:, None, None]  # interleaved, as rows may be sorted or sharded
    in_half = global_sum(jnp.where(inside, by_row, 0).sum(-1))
    factors = jnp.where(inside, (heads.counts / divisor(in_half))[..., None], 0)
    first, second = factors.astype(heads.losses.dtype)
    return first * unit, second * unit, heads.usable & (in_half > 0).all(0)


def row_losses(heads: Heads) -> tuple[Float[Array, "task batch"], Float[Array, "task batch"]]:
    """(sums, counts) of the losses row by row."""
    layout, batch = heads.point.layout, heads.point.batch

    def of_rows(task: Task, *row: Any) -> Any:
        return jax.vmap(lambda *one: loss_sum(task, *jax.tree.map(lambda x: x[None], one)))(*row)

    return layout.join(layout.each(of_rows, heads.outputs, batch.targets, batch.masks, batch.weights))


def check_rows(heads: Heads) -> None:
    """An error if a task's loss is a function that joins rows of the batch."""
    layout, batch = heads.point.layout, heads.point.batch
    for first in layout.groups:
        t = layout.group_tasks(first)[0]
        y, mask, o = jax.tree.map(lambda x: x[0], (batch.targets[first], batch.masks[first], heads.outputs[first]))
        if callable(t.loss) and rows.meet(lambda o, t=t, y=y, m=mask: elements(t, o, y, m)[0], o,
                                          len(mask)) == rows.MIXED:  # fmt: skip
            raise ValueError(
                f"the loss of task {t.name!r} joins rows of the batch, so rows and halves have no losses of their "
                "own; use objectives='tasks' and a method that reads one sample ('upgrad')"
            )

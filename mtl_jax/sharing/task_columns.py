"""A column of stages per task whose features are mixed after every stage: cross-stitch, NDDR and sluice networks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


def mixed_columns(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    unit: Callable,
    reading: Callable | None = None,
    **more: Any,
) -> MultiTaskModel:
    """A copy of the encoder per task; `unit` mixes them after each stage, `reading` makes their tops.

    Everything is under ``shared``: ``columns`` (stacked in the tasks' order), ``units/<stage>`` and ``reading``.

    Args:
      encoder: of each column.
      tasks, sharing, more: see `walked`.
      unit: (at, path, values [task, B, ..., width]) -> values; what it has lies at the path.
      reading: (at, [features behind each stage, stacked by task]) -> features, in front of the pool; None for the last.
    """
    names = tuple(t.name for t in check_names(tasks))
    pool = [("pool", encoder.pool)] if encoder.pool is not None else []

    def walk(at: Any, x: Any) -> Any:
        behind = []
        for i, stage in enumerate(encoder.stages):
            x = at.columns([(f"stage_{i}", stage)], "shared/columns", names, x, stacked=i > 0)
            x = with_values(x, unit(at, f"shared/units/stage_{i}", values_of(x)))
            behind.append(x)
        x = x if reading is None else reading(at, behind)
        return at.apart(at.columns(pool, "shared/columns", names, x, stacked=True))

    return walked(sharing, encoder, tasks, walk, **more)


def own_and_others(count: int, own: float, sharing: str) -> Array:
    """[count, count]: `own` on the diagonal, the rest of 1 spread evenly over the others; 1 for a lone column.

    Raises:
      ValueError: if `own` is not a share.
    """
    if not 0 <= own <= 1:
        raise ValueError(f"{sharing}: own={own} must lie in [0, 1]")
    return jnp.where(jnp.eye(count, dtype=bool), own if count > 1 else 1.0, (1 - own) / max(count - 1, 1))

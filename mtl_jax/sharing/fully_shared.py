"""Everything shared, the output layer too: tasks differ in their inputs, or in what they read off the outputs."""

from collections.abc import Sequence
from typing import Any

import jax

from mtl_jax import heads
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="a baseline, no paper",
    when="tasks that are one task, such as languages or sites",
)
def fully_shared(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """One trunk and one head, ``shared/encoder`` and ``shared/head``; every task has its own loss on the same outputs.

    The head is as wide as the widest task, and a narrower one reads the first of the outputs: tasks of one width share
    every parameter. ``tasks`` is empty. The head runs in `encode`, so the features are the outputs.

    Source: a baseline, no paper.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.

    Raises:
      ValueError: if tasks ask for different heads.
    """
    tasks = check_names(tasks)
    asked = {t.head or t.of_kind.head: t.name for t in reversed(tasks)}
    if len(asked) > 1:
        text = ", ".join(f"{name!r} asks for {head!r}" for head, name in reversed(asked.items()))
        raise ValueError(f"fully_shared: all tasks share one head, and {text}")
    sizes = {t.name: t.width for t in tasks}
    widest = Task("widest", "regression", max(size or 1 for size in sizes.values()), head=next(iter(asked)))
    named, head = base.layers(encoder), [("head", heads.build(widest, encoder.members))]

    def walk(at: Any, inputs: Any) -> Outputs:
        return at(head, "shared", at(named, "shared/encoder", inputs))

    def finish(at: Any, x: Outputs) -> Outputs:
        size = sizes[at.task]
        return jax.tree.map(lambda y: y[..., 0] if size is None else y[..., :size], x)

    return walked("fully_shared", encoder, tasks, walk, finish, features="common")

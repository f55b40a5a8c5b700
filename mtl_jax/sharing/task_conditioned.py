"""A pass through one trunk per task, in which the task changes features on the way: FiLM, adapters, task embeddings."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Key

from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task


class Step(NamedTuple):
    """One module of a pass.

    Attributes:
      place: where it is, such as "shared/encoder", or "own/film" for one that each task has for itself.
      name, module: called with (x, train=...).
      told: whether x is {"x": the features, "task": the task's vector}.
      before: whether x is {"x": the features, "before": what the encoder's last layer read}.
    """

    place: str
    name: str
    module: nn.Module
    told: bool = False
    before: bool = False


def task_passes(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    steps: Sequence[Step],
    vector: Callable[[Key[Array, ""]], Array] | None = None,
    **more: Any,
) -> MultiTaskModel:
    """A model whose tasks each run `steps` in order, on common inputs or each on its own.

    Args:
      encoder: recorded in the model.
      tasks, sharing, more: see `walked`.
      steps: the encoder's layers, and what acts between them.
      vector: (key) -> a first ``tasks/<t>/embedding`` for the steps that are told the task.
    """

    def one(at: Any, x: Any) -> Any:
        embedding, before = None if vector is None else at.leaf("own/embedding", vector), None
        for step in steps:
            read = {"x": x} | ({"task": embedding} if step.told else {}) | ({"before": before} if step.before else {})
            before = x if step.place == "shared/encoder" else before
            x = at([(step.name, step.module)], step.place, read if len(read) > 1 else x)
        return x

    return walked(sharing, encoder, tasks, lambda at, x: at.each(one, x), features="branched", **more)


def behind_stages(encoder: Encoder, step: Callable[[str], Step]) -> list[Step]:
    """The encoder's layers under ``shared/encoder``, each stage followed by `step` of its name."""
    steps = []
    for name, module in base.layers(encoder):
        steps.append(Step("shared/encoder", name, module))
        if name != "pool":
            steps.append(step(name))
    return steps

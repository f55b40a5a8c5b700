"""A model of a walk: what all tasks have in common, and what is said for one task, serves to start it and to run it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey
from mtl_jax.members import Outputs
from mtl_jax.model import MultiTaskModel, Train, by_kind, merge, no_penalty
from mtl_jax.sharing.running import Running
from mtl_jax.sharing.starting import Starting
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task, check_names

# Architectures that take inputs of each task's own (`PerTask`). The others mix the tasks' features of one input.
OWN_INPUTS = (
    "hard", "independent", "fully_shared", "film", "adapters", "task_embedding", "hypernetwork", "task_routing", "mmoe",
    "cgc", "ple", "dselect_k", "mtan", "soft", "taps", "go_mtl", "dmtrl", "cascade", "adashare", "branched",
)  # fmt: skip


def walked(
    sharing: str,
    encoder: Encoder | None,
    tasks: Sequence[Task],
    walk: Callable,
    finish: Callable | None = None,
    *,
    features: str = "per_task",
    **more: Any,
) -> MultiTaskModel:
    """The model of a walk and of what follows it in each task.

    Inputs of each task's own are walked task by task, in passes of their own, if `OWN_INPUTS` names the architecture.

    Args:
      sharing: named in errors.
      encoder: recorded in the model.
      tasks: of the model.
      walk: (at, inputs) -> what decode gets: one value for all tasks, or `PerTask` of those in ``at.wanted``.
      finish: (at, what the task gets) -> its outputs, in the pass of one task (``at.task``), which reads what is the
        task's own only. None for a head, ``tasks/<t>/head``.
      features: see `MultiTaskModel`.
      more: other entries of `MultiTaskModel`: penalty, alike, check.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    if finish is None:
        assert encoder is not None  # heads follow one
        modules = {t.name: heads.build(t, encoder.members) for t in tasks}

        def finish(at: Any, x: Any) -> Outputs:
            return at([("head", modules[at.task])], "own", x)

    def whole(at: Any, inputs: Any) -> Any:
        if not isinstance(inputs, PerTask):
            return walk(at, jax.tree.map(jnp.asarray, inputs))
        if sharing not in (*OWN_INPUTS, "one_task"):
            able = ", ".join(map(repr, OWN_INPUTS))
            raise ValueError(f"sharing {sharing!r} takes inputs in common; each task's own go to one of {able}")
        return at.each(lambda at, x: inputs_of(walk(at, x), at.task), inputs)

    def start(rng: Key[Array, ""] | TaskKey, batch: Batch, layout: Layout | None = None) -> dict[str, Any]:
        at = Starting(rng, names, batch, sharing, layout)
        at.each(finish, whole(at, batch.inputs))
        return at.variables

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        at = Running(variables, train, rng, names, batch, tasks)
        x = whole(at, batch.inputs)
        return x, at.new_state(), {"losses": at.losses, "metrics": at.metrics}

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Outputs], dict]:
        outputs, changed = {}, {}
        for name, x in features.items():
            at = Running(variables, train, rng, names, wanted=(name,), task=name)
            outputs[name] = finish(at, x)
            changed = merge(changed, at.changed)
        return outputs, changed

    entries = {"penalty": no_penalty, "alike": by_kind, "start": start} | more
    return MultiTaskModel(tasks, features, start, encode, decode, encoder=encoder, **entries)

"""An architecture of one's own, said for one task: what is in common, what a task has, what it sees and what it says.

The framework runs alike tasks as one by `vmap` (`mtl_jax.stacking`) and the others beside each other.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Key

from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.keys import TaskKey, named_key
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind, no_penalty
from mtl_jax.sharing.own_inputs import check_same_shapes
from mtl_jax.tasks import Task, check_names


def one_task(
    tasks: Sequence[Task], shared: Callable, own: Callable, features: Callable, outputs: Callable
) -> MultiTaskModel:
    """A model of functions of one task; they may depend on its kind and size, and not on its name.

    For models without statistics and noise; others are the five functions of `MultiTaskModel`.

    Args:
      tasks: on common inputs, or each on its own of one shape.
      shared: (key, inputs) -> the parameters in common, a nested dict; {} for none.
      own: (key, inputs, task) -> the task's parameters, under ``tasks/<t>``; a task's draws depend on its name alone.
      features: (shared, own, inputs) -> features [batch, ...], in which all that is shared has its part.
      outputs: (own, features, task) -> outputs as `tasks` has them for the kind, such as [batch] or [batch, size].
    """
    tasks = check_names(tasks)
    by_name = {t.name: t for t in tasks}

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        inputs = {t: inputs_of(batch.inputs, t) for t in by_name}
        common = {t: shared(named_key(rng, "shared"), x) for t, x in inputs.items()}
        check_same_shapes({t: {"shared": x} for t, x in common.items()}, "one_task")
        made = {t: own(named_key(rng, f"tasks/{t}/own"), x, by_name[t]) for t, x in inputs.items()}
        return {
            "params": {"shared": common[tasks[0].name], "tasks": made},
            "state": {"shared": {}, "tasks": {}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        del train, rng
        params = variables["params"]
        found = {
            t: features(params["shared"], params["tasks"][t], inputs_of(batch.inputs, t))
            for t in (by_name if tasks is None else tasks)
        }
        return PerTask(found), {}, NO_AUX

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Any], dict]:
        del train, rng
        return {t: outputs(variables["params"]["tasks"][t], x, by_name[t]) for t, x in features.items()}, {}

    return MultiTaskModel(
        tasks, "branched", init, encode, decode, no_penalty, alike=by_kind,
        of_tasks=lambda some: one_task(some, shared, own, features, outputs),
    )  # fmt: skip

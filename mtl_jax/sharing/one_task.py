"""An architecture of one's own, said for one task: what is in common, what a task has, what it sees and what it says.

The framework runs alike tasks as one by `vmap` (`mtl_jax.stacking`) and the others beside each other.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mtl_jax.keys import named_key
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.walk import walked
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
    by_name = {t.name: t for t in check_names(tasks)}

    def one(at: Any, x: Any) -> Any:
        def mine(key: Any) -> Any:
            del key
            return own(named_key(at.key, f"tasks/{at.task}/own"), x, by_name[at.task])

        return features(at.leaf("shared", lambda key: shared(key, x)), at.leaf("own", mine), x)

    def finish(at: Any, x: Any) -> Any:
        return outputs(at.leaf("own"), x, by_name[at.task])

    return walked("one_task", None, tasks, lambda at, x: at.each(one, x), finish, features="branched")

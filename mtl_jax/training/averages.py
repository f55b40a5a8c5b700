"""Optimizers that are evaluated elsewhere than they train: schedule-free ones (Defazio et al. 2024, arXiv:2405.15682).

Gradients are taken at y, and what such an optimizer has found is the average x of its iterates z, where
y = b1 x + (1 - b1) z. Validation, selection and what a run keeps are at x.
"""

from collections.abc import Collection
from typing import Any

import jax
import optax

from mtl_jax import partition
from mtl_jax.training.state import TrainState


def averaging(opt_state: Any) -> list[Any]:
    """The schedule-free states inside an optimizer's state, however it is chained."""

    def is_one(x: Any) -> bool:
        return isinstance(x, optax.contrib.ScheduleFreeState)

    return [x for x in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(x)]


def evaluated_at(state: TrainState, stacked: Collection[str] = ()) -> dict[str, Any]:
    """The variables at which a training state is evaluated; what belongs to the owners in `stacked` lies so."""
    params = partition.flatten(state.params)
    for owner, owned in state.opt_state.items():
        for average in averaging(owned):
            # Leaves that the optimizer leaves to another one (`optax.masked`) are no arrays there.
            z = {p: v for p, v in average.z.items() if isinstance(v, jax.Array)}
            average, found = average._replace(z=z, base_optimizer_state=()), optax.contrib.schedule_free_eval_params
            params |= (jax.vmap(found) if owner in stacked else found)(average, {p: params[p] for p in z})
    return {**state.variables, "params": partition.unflatten(params, state.params)}


def check_averages(opt_state: Any, trunk_states: int, kept_by_validation: bool) -> bool:
    """Whether the optimizer is evaluated elsewhere, or an error where that cannot be.

    Args:
      opt_state: of one owner.
      trunk_states: how many states the trunk has (`optimizers.PerOwner`).
      kept_by_validation: whether what the run keeps is what validation chose, if it keeps anything on disk.
    """
    if not averaging(opt_state):
        return False
    if trunk_states > 1:
        raise ValueError("a schedule-free optimizer has one average of the trunk; alternating(optimizer='per_task') "
                         "would keep one per task: use optimizer='one'")  # fmt: skip
    if not kept_by_validation:
        raise ValueError("a schedule-free optimizer is evaluated at averaged parameters, which a workdir holds only of "
                         "what validation chose; give a validation split, or no workdir")  # fmt: skip
    return True

"""Optimizers that are evaluated elsewhere than they train.

Schedule-free ones (Defazio et al. 2024, arXiv:2405.15682): gradients are taken at y, and what such an optimizer has
found is the average x of its iterates z, where y = b1 x + (1 - b1) z. Moving averages of the parameters beside an
optimizer (`averaged`). SAM, which every second step stands where it looks around. Validation, selection and what a run
keeps are at x, at the average, and where SAM looked from.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax import partition
from mtl_jax.training.state import TrainState


class AveragedState(NamedTuple):
    """Of `averaged`: the optimizer's own state, the average, like the parameters, and how many steps were taken."""

    inner: Any
    average: Any
    count: Any


def averaged(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The optimizer, beside which an exponential moving average of the parameters is kept, to be evaluated at.

    Early steps average over fewer: the decay after t steps is at most (1 + t) / (10 + t), as TensorFlow has it.
    """

    def init(params: Any) -> AveragedState:
        return AveragedState(optimizer.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: AveragedState, params: Any = None) -> tuple[Any, AveragedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        t = state.count.astype(jnp.float32)
        keep = jnp.minimum(decay, (1 + t) / (10 + t))
        moved = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda a, p: (keep * a + (1 - keep) * p).astype(a.dtype), state.average, moved)
        return updates, AveragedState(inner, mean, state.count + 1)

    return optax.GradientTransformation(init, update)


KINDS = (optax.contrib.ScheduleFreeState, optax.contrib.SAMState, AveragedState)


def averaging(opt_state: Any) -> list[Any]:
    """The states of `KINDS` inside an optimizer's state, however it is chained."""

    def is_one(x: Any) -> bool:
        return isinstance(x, KINDS)

    return [x for x in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(x)]


def evaluated_at(state: TrainState, stacked: Collection[str] = ()) -> dict[str, Any]:
    """The variables at which a training state is evaluated; what belongs to the owners in `stacked` lies so."""
    params = partition.flatten(state.params)
    for owner, owned in state.opt_state.items():
        for average in averaging(owned):
            if not isinstance(average, optax.contrib.ScheduleFreeState):
                params |= stands_at(average, params, stacked=owner in stacked)
                continue
            # Leaves that the optimizer leaves to another one (`optax.masked`) are no arrays there.
            z = {p: v for p, v in average.z.items() if isinstance(v, jax.Array)}
            average, found = average._replace(z=z, base_optimizer_state=()), optax.contrib.schedule_free_eval_params
            params |= (jax.vmap(found) if owner in stacked else found)(average, {p: params[p] for p in z})
    return {**state.variables, "params": partition.unflatten(params, state.params)}


def stands_at(state: Any, params: dict[str, Any], *, stacked: bool) -> dict[str, Any]:
    """{path: where it is evaluated} of an average, or of SAM, which is there itself but after a look."""
    if isinstance(state, AveragedState):
        return {p: v for p, v in state.average.items() if isinstance(v, jax.Array)}
    looked = state.steps_since_sync > 0

    def one(looked: Any, old: Any, now: Any) -> Any:
        return jnp.where(looked, old, now)

    cache = {p: v for p, v in state.cache.items() if isinstance(v, jax.Array)}
    return {p: (jax.vmap(one) if stacked else one)(looked, v, params[p]) for p, v in cache.items()}


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
        raise ValueError("this optimizer is evaluated at one average of the trunk; alternating(optimizer='per_task') "
                         "would keep one per task: use optimizer='one'")  # fmt: skip
    if not kept_by_validation:
        raise ValueError("this optimizer is evaluated elsewhere than it trains, at parameters that a workdir holds "
                         "only of what validation chose; give a validation split, or no workdir")  # fmt: skip
    return True

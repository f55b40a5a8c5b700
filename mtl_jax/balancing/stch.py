"""Smooth Tchebycheff scalarization (Lin et al., ICML 2024, arXiv:2402.19078)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result


class StchState(NamedTuple):
    """The preference, and sums and counts of the losses during warm-up, whose mean is their unit after it."""

    preference: Float[Array, " task"]
    total: Float[Array, " task"]
    count: Int[Array, " task"]
    step: Int[Array, ""]


@parts.recorded()
def stch(
    mu: float = 1.0,
    preference: Sequence[float] | None = None,
    warmup: int = 100,
    ideal: Sequence[float] | None = None,
) -> Balancer:
    """Minimises mu log sum_t exp(p_t f_t / mu), a smooth maximum of the losses.

    f_t = L_t - ideal_t where an ideal point is given. Else f_t = log(L_t / unit_t), with the unit the mean loss over
    the first `warmup` steps, in which all weights are 1.

    Args:
      mu: the smaller, the nearer to the maximum.
      preference: p, one per task; None for ones.
      warmup: steps; without effect where `ideal` is given.
      ideal: z, one per task.
    """
    if mu <= 0 or warmup < 1:
        raise ValueError(f"stch: mu={mu} must be positive and warmup={warmup} at least 1")
    preference = None if preference is None else tuple(preference)
    ideal = None if ideal is None else tuple(ideal)

    def init(num_tasks, template):
        for name, given in (("preference", preference), ("ideal", ideal)):
            if given is not None and len(given) != num_tasks:
                raise ValueError(f"stch: {len(given)} entries of {name} were given for {num_tasks} tasks")
        return StchState(
            jnp.ones((num_tasks,), jnp.float32) if preference is None else jnp.asarray(preference, jnp.float32),
            jnp.zeros((num_tasks,), jnp.float32),
            jnp.zeros((num_tasks,), jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def update(signal, state, *, mask, key):
        losses = signal.losses
        weight = state.preference.astype(losses.dtype)
        warming = (state.step < warmup) & (ideal is None)
        new = StchState(
            state.preference,
            state.total + jnp.where(mask & warming, losses, 0).astype(jnp.float32),
            state.count + (mask & warming),
            state.step + 1,
        )
        if ideal is None:
            tiny = jnp.finfo(losses.dtype).tiny
            unit = jnp.where(state.count > 0, state.total / jnp.maximum(state.count, 1), 1).astype(losses.dtype)
            value, slope = jnp.log(jnp.maximum(losses, tiny) / jnp.maximum(unit, tiny)), 1 / jnp.maximum(losses, tiny)
        else:
            value, slope = losses - jnp.asarray(ideal, losses.dtype), jnp.ones_like(losses)
        share = jax.nn.softmax(jnp.where(mask, weight * value / mu, -jnp.inf), where=mask)
        weights = jnp.where(mask, jnp.where(warming, 1, weight * share * slope), 0).astype(losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.LOSSES, carried=("preference",))

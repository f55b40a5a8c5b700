"""Smooth Tchebycheff scalarization (Lin et al., ICML 2024, arXiv:2402.19078)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, check_whole, numbers, preferences
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, one_per_task


class StchState(NamedTuple):
    """The preference, and sums and counts of the losses during warm-up, whose mean is their unit after it."""

    preference: Float[Array, " task"]
    total: Float[Array, " task"]
    count: Int[Array, " task"]  # type: ignore[assignment]  # a tuple's method goes by this name too
    step: Int[Array, ""]


@parts.recorded(
    paper="Lin et al., ICML 2024, arXiv:2402.19078",
    when="the worst task matters; fronts that are not convex",
)
def stch(
    mu: float = 1.0,
    preference: Sequence[float] | None = None,
    warmup: int = 100,
    ideal: Sequence[float] | None = None,
) -> Balancer:
    """Minimises mu log sum_t exp(p_t f_t / mu), a smooth maximum of the losses.

    f_t = L_t - ideal_t where an ideal point is given. Else f_t = log(L_t / unit_t), with the unit the mean loss over
    the first `warmup` steps, in which all weights are 1. There losses must be at least 0 (below, weights are nan), and
    one under 1e-20 of its unit counts as that much.

    Args:
      mu: the smaller, the nearer to the maximum.
      preference: p, one per task; None for ones.
      warmup: steps; without effect where `ideal` is given.
      ideal: z, one per task.
    """
    check("stch", "above 0", mu=mu)
    check_whole("stch", 1, warmup=warmup)
    preference = preferences("stch", "preference", preference)
    ideal = numbers("stch", "ideal", ideal)

    def init(num_tasks, template):
        one_per_task("stch", "entries of preference", preference, num_tasks)
        one_per_task("stch", "entries of ideal", ideal, num_tasks)
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
            unit = jnp.where(state.total > 0, state.total / jnp.maximum(state.count, 1), 1).astype(losses.dtype)
            floored = jnp.maximum(losses, jnp.maximum(1e-20 * unit, jnp.finfo(losses.dtype).tiny))
            value, slope = jnp.log(floored) - jnp.log(unit), 1 / floored
        else:
            value, slope = losses - jnp.asarray(ideal, losses.dtype), jnp.ones_like(losses)
        weighted = jnp.where(mask, weight * value, -jnp.inf)
        below = weighted - jnp.where(mask.any(), weighted.max(), 0)  # before the division, which may overflow
        share = jax.nn.softmax(jnp.where(mask, below / mu, -jnp.inf), where=mask)
        weights = jnp.where(mask, jnp.where(warming, 1, weight * share * slope), 0)
        weights = (weights if ideal is not None else defined(weights, losses, mask)).astype(losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.LOSSES, carried=("preference",), positive=ideal is None)

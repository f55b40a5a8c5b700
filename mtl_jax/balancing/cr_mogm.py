"""CR-MOGM, correlation-reduced stochastic multi-objective gradient manipulation (Zhou et al., NeurIPS 2022)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result


class SmoothState(NamedTuple):
    """The wrapped method's state, the average of its weights, and whether a task has had any yet."""

    inner: Any
    weights: Float[Array, " task"]
    seen: Bool[Array, " task"]


@parts.recorded()
def cr_mogm(method: str = "mgda", alpha: float = 0.9) -> Balancer:
    """A moving average of another method's weights, so that they depend less on one batch's gradients.

    Args:
      method: any method that decides on weights, by name.
      alpha: share of the old average.
    """
    from mtl_jax import balancing

    wrapped = balancing.build(method)
    if not 0 <= alpha < 1:
        raise ValueError(f"cr_mogm: alpha={alpha} must lie in [0, 1)")
    if wrapped.needs is Needs.JACOBIAN:
        raise ValueError(f"cr_mogm: {method!r} reads the Jacobian; use a method that reads losses or the Gramian")

    def init(num_tasks, template):
        return SmoothState(
            wrapped.init(num_tasks, template), jnp.zeros((num_tasks,), jnp.float32), jnp.zeros((num_tasks,), bool)
        )

    def update(signal, state, *, mask, key):
        result, inner = wrapped.update(signal, state.inner, mask=mask, key=key)
        fresh = result.weights.astype(state.weights.dtype)
        average = jnp.where(state.seen, alpha * state.weights + (1 - alpha) * fresh, fresh)
        new = SmoothState(inner, jnp.where(mask, average, state.weights), state.seen | mask)
        weights = jnp.where(mask, average, 0).astype(signal.losses.dtype)
        heads = None if result.head_weights is None else weights
        return Result(weights, head_weights=heads), new

    if wrapped.after is None:
        return Balancer(init, update, wrapped.needs)

    def after(before, later, state, mask):
        return state._replace(inner=wrapped.after(before, later, state.inner, mask))

    return Balancer(init, update, wrapped.needs, after)

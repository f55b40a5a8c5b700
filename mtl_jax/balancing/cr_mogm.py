"""CR-MOGM, correlation-reduced stochastic multi-objective gradient manipulation (Zhou et al., NeurIPS 2022)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, numbers
from mtl_jax.balancing.base import Balancer, Keeps, Result, among_present, keep_shares, one_per_task
from mtl_jax.balancing.given import given_method


class SmoothState(NamedTuple):
    """The wrapped method's state, the average of its weights, and whether a task has had any yet."""

    inner: Any
    weights: Float[Array, " task"]
    seen: Bool[Array, " task"]


@parts.recorded(
    objects=("method",),
    paper="Zhou et al., NeurIPS 2022",
    when="small batches whose weights jump from step to step",
)
def cr_mogm(
    method: str | Balancer = "mgda", alpha: float = 0.9, first_weights: Sequence[float] | None = None
) -> Balancer:
    """A moving average of another method's weights, so that they depend less on one batch's gradients.

    Where the method's weights add up to 1, so do their averages over the present tasks: those of absent ones are kept.

    Args:
      method: any method that decides on weights, by name or as an object.
      alpha: share of the old average; 1 keeps the first weights.
      first_weights: the average before the first step, one per task; None: the method's weights at a task's first step.
    """
    wrapped = given_method("cr_mogm: method", method)
    name = wrapped.spec or "the given method"
    check("cr_mogm", "in [0, 1]", alpha=alpha)
    first_weights = numbers("cr_mogm", "first_weights", first_weights)
    if wrapped.directs:
        raise ValueError(f"cr_mogm: {name!r} decides on a direction, which has no weights to average; use a method "
                         "that decides on weights, such as 'mgda'")  # fmt: skip
    if first_weights and wrapped.simplex and not (min(first_weights) >= 0 and abs(sum(first_weights) - 1) < 1e-3):
        raise ValueError(f"cr_mogm: first_weights={first_weights} must add up to 1 and not be negative, as the weights "
                         f"of {name!r} do")  # fmt: skip

    def init(num_tasks, template):
        one_per_task("cr_mogm", "first_weights", first_weights, num_tasks)
        even = 1 / num_tasks if wrapped.simplex else 0.0
        weights = jnp.full((num_tasks,), even, jnp.float32)
        if first_weights is not None:
            weights = jnp.asarray(first_weights, jnp.float32)
        seen = jnp.full((num_tasks,), first_weights is not None)
        return SmoothState(wrapped.init(num_tasks, template), weights, seen)

    def update(signal, state, *, mask, key):
        result, inner = wrapped.update(signal, state.inner, mask=mask, key=key)
        fresh = result.weights.astype(state.weights.dtype)
        if wrapped.simplex:
            share, held = among_present(state.weights, mask)
            # A task that is new among others starts from its even share, so that the sum stays.
            average = jnp.where((state.seen & mask).any(), alpha * share + (1 - alpha) * fresh, fresh)
            kept = keep_shares(state.weights, average, held, mask)
        else:
            average = jnp.where(state.seen, alpha * state.weights + (1 - alpha) * fresh, fresh)
            kept = jnp.where(mask, average, state.weights)
        weights = jnp.where(mask, average, 0).astype(signal.losses.dtype)
        heads = None if result.head_weights is None else weights
        return Result(weights, head_weights=heads), SmoothState(inner, kept, state.seen | mask)

    balancer = Balancer(init, update, wrapped.needs, about=wrapped.about, simplex=wrapped.simplex,
                        positive=wrapped.positive, unit_free=wrapped.unit_free,
                        keeps=max(Keeps.PER_TASK, wrapped.memory))  # fmt: skip
    if wrapped.after is None:
        return balancer

    def after(before, later, state, mask):
        return state._replace(inner=wrapped.after(before, later, state.inner, mask))

    return balancer._replace(after=after)

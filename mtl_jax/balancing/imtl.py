"""Impartial multi-task learning (Liu et al., ICLR 2021)."""

import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, stateless
from mtl_jax.balancing.solvers import pinv_solve
from mtl_jax.gradients.gramian import cosines

FARTHEST = 1e-3  # the sum of the weights, in units of the largest one, below which they are not brought to sum 1


def impartial_weights(similar, length, mask):
    """w of sum 1 such that J'w has the same projection on every task's gradient, from cosines and lengths.

    With lengths D and cosines C, D C D w = c D 1 is solved by w = c D^-1 C^+ 1, whatever the lengths.
    """
    there = mask & (length > 0)
    x = jnp.where(there, pinv_solve(similar, there.astype(similar.dtype)), 0)
    shortest = jnp.where(there, length, jnp.inf).min()
    weights = jnp.where(there, x * (shortest / jnp.where(there, length, 1)), 0)
    total = weights.sum()
    # Where no combination has equal projections but zero, there is no common direction to go: C^+ 1 is rounding. Nor is
    # there one of bounded length where the weights cancel.
    common = jnp.abs(x).max() > 1e-5
    possible = common & (jnp.abs(total) > FARTHEST * jnp.abs(weights).max())
    return jnp.where(possible, weights / jnp.where(possible, total, 1), 0)


@parts.recorded(
    paper="Liu et al., ICLR 2021",
    when="equal projections on all tasks, few tasks",
)
def imtl_g() -> Balancer:
    """IMTL-G: the trunk's direction has equal projections on all task gradients; weights sum to 1, some negative.

    Where no direction has equal projections but 0, or only one a thousand times as long as the gradients, it is 0.
    """

    def update(signal, state, *, mask, key):
        weights = impartial_weights(*cosines(signal.gramian, mask), mask)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN, unit_free=True)


@parts.recorded(
    paper="Liu et al., ICLR 2021",
    when="losses of different scales, without a preference among them",
)
def imtl_l(learning_rate: float = 0.01) -> Balancer:
    """IMTL-L: minimises sum_t exp(s_t) L_t - s_t over the model and s, so that all weighted losses tend to 1.

    s stays within +-40, as it would rise without end where a loss is 0. Below 0 the scalar has no minimum: nan.

    Args:
      learning_rate: of Adam on s.
    """
    check("imtl_l", "above 0", learning_rate=learning_rate)
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        return learned.start(num_tasks, 0.0, adam)

    def update(signal, state, *, mask, key):
        weights = jnp.where(mask, jnp.exp(state.value), 0)
        new = learned.descend(state, weights * signal.losses - 1, adam, mask)
        weights = defined(weights, signal.losses, mask).astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), learned.within_reach(new)

    return Balancer(init, update, Needs.LOSSES, positive=True)


@parts.recorded(
    paper="Liu et al., ICLR 2021",
    when="the same with losses brought to one scale",
)
def imtl(learning_rate: float = 0.01) -> Balancer:
    """IMTL: heads follow the losses scaled by IMTL-L, the trunk IMTL-G's direction of their gradients.

    Losses must be at least 0, as for IMTL-L.

    Args:
      learning_rate: of Adam on the scales' logarithms.
    """
    scales = imtl_l(learning_rate)

    def update(signal, state, *, mask, key):
        result, new = scales.update(signal, state, mask=mask, key=key)
        scale = result.weights
        similar, length = cosines(signal.gramian, mask)
        weights = impartial_weights(similar, length * scale.astype(length.dtype), mask).astype(scale.dtype)
        return Result(weights * scale, head_weights=scale), new

    return Balancer(scales.init, update, Needs.GRAMIAN, positive=True, unit_free=True)

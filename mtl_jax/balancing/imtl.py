"""Impartial multi-task learning (Liu et al., ICLR 2021)."""

import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.gramian import cosines
from mtl_jax.balancing.solvers import pinv_solve


def impartial_weights(gram, mask):
    """w of sum 1 such that J'w has the same projection on every task's gradient.

    With lengths D and cosines C, D C D w = c D 1 is solved by w = c D^-1 C^+ 1, whatever the lengths.
    """
    similar, length = cosines(gram, mask)
    there = mask & (length > 0)
    weights = jnp.where(there, pinv_solve(similar, there.astype(gram.dtype)) / jnp.where(there, length, 1), 0)
    total = weights.sum()
    # Where no combination has equal projections but zero, there is no common direction to go.
    possible = jnp.abs(total) > 1e-6 * jnp.abs(weights).max()
    return jnp.where(possible, weights / jnp.where(possible, total, 1), 0)


@parts.recorded()
def imtl_g() -> Balancer:
    """IMTL-G: the trunk's direction has equal projections on all task gradients; weights sum to 1, some negative."""

    def update(signal, state, *, mask, key):
        return Result(impartial_weights(signal.gramian, mask).astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN)


@parts.recorded()
def imtl_l(learning_rate: float = 0.01) -> Balancer:
    """IMTL-L: minimises sum_t exp(s_t) L_t - s_t over the model and s, so that all weighted losses tend to 1.

    Args:
      learning_rate: of Adam on s.
    """
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        return learned.start(num_tasks, 0.0, adam)

    def update(signal, state, *, mask, key):
        weights = jnp.where(mask, jnp.exp(state.value), 0)
        new = learned.descend(state, weights * signal.losses - 1, adam, mask)
        weights = weights.astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.LOSSES)


@parts.recorded()
def imtl(learning_rate: float = 0.01) -> Balancer:
    """IMTL: heads follow the losses scaled by IMTL-L, the trunk IMTL-G's direction of their gradients.

    Args:
      learning_rate: of Adam on the scales' logarithms.
    """
    scales = imtl_l(learning_rate)

    def update(signal, state, *, mask, key):
        result, new = scales.update(signal, state, mask=mask, key=key)
        scale = result.weights
        scaled = signal.gramian * scale[:, None] * scale[None, :]
        return Result(impartial_weights(scaled, mask) * scale, head_weights=scale), new

    return Balancer(scales.init, update, Needs.GRAMIAN)

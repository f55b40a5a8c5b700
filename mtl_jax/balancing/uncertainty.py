"""Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018, arXiv:1705.07115)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result


class UncertaintyState(NamedTuple):
    """Learned log variances, and an Adam state per task, so that an absent task's is left alone."""

    log_variance: Float[Array, " task"]
    adam: Any  # leaves [task]


@parts.recorded()
def uncertainty(init_log_variance: float = 0.0, learning_rate: float = 0.01) -> Balancer:
    """Minimises sum_t (exp(-s_t) L_t + s_t) / 2 over the model and the log variances s.

    The weights of trunk and heads are exp(-s_t) / 2, the gradient of that scalar by the losses; s follows Adam.

    Args:
      init_log_variance: the first s_t.
      learning_rate: of s.
    """
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        log_variance = jnp.full((num_tasks,), init_log_variance, jnp.float32)
        return UncertaintyState(log_variance, jax.vmap(adam.init)(log_variance))

    def update(signal, state, *, mask, key):
        weights = jnp.where(mask, jnp.exp(-state.log_variance) / 2, 0)
        slope = 0.5 - weights * signal.losses.astype(jnp.float32)
        steps, moments = jax.vmap(adam.update)(slope, state.adam)
        new = UncertaintyState(state.log_variance + steps, moments)
        new = jax.tree.map(lambda n, o: jnp.where(mask, n, o), new, state)
        weights = weights.astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.LOSSES)

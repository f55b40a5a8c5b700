"""Geometric loss strategy (Chennupati et al., CVPR Workshops 2019, arXiv:1904.08492)."""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless


@parts.recorded()
def geometric() -> Balancer:
    """Minimises the geometric mean of the present losses; its gradient by L_t is that mean / (K L_t).

    Losses must be positive; a loss of 0 counts as the smallest positive number.
    """

    def update(signal, state, *, mask, key):
        losses = jnp.maximum(signal.losses, jnp.finfo(signal.losses.dtype).tiny)
        count = jnp.maximum(mask.sum(), 1)
        logs = jnp.log(losses)
        mean_log = jnp.where(mask, logs, 0).sum() / count
        weights = jnp.where(mask, jnp.exp(mean_log - logs) / count, 0)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES)

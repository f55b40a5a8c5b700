"""Geometric loss strategy (Chennupati et al., CVPR Workshops 2019, arXiv:1904.08492)."""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, stateless


@parts.recorded(
    paper="Chennupati et al., CVPR Workshops 2019, arXiv:1904.08492",
    when="losses whose scales differ by orders of magnitude",
)
def geometric() -> Balancer:
    """Minimises the geometric mean of the present losses; its gradient by L_t is that mean / (K L_t).

    Losses must be at least 0: below, weights are nan. One under 1e-20 of the largest counts as that much, so
    that no weight is above 1e20 / K.
    """

    def update(signal, state, *, mask, key):
        tiny = jnp.finfo(signal.losses.dtype).tiny
        floor = jnp.maximum(1e-20 * jnp.where(mask, signal.losses, 0).max(), tiny)
        losses = jnp.maximum(signal.losses, floor)
        count = jnp.maximum(mask.sum(), 1)
        logs = jnp.log(losses)
        mean_log = jnp.where(mask, logs, 0).sum() / count
        weights = defined(jnp.where(mask, jnp.exp(mean_log - logs) / count, 0), signal.losses, mask)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES, positive=True)

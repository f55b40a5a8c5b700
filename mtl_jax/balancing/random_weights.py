"""Random weights, the baseline that other methods should beat (Lin et al., TMLR 2022, arXiv:2111.10603)."""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, draws, stateless


def _draw(key, ids, mask, dtype):
    """softmax of a standard normal per task, over the present ones; drawn from its id, so that others' draws stay."""
    normal = jax.vmap(lambda k: jax.random.normal(k, dtype=dtype))(draws(key, ids))
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, normal, -jnp.inf), where=mask), 0)


@parts.recorded(
    paper="Lin et al., TMLR 2022, arXiv:2111.10603",
    when="a baseline that others should beat",
)
def random_loss() -> Balancer:
    """RLW: losses are weighted by the softmax of normal draws, anew at each step; trunk and heads."""

    def update(signal, state, *, mask, key):
        weights = _draw(key, signal.ids, mask, signal.losses.dtype)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES, simplex=True)


@parts.recorded(
    paper="Lin et al., TMLR 2022, arXiv:2111.10603",
    when="the same, with heads left alone",
)
def random_gradient() -> Balancer:
    """RGW: the same draws weight the trunk's gradients only; each head follows its own loss."""

    def update(signal, state, *, mask, key):
        return Result(_draw(key, signal.ids, mask, signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.LOSSES, simplex=True)

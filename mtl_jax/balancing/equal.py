"""Equal weights: the plain sum, or mean, of the losses."""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless


@parts.recorded(
    when="always the first run; often enough when losses have one scale",
)
def equal(reduction: str = "sum") -> Balancer:
    """Weights 1 ("sum"), or 1 / number of present tasks ("mean"), for trunk and heads."""
    if reduction not in ("sum", "mean"):
        raise parts.unknown("reduction of equal", reduction, ("sum", "mean"))

    def update(signal, state, *, mask, key):
        weights = mask.astype(signal.losses.dtype)
        if reduction == "mean":
            weights = weights / jnp.maximum(weights.sum(), 1)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES)

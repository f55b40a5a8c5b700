"""A method on the gradients of log losses, grad L_t / L_t, which do not depend on the losses' units."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.balancing.base import Balancer, Result, defined

SMALLEST = 1e-8  # loss; one under it counts as that much


def slopes(losses: Float[Array, " task"], mask: Bool[Array, " task"]) -> Float[Array, " task"]:
    """d log L_t / d L_t of the present tasks, 0 for absent ones; nan where a loss is negative."""
    return defined(jnp.where(mask, 1 / jnp.maximum(losses, SMALLEST), 0), losses, mask)


def of_log_losses(method: Balancer) -> Balancer:
    """A method that reads the Gramian, shown that of the log losses; each head follows its own log loss.

    Args:
      method: `unit_free`, so that it may be shown the Gramian in a unit where no entry grows.
    """

    def update(signal, state, *, mask, key):
        slope = slopes(signal.losses, mask)
        # By the largest, so that no product overflows; a method without a unit decides on the same weights.
        relative = (slope / jnp.maximum(slope.max(), jnp.finfo(slope.dtype).tiny)).astype(signal.gramian.dtype)
        # What nan says of a negative loss is said by the weights alone.
        relative = jnp.where(jnp.isnan(relative), 0, relative)
        shown = signal._replace(gramian=signal.gramian * relative[:, None] * relative[None, :])
        result, state = method.update(shown, state, mask=mask, key=key)
        weights = jnp.where(jnp.isnan(slope).any() & mask, jnp.nan, result.weights.astype(slope.dtype) * slope)
        return Result(weights, head_weights=slope), state

    return method._replace(update=update, simplex=False, positive=True)

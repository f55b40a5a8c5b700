"""CAGrad, conflict-averse gradient descent (Liu et al., NeurIPS 2021, arXiv:2110.14048)."""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.gramian import scaled
from mtl_jax.balancing.solvers import min_norm_point

RESCALES = ("none", "squared", "linear")
BISECTIONS = 30  # of the logarithm of |g_w|, over ten orders of magnitude: to a relative 2e-8


@parts.recorded()
def cagrad(c: float = 0.5, rescale: str = "none") -> Balancer:
    """The direction within c |g0| of the mean gradient g0 that most improves the worst task.

    d = g0 + c |g0| g_w / |g_w|, with w on the simplex minimising g_w'g0 + c |g0| |g_w|. For a given |g_w| = t that w is
    the min-norm point of the rows g_i + (t / c |g0|) g0; t is found by bisection.

    Args:
      c: radius, in units of |g0|. 0 is the mean gradient; from 1 on no task gets worse.
      rescale: what d is divided by: "none", "squared" (1 + c^2, as the authors' code) or "linear" (1 + c).
    """
    if c < 0:
        raise ValueError(f"cagrad: c={c} must not be negative")
    if rescale not in RESCALES:
        raise parts.unknown("rescale of cagrad", rescale, RESCALES)
    divisor = {"none": 1.0, "squared": 1 + c * c, "linear": 1 + c}[rescale]

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask)
        mean = mask.astype(gram.dtype) / jnp.maximum(mask.sum(), 1)
        along = gram @ mean
        squared = mean @ along
        radius = c * jnp.sqrt(jnp.maximum(squared, 0))
        usable = radius > 1e-7
        safe = jnp.where(usable, radius, 1)

        def weights_at(length):
            shift = length / safe
            shifted = gram + shift * (along[:, None] + along[None, :]) + shift**2 * squared
            weights, _ = min_norm_point(shifted, mask)
            return weights, jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0))

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            _, length = weights_at(jnp.exp(middle))
            longer = jnp.log(jnp.maximum(length, 1e-30)) > middle
            return jnp.where(longer, middle, low), jnp.where(longer, high, middle)

        start = jnp.log(jnp.asarray(1e-10, gram.dtype)), jnp.log(jnp.asarray(2.0, gram.dtype))
        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, start)
        weights, length = weights_at(jnp.exp((low + high) / 2))
        # At a stationary point g_w vanishes, and its direction with it.
        usable &= length > 1e-5
        moved = mean + jnp.where(usable, radius / jnp.where(usable, length, 1), 0) * weights
        return Result(jnp.where(mask, moved, 0) / divisor), state

    return Balancer(stateless, update, Needs.GRAMIAN)

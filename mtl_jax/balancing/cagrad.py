"""CAGrad, conflict-averse gradient descent (Liu et al., NeurIPS 2021, arXiv:2110.14048)."""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.gramian import scaled
from mtl_jax.balancing.solvers import best_in_ball, times

RESCALES = ("none", "squared", "linear")


@parts.recorded()
def cagrad(c: float = 0.5, rescale: str = "none") -> Balancer:
    """The direction within c |g0| of the mean gradient g0 that most improves the worst task.

    d = g0 + c |g0| g_w / |g_w|, with w on the simplex minimising g_w'g0 + c |g0| |g_w|.

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
        along = times(gram, mean)
        radius = c * jnp.sqrt(jnp.maximum(mean @ along, 0))
        usable = radius > 1e-7
        y, residual = best_in_ball(gram, along, jnp.where(usable, radius, 1), mask)
        # At a stationary point g_w vanishes, and its direction with it.
        usable &= residual < 0.3
        return Result((mean + jnp.where(usable, y, 0)) / divisor), state

    return Balancer(stateless, update, Needs.GRAMIAN)

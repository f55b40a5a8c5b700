"""CAGrad, conflict-averse gradient descent (Liu et al., NeurIPS 2021, arXiv:2110.14048)."""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.solvers import best_in_ball, dual_cone, times
from mtl_jax.gradients.gramian import scaled

RESCALES = ("none", "squared", "linear")


@parts.recorded(
    paper="Liu et al., NeurIPS 2021, arXiv:2110.14048",
    when="conflict that lasts, with a dial between the mean and MGDA",
)
def cagrad(c: float = 0.5, rescale: str = "none") -> Balancer:
    """The direction within c |g0| of the mean gradient g0 that most improves the worst task.

    d = g0 + c |g0| g_w / |g_w|, with w on the simplex minimising g_w'g0 + c |g0| |g_w|. Where 0 is in the convex hull
    of the gradients g_w may vanish; if the ball then has directions that harm no task, d is the one nearest to g0,
    which is 0 if all tasks hold each other.

    Args:
      c: radius, in units of |g0|. 0 is the mean gradient; from 1 on no task gets worse.
      rescale: what d is divided by: "none", "squared" (1 + c^2, as the authors' code) or "linear" (1 + c).
    """
    check("cagrad", "at least 0", c=c)
    if rescale not in RESCALES:
        raise parts.unknown("rescale of cagrad", rescale, RESCALES)
    divisor = {"none": 1.0, "squared": 1 + c * c, "linear": 1 + c}[rescale]

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask)
        mean = mask.astype(gram.dtype) / jnp.maximum(mask.sum(), 1).astype(gram.dtype)
        along = times(gram, mean)
        radius = c * jnp.sqrt(jnp.maximum(mean @ along, 0))
        usable = radius > 1e-7
        y, residual = best_in_ball(gram, along, jnp.where(usable, radius, 1), mask)
        # At a stationary point g_w vanishes, and its direction with it.
        onto = mean + jnp.where(usable & (residual < 0.3), y, 0)

        def worst(weights):
            return jnp.where(mask, times(gram, weights), jnp.inf).min()

        def unharmed():
            """There no direction improves every task, and one in the ball that harms none is as good as any."""
            shortest = gram + 1e-6 * jnp.diag(jnp.diagonal(gram))
            nearest = jnp.where(mask, dual_cone(shortest, mean[None], mask)[0][0], 0)
            moved = nearest - mean
            inside = jnp.sqrt(jnp.maximum(moved @ times(gram, moved), 0)) <= 1.001 * radius
            return jnp.where(inside & (worst(nearest) >= worst(onto)), nearest, onto)

        weights = jax.lax.cond(usable & (worst(onto) < 1e-3 * radius), unharmed, lambda: onto)
        return Result(weights / divisor), state

    return Balancer(stateless, update, Needs.GRAMIAN, unit_free=True)

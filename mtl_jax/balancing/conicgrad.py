"""ConicGrad (Hassanpour et al. 2025, arXiv:2502.00217)."""

import math

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import is_number
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.solvers import best_in_ball, min_norm_point, times
from mtl_jax.gradients.gramian import scaled


@parts.recorded(
    paper="Hassanpour et al. 2025, arXiv:2502.00217",
    when="the worst task matters, within a stated angle of the mean",
)
def conicgrad(c: float = 0.5) -> Balancer:
    """The direction that most improves the worst task among those within an angle of the mean gradient g0.

    max over d of min_t g_t'd where g0'd >= c |g0| |d| and |d| = |g0|: solved at each step, and by itself, where the
    authors take a step of its dual. That is the shortest vector in the convex hull of the gradients if its
    angle is small enough, else a vector on the cone's surface. Where every d in the cone harms some task, it is the one
    on the surface that harms the worst task least, or g0 if the tasks hold each other even there.

    Args:
      c: cosine of the angle, from 0 (any direction that does not ascend the mean loss) to below 1 (g0 itself).
    """
    if not (is_number(c) and 0 <= c < 1):
        raise ValueError(f"conicgrad: c={c} must lie in 0 <= c < 1; for the mean gradient use equal(reduction='mean')")

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask)
        mean = mask.astype(gram.dtype) / jnp.maximum(mask.sum(), 1).astype(gram.dtype)
        along = times(gram, mean)
        squared = jnp.maximum(mean @ along, 0)
        usable = squared > 1e-14
        squared = jnp.where(usable, squared, 1)
        length = jnp.sqrt(squared)

        harmed = mask & (jnp.diagonal(gram) > 0)  # a task without a gradient is not harmed by any direction

        def norm(w):
            return jnp.sqrt(jnp.maximum(w @ times(gram, w), 0))

        inner, _ = min_norm_point(gram, harmed)
        # The direction of a shortest vector that is rounding says nothing.
        reliable = norm(inner) > 1e-3 * jnp.sqrt(jnp.diagonal(gram).max())
        inside = reliable & (inner @ along >= c * length * norm(inner))

        def surface():
            # d / |g0| is c g0 / |g0| + v, where v is orthogonal to g0: a ball in the space of g_t - shift_t g0.
            shift = along / squared
            across = gram - along[:, None] * shift[None, :]
            flat = jnp.diagonal(across) <= 1e-6 * jnp.diagonal(gram)
            across = jnp.where(flat[:, None] | flat[None, :], 0, across)
            radius = jnp.asarray(math.sqrt(1 - c * c), gram.dtype)
            y, residual = best_in_ball(across, c * along / length, radius, harmed)
            y = jnp.where(flat | ~(residual < 0.3), 0, y)
            return c * mean + length * (y - (y @ shift) * mean)

        weights = jax.lax.cond(inside, lambda: inner, surface)
        weights = weights * length / jnp.maximum(norm(weights), jnp.finfo(gram.dtype).tiny)
        return Result(jnp.where(mask & usable, weights, 0)), state

    return Balancer(stateless, update, Needs.GRAMIAN, unit_free=True)

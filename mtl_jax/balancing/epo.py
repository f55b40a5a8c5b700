"""EPO search, exact Pareto optimal search (Mahapatra and Rajan, ICML 2020; extended in arXiv:2108.00597)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, numbers
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, defined, preference_of, start_preference
from mtl_jax.balancing.linear_program import linear_program
from mtl_jax.balancing.solvers import times
from mtl_jax.gradients.gramian import scaled


@parts.recorded(
    paper="Mahapatra and Rajan, ICML 2020; extended in arXiv:2108.00597",
    when="one point of the front, exactly on a given ray",
)
def epo(preference: Sequence[float] | None = None, tolerance: float = 1e-4) -> Balancer:
    """Goes to the Pareto optimum where all r_t L_t are equal: along the ray of 1 / r in the space of losses.

    While mu, the divergence of r L / sum(r L) from uniform, is above the tolerance, the weights on the simplex give the
    direction that moves the losses best along the anchor a_t = r_t (log(K r_t L_t / sum(r L)) - mu), which brings mu
    down; other losses may rise, but no faster than along a itself, and those with the largest r_t L_t may not. Below
    the tolerance they give the steepest descent of the summed losses that lets no loss rise, nor, where it can, mu.
    Losses must be at least 0: below, weights are nan.

    Args:
      preference: r, positive, one per task; None for equal ones. A larger r_t asks for a smaller loss of task t.
      tolerance: of mu. r_t L_t of two tasks that differ by a relative d have mu = d^2 / 8.
    """
    check("epo", "above 0", tolerance=tolerance)
    preference = numbers("epo", "preference", preference)
    if preference is not None and min(preference) <= 0:
        raise ValueError(f"epo: preference={preference} must be positive, one per task")

    def init(num_tasks, template):
        return start_preference("epo", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask)
        chosen = preference_of(state, mask, gram.dtype)
        product = jnp.where(mask, chosen * signal.losses, 0).astype(gram.dtype)
        total, tiny = product.sum(), jnp.finfo(gram.dtype).tiny
        share = product / jnp.where(total > 0, total, 1)
        excess = jnp.where(mask, jnp.log(jnp.maximum(share * mask.sum(), tiny)), 0)
        mu = (share * excess).sum()
        anchor = jnp.where(mask, chosen * (excess - mu), 0)
        pull = times(gram, anchor)
        balance, agreeing = mu > tolerance, mask & (pull > 0)
        largest = mask & (product == product.max())
        # One row per task's loss, and one for mu.
        matrix = jnp.concatenate([gram, pull[None]])
        free = balance & agreeing & ~largest
        floor = jnp.where(balance & ~agreeing & ~largest & agreeing.any(), pull, 0)
        lower = jnp.append(floor, 0)
        cost = -jnp.where(balance, pull, gram.sum(0))

        def solve(mu_row):
            return linear_program(cost, matrix, lower, mask, jnp.append(mask & ~free, mu_row))

        weights, residual = solve(~balance & agreeing.any())
        # There may be no direction of descent along which mu does not rise.
        weights = jax.lax.cond(residual > 1e-3, lambda: solve(jnp.zeros((), bool))[0], lambda: weights)
        weights = defined(weights, signal.losses, mask)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(
        init,
        update,
        Needs.GRAMIAN,
        carried=("preference",),
        keeps=Keeps.of(preference),
        simplex=True,
        positive=True,
        unit_free=True,
    )

"""Bargaining and fairness: Nash-MTL (Navon et al., ICML 2022, arXiv:2202.01017) and FairGrad (Ban and Ji, ICML 2024,
arXiv:2402.15638). Both solve G w = w^(-1 / alpha); Nash-MTL is alpha = 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.solvers import times
from mtl_jax.gradients.gramian import cosines

MOST_STEPS = 100
LOWEST = -40.0  # of log z, against about 1 elsewhere: no weight at all


# What is added to the diagonal of the cosines, as a stationary point has no finite solution; and where no solution is
# found so, what keeps the weights small enough that their gains are no rounding.
GENTLE, STEADY = 1e-7, 1e-5


def enough(dtype) -> float:
    """The relative change of a weight by a Newton step after which the next one is below rounding."""
    return 0.28 * float(jnp.finfo(dtype).eps) ** 0.5


def power_equation(
    gramian: Float[Array, "task task"], mask: Bool[Array, " task"], alpha: float
) -> tuple[Float[Array, " task"], Float[Array, ""]]:
    """w > 0 with G w = w^(-1 / alpha), by Newton steps that are taken in log w.

    With z = |g| w and the cosines C this is C z = s, where log s = (1 / alpha - 1) log |g| - log z / alpha. Gradient
    lengths enter as logarithms only, and s is never found by subtraction, so very different lengths do no harm: w has
    about the relative accuracy of float32 for any alpha from 0.1 to 3.

    Args:
      gramian: G, of any scale.
      mask: present tasks; the others, and tasks with a zero gradient, get weight 0.
      alpha: positive.

    Returns:
      w, and the largest relative change of a weight in the last Newton step; large where no finite w is right because
      0 is in the convex hull of the gradients. The equation's own residual is no measure in float32: small alpha makes
      gains (G w)_t of tasks that conflict with longer gradients so small that rounding the exact w already multiplies
      w_t^(1 / alpha) (G w)_t by any factor, while w and its direction are right.
    """
    cosine, length = cosines(gramian, mask)
    there = length > 0
    longest = jnp.maximum(length.max(), jnp.finfo(gramian.dtype).tiny)
    relative = jnp.where(there, length / longest, 1)
    unit = jnp.eye(len(mask), dtype=gramian.dtype)
    power = 1 / alpha
    height = (power - 1) * jnp.log(relative)
    reach, jitter = max(1.0, alpha), len(mask) * jnp.finfo(gramian.dtype).eps  # of the Newton system alone

    def unfinished(carry: tuple) -> Array:
        _, change, count = carry
        return (change > enough(gramian.dtype)) & (count < MOST_STEPS)

    def newton_of(cosine: Array) -> Callable:
        def newton(carry: tuple) -> tuple:
            log, _, count = carry
            z = jnp.where(there, jnp.exp(log), 0)
            s = jnp.where(there, jnp.exp(jnp.maximum(height - power * log, -60)), 0)
            system = cosine + jnp.diag(jnp.where(there, power * s * jnp.exp(-log), 1) + jitter)
            change = jnp.linalg.solve(system, s - times(cosine, z)) * jnp.exp(-log)
            # Upwards as far as z would grow, downwards until z falls or s grows by a factor of e.
            step = jnp.where(change > 0, jnp.log1p(jnp.maximum(change, 0)), jnp.maximum(change, -reach))
            moved = jnp.where(there, jnp.maximum(log + step, LOWEST), 0)
            return moved, jnp.where(moved == log, 0, jnp.abs(change)).max(), count + 1

        return newton

    def begin(undone: Array) -> tuple:
        alone = height / (power + 1)  # the solution where no two gradients meet
        return alone, jnp.where(undone, jnp.inf, 0).astype(gramian.dtype), jnp.zeros((), int)

    log, change, _ = jax.lax.while_loop(unfinished, newton_of(cosine + GENTLE * unit), begin(jnp.ones((), bool)))
    lost = ~(change <= enough(gramian.dtype))
    steady, again, _ = jax.lax.while_loop(unfinished, newton_of(cosine + STEADY * unit), begin(lost))
    log, change = jnp.where(lost, steady, log), jnp.where(lost, jnp.maximum(again, enough(gramian.dtype)), change)
    weights = jnp.exp(log - jnp.log(relative) - 2 / (power + 1) * jnp.log(longest))
    return jnp.where(there, weights, 0), change


def shortened(
    weights: Float[Array, " task"], gramian: Float[Array, "task task"], max_norm: float
) -> Float[Array, " task"]:
    """The weights, scaled down where their direction J'w is longer than `max_norm`."""
    length = jnp.sqrt(jnp.maximum(weights @ gramian @ weights, 0))
    return weights * jnp.minimum(1, max_norm / jnp.maximum(length, jnp.finfo(length.dtype).tiny))


@parts.recorded(
    paper="Navon et al., ICML 2022, arXiv:2202.01017",
    when="gradients of very different lengths; gains in fair proportion",
)
def nash_mtl(max_norm: float | None = 1.0) -> Balancer:
    """The Nash bargaining solution, G w = 1 / w: every task's gain is in proportion to its weight.

    Solved at each step, and by itself, not by linearisation around the last step's weights as in the authors' code.

    Args:
      max_norm: the trunk's direction, whose length is sqrt(K), is shortened to this; None: not at all.
    """
    if max_norm is not None:
        check("nash_mtl", "above 0", max_norm=max_norm)

    def update(signal, state, *, mask, key):
        weights, _ = power_equation(signal.gramian, mask, 1.0)
        if max_norm is not None:
            weights = shortened(weights, signal.gramian, max_norm)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN)


@parts.recorded(
    paper="Ban and Ji, ICML 2024, arXiv:2402.15638",
    when="the same with a dial from the sum to max-min fairness",
)
def fairgrad(alpha: float = 1.0) -> Balancer:
    """alpha-fair utilities of the tasks' gains: G w = w^(-1 / alpha).

    Args:
      alpha: 1 is proportional fairness (Nash-MTL without its bound on the length); towards 0 the sum of the
        gradients (projected onto their dual cone), towards infinity max-min fairness.
    """
    check("fairgrad", "above 0", alpha=alpha)  # the sum of the gradients, alpha = 0, is 'equal'

    def update(signal, state, *, mask, key):
        weights, _ = power_equation(signal.gramian, mask, alpha)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN)

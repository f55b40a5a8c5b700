"""Methods that need two independent samples of the gradients, here the interleaved halves of a batch: MoDo (Chen et
al., NeurIPS 2023, arXiv:2305.20057) and SDMGrad (Xiao, Ban and Ji, NeurIPS 2023, arXiv:2305.18409).

With one sample, the noise of J correlates with itself in J J', and the weights' gradient is biased.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, among_present
from mtl_jax.balancing.gramian import pairs
from mtl_jax.balancing.solvers import project_simplex


class Weighted(NamedTuple):
    """Weights on the simplex; an absent task keeps its own."""

    weights: Float[Array, " task"]


def start(num_tasks, template):
    """Equal weights."""
    return Weighted(jnp.full((num_tasks,), 1 / num_tasks))


@parts.recorded()
def modo(gamma: float = 0.1, rho: float = 0.1) -> Balancer:
    """One projected step per batch: w <- P(w - gamma (J1 J2' w + rho w)), P onto the simplex; the direction is J'w.

    The step has the scale of the squared gradients, as in the paper.

    Args:
      gamma: step size of the weights.
      rho: regularisation towards equal weights.
    """
    if gamma <= 0 or rho < 0:
        raise ValueError(f"modo: gamma={gamma} must be positive and rho={rho} not negative")

    def update(signal, state, *, mask, key):
        cross = jnp.where(pairs(mask), signal.cross, 0)
        share, held = among_present(state.weights, mask)
        share = project_simplex(share - gamma * (cross @ share + rho * share), mask).astype(state.weights.dtype)
        kept = jnp.where(mask, share * jnp.where(held > 0, held, 1), state.weights)
        return Result(share.astype(signal.losses.dtype)), Weighted(kept)

    return Balancer(start, update, Needs.CROSS)


@parts.recorded()
def sdmgrad(
    preference_weight: float = 0.3, learning_rate: float = 10.0, momentum: float = 0.5, inner_steps: int = 20
) -> Balancer:
    """The min-norm direction that leans on the mean: min over the simplex of |J'(w + l p)|^2 / 2, p equal weights.

    `inner_steps` of projected gradient descent with momentum, warm-started from the last step, where the gradient is
    J1 J2' (w + l p); the direction is J'(w + l p) / (1 + l). The cross product is divided by its mean diagonal, so that
    the learning rate has no unit.

    Args:
      preference_weight: l; the larger, the nearer to the mean gradient.
      learning_rate, momentum: of the weights.
      inner_steps: per batch.
    """
    if inner_steps < 1 or preference_weight < 0:
        raise ValueError(
            f"sdmgrad: inner_steps={inner_steps} must be at least 1 and preference_weight={preference_weight} "
            "not negative"
        )

    def update(signal, state, *, mask, key):
        cross = jnp.where(pairs(mask), signal.cross, 0)
        count = jnp.maximum(mask.sum(), 1)
        scale = jnp.abs(jnp.diagonal(cross)).sum() / count
        cross = cross / jnp.where(scale > 0, scale, 1)
        even = (mask / count).astype(cross.dtype)
        share, held = among_present(state.weights, mask)

        def descend(carry, _):
            share, velocity = carry
            velocity = momentum * velocity + cross @ (share + preference_weight * even)
            return (project_simplex(share - learning_rate * velocity, mask).astype(share.dtype), velocity), None

        begin = share.astype(cross.dtype)
        (share, _), _ = jax.lax.scan(descend, (begin, jnp.zeros_like(begin)), length=inner_steps)
        kept = jnp.where(mask, (share * jnp.where(held > 0, held, 1)).astype(state.weights.dtype), state.weights)
        used = (share + preference_weight * even) / (1 + preference_weight)
        return Result(used.astype(signal.losses.dtype)), Weighted(kept)

    return Balancer(start, update, Needs.CROSS)

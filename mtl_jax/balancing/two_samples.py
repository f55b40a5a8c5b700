"""Methods that need two independent samples of the gradients, here the interleaved halves of a batch: MoDo (Chen et
al., NeurIPS 2023, arXiv:2305.20057) and SDMGrad (Xiao, Ban and Ji, NeurIPS 2023, arXiv:2305.18409).

With one sample, the noise of J correlates with itself in J J', and the weights' gradient is biased.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, check_whole, preferences
from mtl_jax.balancing.base import (
    Balancer,
    Needs,
    Result,
    among_present,
    keep_shares,
    preference_of,
    start_preference,
)
from mtl_jax.balancing.solvers import project_simplex, times
from mtl_jax.gradients.gramian import pairs


class Weighted(NamedTuple):
    """Weights on the simplex; an absent task keeps its own."""

    weights: Float[Array, " task"]


def start(num_tasks, template):
    """Equal weights."""
    return Weighted(jnp.full((num_tasks,), 1 / num_tasks))


@parts.recorded(
    paper="Chen et al., NeurIPS 2023, arXiv:2305.20057",
    when="MGDA with small batches, without its bias",
)
def modo(gamma: float = 0.1, rho: float = 0.1) -> Balancer:
    """One projected step per batch: w <- P(w - gamma (J1 J2' w + rho w)), P onto the simplex; the direction is J'w.

    The step has the scale of the squared gradients, as in the paper.

    Args:
      gamma: step size of the weights.
      rho: regularisation towards equal weights.
    """
    check("modo", "above 0", gamma=gamma)
    check("modo", "at least 0", rho=rho)

    def update(signal, state, *, mask, key):
        cross = jnp.where(pairs(mask), signal.cross, 0)
        share, held = among_present(state.weights, mask)
        share = project_simplex(share - gamma * (times(cross, share) + rho * share), mask).astype(state.weights.dtype)
        kept = keep_shares(state.weights, share, held, mask)
        return Result(share.astype(signal.losses.dtype)), Weighted(kept)

    return Balancer(start, update, Needs.CROSS, simplex=True)


class Leaning(NamedTuple):
    """Weights on the simplex, and the preference; () where none was given."""

    weights: Float[Array, " task"]
    preference: Any


@parts.recorded(
    paper="Xiao, Ban and Ji, NeurIPS 2023, arXiv:2305.18409",
    when="the same, leaning on the mean",
)
def sdmgrad(
    preference_weight: float = 0.3,
    learning_rate: float = 10.0,
    momentum: float = 0.5,
    inner_steps: int = 20,
    preference: Sequence[float] | None = None,
) -> Balancer:
    """The min-norm direction that leans on the mean: min over the simplex of |J'(w + l p)|^2 / 2, p equal weights.

    `inner_steps` of projected gradient descent with momentum, warm-started from the last step, where the gradient is
    J1 J2' (w + l p); the direction is J'(w + l p) / (1 + l). The cross product is divided by its mean diagonal, so that
    the learning rate has no unit.

    Args:
      preference_weight: l; the larger, the nearer to the mean gradient.
      learning_rate, momentum: of the weights.
      inner_steps: per batch.
      preference: p in place of equal weights, one per task, divided by its sum over the present tasks.
    """
    check("sdmgrad", "at least 0", preference_weight=preference_weight)
    check("sdmgrad", "above 0", learning_rate=learning_rate)
    check("sdmgrad", "in [0, 1)", momentum=momentum)
    check_whole("sdmgrad", 1, inner_steps=inner_steps)
    preference = preferences("sdmgrad", "preference", preference)

    def init(num_tasks, template):
        chosen = start_preference("sdmgrad", "preferences", preference, num_tasks)
        return Leaning(start(num_tasks, template).weights, chosen)

    def update(signal, state, *, mask, key):
        cross = jnp.where(pairs(mask), signal.cross, 0)
        count = jnp.maximum(mask.sum(), 1)
        # The diagonal of two samples may nearly vanish where the rest does not.
        scale = jnp.maximum(jnp.abs(jnp.diagonal(cross)).sum() / count, 1e-6 * jnp.abs(cross).max())
        cross = cross / jnp.where(scale > 0, scale, 1)
        leaning, _ = among_present(preference_of(state.preference, mask, cross.dtype), mask)
        share, held = among_present(state.weights, mask)

        def descend(carry, _):
            share, velocity = carry
            velocity = momentum * velocity + times(cross, share + preference_weight * leaning)
            return (project_simplex(share - learning_rate * velocity, mask).astype(share.dtype), velocity), None

        begin = share.astype(cross.dtype)
        (share, _), _ = jax.lax.scan(descend, (begin, jnp.zeros_like(begin)), length=inner_steps)
        kept = keep_shares(state.weights, share, held, mask)
        used = (share + preference_weight * leaning) / (1 + preference_weight)
        return Result(used.astype(signal.losses.dtype)), Leaning(kept, state.preference)

    return Balancer(init, update, Needs.CROSS, carried=("preference",), simplex=True, unit_free=True)

"""Bargaining and fairness: Nash-MTL (Navon et al., ICML 2022, arXiv:2202.01017) and FairGrad (Ban and Ji, ICML 2024,
arXiv:2402.15638). Both solve G w = w^(-1 / alpha); Nash-MTL is alpha = 1.
"""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, stateless
from mtl_jax.balancing.solvers import power_equation


@parts.recorded()
def nash_mtl(max_norm: float | None = 1.0) -> Balancer:
    """The Nash bargaining solution, G w = 1 / w: every task's gain is in proportion to its weight.

    Solved at each step, and by itself, not by linearisation around the last step's weights as in the authors' code.

    Args:
      max_norm: the trunk's direction, whose length is sqrt(K), is shortened to this; None: not at all.
    """
    if max_norm is not None and max_norm <= 0:
        raise ValueError(f"nash_mtl: max_norm={max_norm} must be positive, or None")

    def update(signal, state, *, mask, key):
        weights, _ = power_equation(signal.gramian, mask, 1.0)
        if max_norm is not None:
            length = jnp.sqrt(jnp.maximum(weights @ signal.gramian @ weights, 0))
            weights = weights * jnp.minimum(1, max_norm / jnp.maximum(length, jnp.finfo(length.dtype).tiny))
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN)


@parts.recorded()
def fairgrad(alpha: float = 1.0) -> Balancer:
    """alpha-fair utilities of the tasks' gains: G w = w^(-1 / alpha).

    Args:
      alpha: 1 is proportional fairness (Nash-MTL without its bound on the length); towards 0 the sum of the
        gradients, towards infinity max-min fairness. Below 0.5, float32 does not solve the equation where gradient
        lengths differ by more than about two orders of magnitude.
    """
    if alpha <= 0:
        raise ValueError(f"fairgrad: alpha={alpha} must be positive; for the sum of the gradients use 'equal'")

    def update(signal, state, *, mask, key):
        weights, _ = power_equation(signal.gramian, mask, alpha)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(stateless, update, Needs.GRAMIAN)

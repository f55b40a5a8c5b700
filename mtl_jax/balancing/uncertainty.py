"""Uncertainty weighting (Kendall, Gal and Cipolla, CVPR 2018, arXiv:1705.07115)."""

import jax.numpy as jnp
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check, is_number
from mtl_jax.balancing.base import Balancer, Needs, Result, defined


@parts.recorded(
    paper="Kendall, Gal and Cipolla, CVPR 2018, arXiv:1705.07115",
    when="losses of different scales, regressions beside classifications",
)
def uncertainty(init_log_variance: float = 0.0, learning_rate: float = 0.01) -> Balancer:
    """Minimises sum_t (exp(-s_t) L_t + s_t) / 2 over the model and the log variances s.

    The weights of trunk and heads are exp(-s_t) / 2, the gradient of that scalar by the losses; s follows Adam, and
    stays within +-40, as it would fall without end where a loss is 0. Below 0 the scalar has no minimum: nan.

    Args:
      init_log_variance: the first s_t.
      learning_rate: of s.
    """
    check("uncertainty", "above 0", learning_rate=learning_rate)
    if not (is_number(init_log_variance) and abs(init_log_variance) <= learned.FURTHEST):
        raise ValueError(f"uncertainty: init_log_variance={init_log_variance!r} must lie within +-{learned.FURTHEST}")
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        return learned.start(num_tasks, init_log_variance, adam)

    def update(signal, state, *, mask, key):
        weights = jnp.where(mask, jnp.exp(-state.value) / 2, 0)
        new = learned.descend(state, 0.5 - weights * signal.losses, adam, mask)
        weights = defined(weights, signal.losses, mask).astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), learned.within_reach(new)

    return Balancer(init, update, Needs.LOSSES, positive=True)

"""GradNorm, gradient normalization (Chen et al., ICML 2018, arXiv:1711.02257)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, defined


class GradNormState(NamedTuple):
    """Logits of the weights, and each task's first loss (0 before there was one)."""

    logits: learned.Learned
    first: Float[Array, " task"]


@parts.recorded(
    paper="Chen et al., ICML 2018, arXiv:1711.02257",
    when="one task's gradient drowns the others",
)
def gradnorm(alpha: float = 1.5, learning_rate: float = 0.025) -> Balancer:
    """Learns weights K softmax(s) that bring each weighted gradient's length near the mean, more for slow tasks.

    s descends on sum_t | w_t |g_t| - mean_s(w_s |g_s|) r_t^alpha |, where r_t is task t's loss relative to its first,
    over the mean of those ratios; the target counts as constant. Weights apply to trunk and heads. Losses must be at
    least 0: below, weights are nan.

    Args:
      alpha: how strongly slow tasks are pulled up.
      learning_rate: of Adam on s.
    """
    check("gradnorm", "at least 0", alpha=alpha)
    check("gradnorm", "above 0", learning_rate=learning_rate)
    adam = optax.adam(learning_rate)

    def weights_of(logits, mask):
        share = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask)
        return jnp.where(mask, mask.sum() * share, 0)

    def init(num_tasks, template):
        return GradNormState(learned.start(num_tasks, 0.0, adam), jnp.zeros((num_tasks,), jnp.float32))

    def update(signal, state, *, mask, key):
        losses = signal.losses.astype(jnp.float32)
        first = jnp.where(mask & (state.first == 0), losses, state.first)
        count = jnp.maximum(mask.sum(), 1)
        ratio = jnp.where(mask, losses / jnp.where(first > 0, first, 1), 0)
        rate = ratio / jnp.maximum(ratio.sum() / count, 1e-12)
        length = jnp.sqrt(jnp.maximum(jnp.diagonal(signal.gramian), 0)).astype(jnp.float32)

        def gap(logits):
            weighted = weights_of(logits, mask) * length
            target = jax.lax.stop_gradient(weighted.sum() / count * rate**alpha)
            # In units of the mean length, so that the scale of the gradients does not matter.
            return jnp.abs(jnp.where(mask, weighted - target, 0)).sum() / jnp.maximum(length.sum() / count, 1e-30)

        weights = defined(weights_of(state.logits.value, mask), losses, mask).astype(signal.losses.dtype)
        logits = learned.descend(state.logits, jax.grad(gap)(state.logits.value), adam, mask)
        return Result(weights, head_weights=weights), GradNormState(logits, first)

    return Balancer(init, update, Needs.GRAMIAN, positive=True, unit_free=True)

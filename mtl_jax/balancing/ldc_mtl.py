"""LDC-MTL, loss discrepancy control (Xiao, Dong, Zou and Ji 2025, arXiv:2502.08585)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result, defined

NORMALIZATIONS = ("rescale", "log", "none")
SMALLEST = 1e-8  # loss that divides
EVEN = 1e-6  # two weighted losses that differ by less, in units of their size, are equal


class LdcState(NamedTuple):
    """Logits of the weights, and each task's first loss (0 before there was one)."""

    logits: learned.Learned
    first: Float[Array, " task"]


def discrepancy(
    weighted: Float[Array, " task"], size: Float[Array, " task"], mask: Bool[Array, " task"]
) -> Float[Array, ""]:
    """sum |x_i - x_j| over neighbours i, j in the order of the present tasks; `size` is the unit of rounding."""
    place = jnp.arange(len(mask))
    before = jax.lax.cummax(jnp.where(mask, place, -1))
    before = jnp.concatenate([jnp.full((1,), -1), before[:-1]])
    gap, size = weighted - weighted[jnp.maximum(before, 0)], size + size[jnp.maximum(before, 0)]
    # The slope of |0| is 0, and so is that of what rounding makes of it.
    apart = mask & (before >= 0) & (jnp.abs(gap) > EVEN * size)
    return jnp.where(apart, jnp.abs(gap), 0).sum()


@parts.recorded(
    paper="Xiao, Dong, Zou and Ji 2025, arXiv:2502.08585",
    when="losses that should fall together, with many tasks, at no cost",
)
def ldc_mtl(penalty: float = 0.05, learning_rate: float = 1e-3, normalization: str = "rescale") -> Balancer:
    """Minimises sum_t x_t + penalty sum_t |x_t - x_t+1| over the model and s, where x_t = softmax(s)_t f_t.

    The single-loop form of the paper's bilevel problem, as its code has it: the second sum, over neighbours in the
    tasks' order, keeps the weighted losses together. There the logits s come from the features by one layer, or are
    parameters, as here. Weights are the gradient of the scalar by the losses; with a large penalty some are negative.

    Args:
      penalty: of the discrepancy.
      learning_rate: of Adam on s.
      normalization: f_t by the losses L and the first ones F: "rescale" L_t min(F) / F_t, "log" log(L_t / F_t), "none"
        L_t. But for "none", losses must be at least 0: below, weights are nan.
    """
    check("ldc_mtl", "at least 0", penalty=penalty)
    check("ldc_mtl", "above 0", learning_rate=learning_rate)
    if normalization not in NORMALIZATIONS:
        raise parts.unknown("normalization of ldc_mtl", normalization, NORMALIZATIONS)
    adam = optax.adam(learning_rate)

    def scalar(losses, logits, first, mask):
        share = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask).astype(losses.dtype)
        first = jnp.maximum(first, SMALLEST).astype(losses.dtype)
        if normalization == "rescale":
            losses = losses * (jnp.where(mask, first, jnp.inf).min() / first)
        elif normalization == "log":
            losses = jnp.log(jnp.maximum(losses, SMALLEST)) - jnp.log(first)
        weighted = jnp.where(mask, share * losses, 0)
        size = jax.lax.stop_gradient(jnp.abs(weighted) + (share if normalization == "log" else 0))
        return weighted.sum() + penalty * discrepancy(weighted, size, mask), size

    def init(num_tasks, template):
        return LdcState(learned.start(num_tasks, 0.0, adam), jnp.zeros((num_tasks,), jnp.float32))

    def update(signal, state, *, mask, key):
        losses = signal.losses
        first = jnp.where(mask & (state.first == 0), losses.astype(jnp.float32), state.first)
        (weights, slope), size = jax.grad(scalar, (0, 1), has_aux=True)(losses, state.logits.value, first, mask)
        # While all are even, Adam would make whole steps of what rounding left.
        slope = jnp.where(jnp.abs(slope) > EVEN * size.max(), slope, 0)
        weights = jnp.where(mask, weights, 0)
        if normalization != "none":
            weights = defined(weights, losses, mask)
        logits = learned.descend(state.logits, jnp.where(mask, slope, 0), adam, mask)
        return Result(weights, head_weights=weights), LdcState(logits, first)

    return Balancer(init, update, Needs.LOSSES, positive=normalization != "none")

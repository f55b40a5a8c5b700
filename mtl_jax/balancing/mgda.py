"""MGDA, the multiple-gradient descent algorithm (Desideri 2012; Sener and Koltun, NeurIPS 2018, arXiv:1810.04650)."""

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, stateless
from mtl_jax.balancing.solvers import min_norm_point
from mtl_jax.gradients.gramian import pairs

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


@parts.recorded(
    paper="Desideri 2012; Sener and Koltun, NeurIPS 2018, arXiv:1810.04650",
    when="proof of conflict: the common descent direction, or none; slow near a front",
)
def mgda(normalization: str = "none") -> Balancer:
    """The shortest vector in the convex hull of the task gradients.

    Args:
      normalization: divides each gradient first, as Sener and Koltun's code does: "l2" by its length, "loss" by the
        task's loss, "loss+" by their product, "none" not at all. The weights then apply to the divided gradients.
        Where a loss that divides is negative, weights are nan.
    """
    by_loss = normalization in ("loss", "loss+")
    if normalization not in NORMALIZATIONS:
        raise parts.unknown("normalization of mgda", normalization, NORMALIZATIONS)

    def update(signal, state, *, mask, key):
        gram = jnp.where(pairs(mask), signal.gramian, 0)
        length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
        losses = signal.losses.astype(gram.dtype)
        divisor = {
            "none": jnp.ones_like(length), "l2": length, "loss": losses, "loss+": losses * length
        }[normalization]  # fmt: skip
        factor = jnp.where(divisor > 0, 1 / jnp.where(divisor > 0, divisor, 1), 1)
        weights, _ = min_norm_point(gram * factor[:, None] * factor[None, :], mask)
        weights = weights * factor
        return Result(defined(weights, losses, mask) if by_loss else weights), state

    return Balancer(stateless, update, Needs.GRAMIAN, simplex=normalization == "none", positive=by_loss, unit_free=True)

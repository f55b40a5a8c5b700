"""Aligned-MTL (Senushkin et al., CVPR 2023, arXiv:2305.19000)."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import preferences
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, preference_of, start_preference
from mtl_jax.gradients.gramian import scaled

SCALES = ("min", "median", "rmse")


@parts.recorded(
    paper="Senushkin et al., CVPR 2023, arXiv:2305.19000",
    when="badly conditioned gradients, few tasks",
)
def aligned_mtl(scale: str = "min", preference: Sequence[float] | None = None) -> Balancer:
    """Replaces J by the nearest matrix with orthogonal rows of one length, and weights its rows by p.

    w = sqrt(lambda) V Lambda^(-1/2) V'p, over the eigenvalues of G that are not zero.

    Args:
      scale: lambda is the smallest, the median or the mean of those eigenvalues.
      preference: p, one per task; None for 1 / number of present tasks.
    """
    if scale not in SCALES:
        raise parts.unknown("scale of aligned_mtl", scale, SCALES)
    preference = preferences("aligned_mtl", "preference", preference)

    def init(num_tasks, template):
        return start_preference("aligned_mtl", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask)
        values, vectors = jnp.linalg.eigh(gram)
        kept = values > len(mask) * 8 * jnp.finfo(gram.dtype).eps * jnp.maximum(values[-1], 0)
        safe = jnp.where(kept, values, 1)
        rank = kept.sum()
        if scale == "min":
            level = jnp.where(kept, values, jnp.inf).min()
        elif scale == "median":  # the eigenvalues ascend, so those kept are the last `rank`
            level = values[jnp.clip(len(mask) - rank + (rank - 1) // 2, 0, len(mask) - 1)]
        else:
            level = jnp.where(kept, values, 0).sum() / jnp.maximum(rank, 1)
        level = jnp.where(rank > 0, level, 0)
        chosen = preference_of(state, mask, gram.dtype)
        inverse_root = jnp.where(kept, 1 / jnp.sqrt(safe), 0)
        weights = jnp.sqrt(level) * (vectors @ (inverse_root * (vectors.T @ chosen)))
        return Result(jnp.where(mask, weights, 0)), state

    return Balancer(init, update, Needs.GRAMIAN, carried=("preference",), keeps=Keeps.of(preference), unit_free=True)

"""GO-MTL: tasks are sparse combinations of few latent tasks (Kumar and Daume, "Learning task grouping and overlap in
multi-task learning", ICML 2012).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.low_rank import Factors, low_rank
from mtl_jax.sharing.model import MultiTaskModel
from mtl_jax.tasks import Task

FACTORS = Factors(
    start=lambda kernels: {"latent": kernels},
    compose=lambda node, code: jnp.tensordot(code.astype(node["latent"].dtype), node["latent"], 1),
)


@architecture
def go_mtl(
    encoder: Encoder, tasks: Sequence[Task], latent: int = 4, sparsity: float = 1e-3, decay: float = 1e-4
) -> MultiTaskModel:
    """W_t = L s_t for every kernel of the encoder: tasks whose codes overlap share what those latent tasks hold.

    L is [latent, ...] under ``shared/encoder``, s_t [latent] under ``tasks/<t>/codes/<layer>``. With encoder `linear`
    this is the paper's model; in a network each layer has a code of its own. Each task is a pass of its own.

    Args:
      encoder: of each task's network.
      tasks: on common inputs, or each on its own of one shape.
      latent: number of latent tasks.
      sparsity, decay: factors of sum |s_t| and of |L|^2 in the penalty; without decay, codes would shrink
        and L would grow.
    """
    if sparsity < 0 or decay < 0:
        raise ValueError(f"go_mtl: sparsity={sparsity} and decay={decay} must not be negative")

    def penalty(variables: Any) -> Float[Array, ""]:
        params = variables["params"]
        codes = jax.tree.leaves([own["codes"] for own in params["tasks"].values()])
        size = sum((x**2).sum() for x in jax.tree.leaves(params["shared"]["encoder"]))
        return sparsity * sum(jnp.abs(s).sum() for s in codes) + decay * size

    return low_rank(encoder, tasks, "go_mtl", latent, FACTORS, penalty)

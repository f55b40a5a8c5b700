"""GO-MTL: tasks are sparse combinations of few latent tasks (Kumar and Daume, "Learning task grouping and overlap in
multi-task learning", ICML 2012).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.low_rank import Factors, low_rank
from mtl_jax.stacking import over_tasks
from mtl_jax.tasks import Task

FACTORS = Factors(
    start=lambda kernels: {"latent": kernels},
    compose=lambda node, code: jnp.tensordot(code.astype(node["latent"].dtype), node["latent"], 1),
)


@architecture(
    paper="GO-MTL, Kumar and Daume, ICML 2012, arXiv:1206.6417",
    when="small models of many tasks that overlap in groups",
)
def go_mtl(
    encoder: Encoder, tasks: Sequence[Task], latent: int = 4, sparsity: float = 1e-3, decay: float = 1e-4
) -> MultiTaskModel:
    """W_t = L s_t for every kernel of the encoder: tasks whose codes overlap share what those latent tasks hold.

    L is [latent, ...] under ``shared/encoder``, s_t [latent] under ``tasks/<t>/codes/<layer>``. With encoder `linear`
    this is the paper's model but for the head; in a network each layer has a code of its own. Each task is a pass of
    its own.

    Where it departs from the paper: its tasks are linear, so that W_t is all there is. Here a head of each task's own
    follows. Outputs stay as they are where codes shrink and L, or a head, grows in turn; so both are in the penalty,
    and the sparsity costs what it says.

    Source: GO-MTL, Kumar and Daume, ICML 2012, arXiv:1206.6417.

    Args:
      encoder: of each task's network.
      tasks: on common inputs, or each on its own of one shape.
      latent: number of latent tasks.
      sparsity, decay: factors of sum |s_t|, and of |L|^2 and the heads' |kernel|^2, in the penalty.

    Raises:
      ValueError: for a negative factor, or a sparsity without decay.
    """
    if sparsity < 0 or decay < 0:
        raise ValueError(f"go_mtl: sparsity={sparsity} and decay={decay} must not be negative")
    if sparsity > 0 and decay == 0:
        raise ValueError(
            f"go_mtl: sparsity={sparsity} needs decay above 0: without it codes shrink, what follows them grows, and "
            "the sparsity costs nothing; for no penalty at all, give sparsity=0 too"
        )

    names = [t.name for t in tasks]

    def penalty(variables: Any) -> Float[Array, ""]:
        def own(tree: Any) -> tuple[Any, Any]:
            sizes = [(x**2).sum() for x in jax.tree.leaves(tree["head"]) if x.ndim > 1]
            return sum(jnp.abs(s).sum() for s in jax.tree.leaves(tree["codes"])), sum(sizes)

        codes, heads = over_tasks(variables["params"]["tasks"], names, own)
        kernels = sum((x**2).sum() for x in jax.tree.leaves(variables["params"]["shared"]["encoder"]))
        return sparsity * codes.sum() + decay * (kernels + heads.sum())

    return low_rank(encoder, tasks, "go_mtl", latent, FACTORS, penalty)

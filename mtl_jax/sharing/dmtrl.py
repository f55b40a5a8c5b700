"""Deep multi-task representation learning by tensor factorisation (DMTRL; Yang and Hospedales, ICLR 2017,
arXiv:1605.06391), with the Tucker form.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel, no_penalty
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.low_rank import Factors, low_rank
from mtl_jax.tasks import Task


def axis_name(axis: int) -> str:
    """Of the factor of a kernel's axis."""
    return f"axis_{axis}"


def tucker(kernels: Float[Array, "latent ..."], rank: int) -> dict[str, Array]:
    """The higher-order SVD, cut off: {"core": [latent, ...], "axis_<i>": [length, rank]}.

    Axes of at most `rank` entries stay as they are, in the core. The core is scaled so that the kernels that it stands
    for keep their mean square.
    """
    factors, core = {}, kernels
    for axis, length in enumerate(kernels.shape[1:]):
        if length > rank:
            unfolded = jnp.moveaxis(kernels, axis + 1, 0).reshape(length, -1)
            _, vectors = jnp.linalg.eigh(jnp.matmul(unfolded, unfolded.T, precision="highest"))
            factors[axis_name(axis)] = vectors[:, ::-1][:, :rank]
            core = jnp.moveaxis(jnp.tensordot(core, factors[axis_name(axis)], ((axis + 1,), (0,))), -1, axis + 1)
    # The factors' columns are orthonormal: the norm of the core is that of what it stands for.
    kept = (core**2).sum()
    scale = jnp.where(kept > 0, jnp.sqrt((kernels**2).sum() / jnp.where(kept > 0, kept, 1)), 1)
    return {"core": core * scale, **factors}


def compose(node: dict[str, Array], code: Float[Array, " latent"]) -> Array:
    """sum over the core's entries: core . (code, axis_0, axis_1, ...)."""
    kernel = jnp.tensordot(code.astype(node["core"].dtype), node["core"], 1)
    for axis in range(kernel.ndim):
        if axis_name(axis) in node:
            kernel = jnp.moveaxis(jnp.tensordot(kernel, node[axis_name(axis)], ((axis,), (1,))), -1, axis)
    return kernel


@architecture(
    paper="DMTRL, Yang and Hospedales, ICLR 2017, arXiv:1605.06391",
    when="small models of many tasks, compressed together",
)
def dmtrl(encoder: Encoder, tasks: Sequence[Task], latent: int = 4, rank: int = 16) -> MultiTaskModel:
    """The kernels of all tasks, stacked, are a Tucker product: each axis of a kernel and the tasks have few directions.

    Cores and factors are under ``shared/encoder/<kernel's path>``, a task's row of the task factor under
    ``tasks/<t>/codes/<layer>``. They start as the cut-off higher-order SVD of `latent` random kernels, as the paper
    starts from an SVD of kernels. Each task is a pass of its own.

    Where it departs from the paper: the paper starts from an SVD of kernels that were trained task by task, and also
    has tensor-train and low-rank matrix forms; the head is each task's own.

    Source: DMTRL, Yang and Hospedales, ICLR 2017, arXiv:1605.06391.

    Args:
      encoder: of each task's network; with encoder `linear`, a linear model.
      tasks: on common inputs, or each on its own of one shape.
      latent: rank of the task axis.
      rank: of the kernels' other axes; shorter axes are kept whole, and with none longer this is `go_mtl` without its
        penalty.
    """
    if rank < 1:
        raise ValueError(f"dmtrl: rank={rank} must be at least 1")
    return low_rank(
        encoder, tasks, "dmtrl", latent, Factors(lambda kernels: tucker(kernels, rank), compose), no_penalty
    )

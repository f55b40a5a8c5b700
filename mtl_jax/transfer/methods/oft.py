"""Orthogonal fine-tuning: a kernel's inputs are rotated, block by block, so that angles between neurons stay."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Leaves, Method, Site


def rotations(upper: Float[Array, "block entries"], size: int) -> Float[Array, "block size size"]:
    """(I + Q)^-1 (I - Q) of skew-symmetric Q (Cayley), given by their entries above the diagonal."""
    rows, columns = np.triu_indices(size, 1)
    skew = jnp.zeros((len(upper), size, size), upper.dtype).at[:, rows, columns].set(upper)
    skew = skew - skew.swapaxes(1, 2)
    eye = jnp.broadcast_to(jnp.eye(size, dtype=upper.dtype), skew.shape)
    return jnp.linalg.solve(eye + skew, eye - skew)


def block_size(rows: int, wanted: int) -> int:
    """The largest divisor of `rows` that is at most `wanted`."""
    return max(n for n in range(1, min(rows, wanted) + 1) if rows % n == 0)


def init(key: Any, site: Site, block: int) -> Leaves:
    """No rotation."""
    del key
    size = block_size(site.matrix[0], block)
    return {"rotation": jnp.zeros((site.matrix[0] // size, size * (size - 1) // 2))}


def weights(node: Leaves, name: str, added: Leaves) -> Leaves:
    """diag(R_1, ..., R_n) W."""
    kernel, upper = node[name], jnp.asarray(added["rotation"])
    matrix = base.as_matrix(kernel)
    size = matrix.shape[0] // len(upper)
    turned = rotations(upper, size) @ matrix.reshape(len(upper), size, -1).astype(upper.dtype)
    return {name: turned.reshape(kernel.shape).astype(kernel.dtype)}


@parts.recorded()
def oft(block: int = 8, paths: str | Sequence[str] | None = None) -> Method:
    """R W, with R block-diagonal and orthogonal.

    Where it departs from PEFT: the Cayley transform is exact, where PEFT takes five terms of its series by default.

    Source: Qiu et al., "Controlling text-to-image diffusion by orthogonal finetuning", NeurIPS 2023, arXiv:2306.07280.

    Args:
      block: size of the blocks at most; the largest that divides a kernel's inputs is taken.
      paths: regexes of the kernels; None for all of the encoder's.
    """
    parts.check_whole("oft: block", block, 2)
    paths = base.regexes("oft: paths", paths, (KERNELS,))
    adds = Addition(
        functools.partial(init, block=block), weights=weights, targets=paths,
        takes=lambda s: len(s.shape) > 1 and block_size(s.matrix[0], block) > 1,
        what="matrix whose inputs can be cut into blocks",
    )  # fmt: skip
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)

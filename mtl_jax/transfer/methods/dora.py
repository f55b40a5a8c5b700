"""DoRA: a kernel's columns as length and direction; the direction is adapted by LoRA, the length by itself."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Leaves, Method
from mtl_jax.transfer.methods.lora import check, pair, product


def norms(kernel: Any) -> Any:
    """[out], the length of what leads to each output."""
    return jnp.sqrt((base.as_matrix(kernel) ** 2).sum(0))


def weights(node: Leaves, name: str, added: Leaves, scale: float) -> Leaves:
    """m (W + s A B) / ||W + s A B||, whose norm no gradient goes through."""
    kernel = node[name]
    moved = kernel + product(added, scale, kernel)
    length = jax.lax.stop_gradient(norms(moved))
    tiny = jnp.finfo(kernel.dtype).tiny
    return {name: moved * (added["magnitude"] / jnp.maximum(length, tiny)).astype(kernel.dtype)}


@parts.recorded()
def dora(rank: int = 8, alpha: float | None = None, paths: str | Sequence[str] | None = None) -> Method:
    """Length and direction apart: m (W + s A B) / ||W + s A B||, by output.

    Source: Liu et al., "DoRA: weight-decomposed low-rank adaptation", ICML 2024, arXiv:2402.09353.

    Args:
      rank, alpha, paths: as in `lora`.
    """
    scale = check("dora", rank, alpha) / rank
    paths = base.regexes("dora: paths", paths, (KERNELS,))
    adds = Addition(
        functools.partial(pair, rank=rank), measured=lambda value: {"magnitude": norms(value)},
        weights=functools.partial(weights, scale=scale), targets=paths,
    )  # fmt: skip
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)

"""MiSS: one small matrix that every `rank` rows of a kernel share."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Leaves, Method, Site


def init(key: Any, site: Site, rank: int) -> Leaves:
    """Zeros."""
    del key
    return {"shard": jnp.zeros((rank, site.shape[-1]))}


def weights(node: Leaves, name: str, added: Leaves) -> Leaves:
    """W[i] + D[i mod r]."""
    kernel, shard = node[name], added["shard"]
    rows = base.as_matrix(kernel).shape[0]
    change = jnp.tile(shard, (-(-rows // shard.shape[0]), 1))[:rows]
    return {name: kernel + change.reshape(kernel.shape).astype(kernel.dtype)}


@parts.recorded()
def miss(rank: int = 8, paths: str | Sequence[str] | None = None) -> Method:
    """W[i] + D[i mod rank]: rows of the kernel share the rows of one matrix D [rank, out].

    Source: Kang and Yin, "MiSS: revisiting the trade-off in LoRA with an efficient shard-sharing structure", 2024,
    arXiv:2409.15371.

    Args:
      rank: rows of D.
      paths: regexes of the kernels; None for all of the encoder's.
    """
    parts.check_whole("miss: rank", rank)
    paths = base.regexes("miss: paths", paths, (KERNELS,))
    adds = Addition(functools.partial(init, rank=rank), weights=weights, targets=paths)
    return Method(1e-3, (*ADDED, *HEADS), adds=adds)

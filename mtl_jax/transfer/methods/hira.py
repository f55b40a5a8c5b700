"""HiRA: a kernel times a low-rank matrix, entry by entry, which changes it at high rank."""

import functools
from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Leaves, Method
from mtl_jax.transfer.methods.lora import pair, product


def weights(node: Leaves, name: str, added: Leaves) -> Leaves:
    """W + W * (A B), entry by entry."""
    kernel = node[name]
    return {name: kernel + kernel * product(added, 1.0, kernel)}


@parts.recorded()
def hira(rank: int = 8, paths: str | Sequence[str] | None = None) -> Method:
    """W + W * (A B), entry by entry.

    Source: Huang et al., "HiRA: parameter-efficient Hadamard high-rank adaptation for large language models", ICLR
    2025.

    Args:
      rank: of A B.
      paths: regexes of the kernels; None for all of the encoder's.
    """
    parts.check_whole("hira: rank", rank)
    paths = base.regexes("hira: paths", paths, (KERNELS,))
    adds = Addition(functools.partial(pair, rank=rank), weights=weights, targets=paths)
    return Method(3e-3, (*ADDED, *HEADS), adds=adds)

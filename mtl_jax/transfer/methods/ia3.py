"""(IA)^3: what layers give is scaled, output by output."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Call, Leaves, Method, Site


def init(key: Any, site: Site) -> Leaves:
    """Ones."""
    del key
    return {"scale": jnp.ones(site.shape[-1])}


def output(call: Call, added: Leaves) -> Any:
    """(x W + b) l."""
    own = call.own()
    return own * added["scale"].astype(own.dtype)


def weights(node: Leaves, name: str, added: Leaves) -> Leaves:
    """W l, and b l."""
    return {n: node[n] * added["scale"].astype(node[n].dtype) for n in (name, "bias") if n in node}


@parts.recorded()
def ia3(paths: str | Sequence[str] | None = None, per_task: bool = False) -> Method:
    """Layers' outputs times a learned vector.

    Where it departs from the paper: that scales keys, values and what the feed-forward layers have inside; here all
    layers of the encoder, unless `paths` says which, as ".*/(key|value|hidden)/kernel" does for a transformer.

    Source: Liu et al., "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning",
    NeurIPS 2022, arXiv:2205.05638.

    Args:
      paths: regexes of the kernels of the layers; None for all of the encoder's.
      per_task: vectors of each task's own in place of ones in common.
    """
    paths = base.regexes("ia3: paths", paths, (KERNELS,))
    adds = Addition(None if per_task else init, None, init if per_task else None, output, weights, targets=paths)
    return Method(5e-3, (*ADDED, *HEADS), adds=adds)

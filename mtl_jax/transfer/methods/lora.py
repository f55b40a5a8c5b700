"""Low-rank adaptation: a frozen kernel W, and beside it a product of two thin matrices that trains.

W + s A B, with A [in, r] and B [r, out]; a convolution's A is a convolution to r channels, its B a 1 x 1 one. A layer
is computed as x W + s (x A) B, so that no gradient of the size of W is made.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import ADDED, HEADS, KERNELS, Addition, Call, Leaves, Method, Site


def pair(key: Any, site: Site, rank: int) -> Leaves:
    """A drawn, B zero: the model starts as it was."""
    a = base.fan_in_uniform(key, (*site.shape[:-1], rank))
    return {"a": a, "b": jnp.zeros((rank, site.shape[-1]))}


def product(added: Leaves, scale: float, like: Any) -> Any:
    """s A B in the form of a kernel."""
    a, b = base.as_matrix(added["a"]), added["b"]
    return (scale * (a @ b)).reshape(like.shape).astype(like.dtype)


def output(call: Call, added: Leaves, scale: float) -> Any:
    """x W + b + s (x A) B."""
    own = call.own()
    change = call.linear(added["a"]) @ added["b"].astype(own.dtype)
    return own + (scale * change).astype(own.dtype)


def added(scale: float, rank: int, paths: Sequence[str], per_task: bool) -> Addition:
    """What LoRA adds."""

    init = functools.partial(pair, rank=rank)
    return Addition(
        None if per_task else init, init_task=init if per_task else None,
        output=functools.partial(output, scale=scale),
        weights=lambda node, name, x: {name: node[name] + product(x, scale, node[name])},
        targets=tuple(paths),
    )  # fmt: skip


def check(name: str, rank: int, alpha: float | None) -> float:
    """Alpha, or an error for arguments out of range."""
    parts.check_whole(f"{name}: rank", rank)
    alpha = rank if alpha is None else alpha
    base.check_between(f"{name}: alpha", alpha, 0, float("inf"), open_low=True)
    return float(alpha)


@parts.recorded()
def lora(
    rank: int = 8,
    alpha: float | None = None,
    paths: str | Sequence[str] | None = None,
    per_task: bool = False,
) -> Method:
    """Low-rank matrices beside frozen kernels: W + (alpha / rank) A B.

    Source: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685.

    Args:
      rank: of A B.
      alpha: numerator of the scale; None for `rank`, a scale of 1.
      paths: regexes of the kernels; None for all of the encoder's.
      per_task: matrices of each task's own, under ``tasks/<t>/adapter``, in place of ones in common.
    """
    scale = check("lora", rank, alpha) / rank
    paths = base.regexes("lora: paths", paths, (KERNELS,))
    return Method(1e-3, (*ADDED, *HEADS), adds=added(scale, rank, paths, per_task))


@parts.recorded()
def rslora(
    rank: int = 8, alpha: float | None = None, paths: str | Sequence[str] | None = None, per_task: bool = False
) -> Method:
    """LoRA whose scale keeps what is learned at high ranks as large as at low ones: W + (alpha / sqrt(rank)) A B.

    Source: Kalajdzievski, "A rank stabilization scaling factor for fine-tuning with LoRA", 2023, arXiv:2312.03732.

    Args:
      rank, alpha, paths, per_task: as in `lora`; alpha None for sqrt(rank), a scale of 1.
    """
    parts.check_whole("rslora: rank", rank)
    scale = check("rslora", rank, rank**0.5 if alpha is None else alpha) / rank**0.5
    paths = base.regexes("rslora: paths", paths, (KERNELS,))
    return Method(1e-3, (*ADDED, *HEADS), adds=added(scale, rank, paths, per_task))


@parts.recorded()
def lora_plus(
    rank: int = 8,
    alpha: float | None = None,
    ratio: float = 16.0,
    paths: str | Sequence[str] | None = None,
    per_task: bool = False,
) -> Method:
    """LoRA whose B learns `ratio` times faster than A.

    Source: Hayou, Ghosh and Yu, "LoRA+: efficient low rank adaptation of large models", ICML 2024, arXiv:2402.12354.

    Args:
      ratio: of the learning rates of B and A.
      rank, alpha, paths, per_task: as in `lora`.
    """
    scale = check("lora_plus", rank, alpha) / rank
    base.check_between("lora_plus: ratio", ratio, 0, float("inf"), open_low=True)
    paths = base.regexes("lora_plus: paths", paths, (KERNELS,))
    return Method(
        2e-4, (*ADDED, *HEADS), adds=added(scale, rank, paths, per_task),
        factors=lambda paths, encoder: ((f".*/{base.ADAPTER}/.*/b", float(ratio)),),
    )  # fmt: skip

"""TIES: of each task vector the largest entries; where they disagree in sign, those of the sign that weighs more."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax.transfer.merging.trees import check_scale, check_share, is_float, leafwise, read_with_base, wide


def ties(base: Any, models: Sequence[Any], *, keep: float = 0.2, scale: float = 1.0) -> Any:
    """Trims, elects signs, and adds scale times the mean of the entries that agree with the elected sign.

    Yadav, Tam, Choshen, Raffel and Bansal, "TIES-merging: resolving interference when merging models", NeurIPS 2023,
    arXiv:2306.01708. An entry whose trimmed values cancel takes the sign of most others, as in the authors' code.

    Args:
      base: what all were tuned from.
      models: trees.
      keep: the share of a task vector's entries, over all leaves, that are kept: those of largest magnitude.
      scale: of what is added to the base.
    """
    check_share(keep, "keep")
    check_scale(scale)
    flat, origin = read_with_base(models, base)
    limits = [threshold(model, origin, keep) for model in flat]

    def trimmed(leaves: np.ndarray, start: np.ndarray) -> np.ndarray:
        return np.stack([np.where(np.abs(v) >= limit, v, 0) for v, limit in zip(leaves - start, limits, strict=True)])

    majority = 0.0
    for path, leaf in origin.items():
        if is_float(leaf):
            leaves = np.stack([wide(m[path]) for m in flat])
            majority += float(np.sign(trimmed(leaves, wide(leaf)).sum(0)).sum())
    tie = np.sign(majority)

    def merged(_: str, leaves: np.ndarray, start: np.ndarray) -> Any:
        vectors = trimmed(leaves, start)
        sign = np.sign(vectors.sum(0))
        agrees = vectors * np.where(sign == 0, tie, sign) > 0
        return start + scale * np.where(agrees, vectors, 0).sum(0) / np.maximum(agrees.sum(0), 1)

    return leafwise(merged, models[0], flat, origin)


def threshold(model: dict[str, np.ndarray], base: dict[str, np.ndarray], keep: float) -> float:
    """The magnitude that a share `keep` of a task vector's entries reach."""
    sizes = np.concatenate([np.abs(wide(x) - wide(base[p])).reshape(-1) for p, x in model.items() if is_float(x)])
    count = round(keep * len(sizes))
    return float(np.partition(sizes, len(sizes) - count)[len(sizes) - count]) if count else np.inf

"""Task arithmetic: what tuning changed, added up (Ilharco et al., ICLR 2023, arXiv:2212.04089); and DARE before it."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from mtl_jax.transfer.merging.ties import ties
from mtl_jax.transfer.merging.trees import check_scale, check_share, leafwise, read_with_base


def task_arithmetic(base: Any, models: Sequence[Any], *, scale: float = 0.3) -> Any:
    """base + scale * sum_t (model_t - base).

    Args:
      base: what all were tuned from.
      models: trees.
      scale: of the sum; the paper's, tuned on validation, lie around 0.3 for eight tasks.
    """
    check_scale(scale)
    flat, origin = read_with_base(models, base)
    return leafwise(lambda _, leaves, start: start + scale * (leaves - start).sum(0), models[0], flat, origin)


def dare(
    base: Any, models: Sequence[Any], key: Key[Array, ""], *, drop: float = 0.9, scale: float = 0.3, keep: float = 1.0
) -> Any:
    """Of each task vector entries are dropped at random, the others divided by 1 - drop; then they are merged.

    Yu et al., "Language models are super Mario", ICML 2024, arXiv:2311.03099.

    Args:
      base: what all were tuned from.
      models: trees.
      key: of the draw, which depends on it, the path and the model's number alone.
      drop: the share of entries that are dropped, below 1.
      scale: of `task_arithmetic`, or of `ties`.
      keep: of `ties`, which merges them instead where it is below 1.
    """
    check_share(drop, "drop")
    if drop == 1:
        raise ValueError("drop=1 leaves nothing of the models; it must be below 1")
    flat, origin = read_with_base(models, base)
    bits = [int(b) for b in np.asarray(jax.random.key_data(key)).reshape(-1)]

    def dropped(path: str, leaves: np.ndarray, start: np.ndarray) -> np.ndarray:
        for i, leaf in enumerate(leaves):
            draw = np.random.default_rng([*bits, zlib.crc32(path.encode()), i])
            kept = draw.random(leaf.shape, np.float32) >= drop
            leaves[i] = start + np.where(kept, (leaf - start) / (1 - drop), 0)
        return leaves

    sparse: list[dict[str, np.ndarray]] = [{} for _ in flat]
    for path in flat[0]:
        leaves = np.stack([np.asarray(m[path], np.promote_types(m[path].dtype, np.float32)) for m in flat])
        for i, leaf in enumerate(dropped(path, leaves, np.asarray(origin[path], leaves.dtype))):
            sparse[i][path] = leaf
    wide_base = {p: np.asarray(x, sparse[0][p].dtype) for p, x in origin.items()}
    merged = task_arithmetic(wide_base, sparse, scale=scale) if keep == 1 else (
        ties(wide_base, sparse, keep=keep, scale=scale))  # fmt: skip
    return leafwise(lambda path, leaves, _: merged[path], models[0], flat)

"""Averages of parameters: uniform and greedy soups, and the line between a model and what it was tuned from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtl_jax.transfer.merging.trees import check_scale, leafwise, read, read_with_base


def average(models: Sequence[Any], *, weights: Sequence[float] | None = None) -> Any:
    """The mean of all models, a uniform soup (Wortsman et al., ICML 2022, arXiv:2203.05482).

    Args:
      models: trees of one architecture, best tuned from one initialisation.
      weights: of the models, at least 0; they are divided by their sum. None: all alike.
    """
    flat, _ = read(models)
    share = np.ones(len(flat)) if weights is None else np.asarray(weights, np.float64)
    if share.shape != (len(flat),) or not (share >= 0).all() or not 0 < share.sum() < np.inf:
        raise ValueError(f"weights={weights!r} must be {len(flat)} numbers of at least 0, one of them above")
    share = share / share.sum()
    return leafwise(lambda _, leaves, __: np.tensordot(share.astype(leaves.dtype), leaves, 1), models[0], flat)


def wise_ft(base: Any, models: Sequence[Any], *, alpha: float = 0.5) -> Any:
    """(1 - alpha) base + alpha model: keeps of what the base knew (Wortsman et al., CVPR 2022, arXiv:2109.01903).

    Args:
      base: what the model was tuned from.
      models: one tree, in a list.
      alpha: 0 is the base, 1 the model.
    """
    check_scale(alpha, "alpha")
    flat, origin = read_with_base(models, base)
    if len(flat) != 1:
        raise ValueError(f"wise_ft is of one model and its base, and {len(flat)} models are given; task_arithmetic "
                         "adds several to a base")  # fmt: skip
    return leafwise(lambda _, leaves, start: start + alpha * (leaves[0] - start), models[0], flat, origin)


def greedy_soup(models: Sequence[Any], score: Callable[[Any], float]) -> tuple[Any, list[int]]:
    """(the mean of the models that are kept, their numbers): each joins, the best first, if the score does not fall.

    Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    inference time", ICML 2022, arXiv:2203.05482.

    Args:
      models: trees of one architecture.
      score: of a tree, on held-out data; larger is better. It is called 2 n - 1 times.
    """
    read(models)
    alone = [float(score(m)) for m in models]
    if not np.isfinite(alone).all():
        raise ValueError(f"the scores of the models are {alone}; they must be finite")
    order = sorted(range(len(models)), key=lambda i: -alone[i])
    kept, best = [order[0]], alone[order[0]]
    for i in order[1:]:
        found = float(score(average([models[j] for j in (*kept, i)])))
        if found >= best:
            kept, best = [*kept, i], found
    return average([models[j] for j in kept]), kept

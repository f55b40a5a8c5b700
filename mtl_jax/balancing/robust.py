"""Aggregation that outliers cannot steer: Krum (Blanchard et al., NeurIPS 2017) and the trimmed mean (Yin et al., ICML
2018, arXiv:1803.01498).
"""

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check_whole
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, stateless


@parts.recorded(
    paper="Blanchard et al., NeurIPS 2017",
    when="some tasks' labels may be broken",
)
def krum(outliers: int = 1, selected: int = 1) -> Balancer:
    """The mean of the gradients that are nearest to their neighbours, by squared distance.

    A task's score is the sum over its K - outliers - 2 nearest others, K the present tasks; at least one counts.

    Args:
      outliers: how many tasks may be far off.
      selected: how many tasks with the smallest scores are kept; those with equal scores share a place.
    """
    check_whole("krum", 0, outliers=outliers)
    check_whole("krum", 1, selected=selected)

    def init(num_tasks, template):
        if num_tasks < max(outliers + 3, selected):
            raise ValueError(f"krum: {num_tasks} tasks are too few for outliers={outliers} and selected={selected}; "
                             f"it takes {max(outliers + 3, selected)}")  # fmt: skip
        return ()

    def update(signal, state, *, mask, key):
        gram, count = signal.gramian, len(mask)
        square = jnp.diagonal(gram)
        both = square[:, None] + square[None, :]
        distance = jnp.maximum(both - (gram + gram.T), 0)
        others = mask[:, None] & mask[None, :] & ~jnp.eye(count, dtype=bool)
        order = jnp.argsort(jnp.where(others, distance, jnp.inf), axis=1)
        nearest = jnp.take_along_axis(jnp.where(others, distance, jnp.inf), order, 1)
        neighbours = jnp.clip(mask.sum() - outliers - 2, 1, count)
        counted = (jnp.arange(count) < neighbours) & jnp.isfinite(nearest)
        score = jnp.where(counted, nearest, 0).sum(1)
        rounding = 2 * jnp.finfo(gram.dtype).eps * jnp.where(counted, jnp.take_along_axis(both, order, 1), 0).sum(1)
        score = jnp.where(mask, score, jnp.inf)
        last = jnp.sort(score)[jnp.clip(jnp.minimum(selected, mask.sum()) - 1, 0, count - 1)]
        # Equal up to rounding, as the distances between two tasks are: the order of the tasks must not decide.
        before, tied = mask & (score < last - rounding), mask & (jnp.abs(score - last) <= rounding)
        places = jnp.minimum(selected, mask.sum()) - before.sum()
        weights = before + tied * (places / jnp.maximum(tied.sum(), 1))
        weights = weights / jnp.maximum(weights.sum(), 1)
        return Result(weights.astype(signal.losses.dtype)), state

    return Balancer(init, update, Needs.GRAMIAN, simplex=True, unit_free=True, keeps=Keeps.NOTHING)


@parts.recorded(
    paper="Yin et al., ICML 2018, arXiv:1803.01498",
    when="some tasks' gradients may be outliers",
)
def trimmed_mean(trim: int = 1) -> Balancer:
    """The mean, coordinate by coordinate, without the `trim` largest and smallest of the present tasks' gradients.

    Where too few tasks are present, fewer are left out, so that one remains.
    """
    check_whole("trimmed_mean", 0, trim=trim)

    def init(num_tasks, template):
        if num_tasks <= 2 * trim:
            raise ValueError(f"trimmed_mean: trim={trim} leaves none of {num_tasks} tasks; it takes {2 * trim + 1}")
        return ()

    def update(signal, state, *, mask, key):
        count = mask.sum()
        cut = jnp.minimum(trim, jnp.maximum(count - 1, 0) // 2)

        def leaf(rows):
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            ordered = jnp.sort(jnp.where(mask.reshape(column), rows, jnp.inf), axis=0)
            place = jnp.arange(len(mask)).reshape(column)
            kept = (place >= cut) & (place < count - cut)
            return jnp.where(kept, ordered, 0).sum(0) / jnp.maximum(count - 2 * cut, 1).astype(rows.dtype)

        return Result(direction=jax.tree.map(leaf, signal.jacobian)), state

    return Balancer(stateless if trim == 0 else init, update, Needs.JACOBIAN, directs=True, keeps=Keeps.NOTHING)

"""PIVRG, performance-informed variance reduction gradient (Qin, Wang and Yan, CVPR 2025, "Revisiting fairness in
multitask learning: a performance-driven approach for variance reduction").
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, check_whole, numbers
from mtl_jax.balancing.base import Balancer, Needs, Result, defined, one_per_task
from mtl_jax.balancing.nash import power_equation, shortened

MOST = 1e6  # percent; the softmax gives such a task all that its bound allows


class PivrgState(NamedTuple):
    """Each task's baseline (0 where there is none yet), its score in percent and whether it has one, and the sums of
    the window under way."""

    baseline: Float[Array, " task"]
    score: Float[Array, " task"]
    known: Bool[Array, " task"]
    total: Float[Array, " task"]
    count: Int[Array, " task"]  # type: ignore[assignment]  # a tuple's method goes by this name too
    step: Int[Array, ""]


def informed_weights(scores, known, mask, bound, min_temperature):
    """K softmax(scores / T) over the present tasks, T = max((highest - lowest) / log bound, min_temperature).

    No weight is more than `bound` times another. A task without a score counts as the others' mean.
    """
    known = known & mask
    middle = jnp.where(known, scores, 0).sum() / jnp.maximum(known.sum(), 1)
    scores = jnp.where(known, scores, middle)
    highest = jnp.where(mask, scores, -jnp.inf).max()
    lowest = jnp.where(mask, scores, jnp.inf).min()
    temperature = jnp.maximum(jnp.where(mask.any(), highest - lowest, 0) / math.log(bound), min_temperature)
    share = jax.nn.softmax(jnp.where(mask, scores / temperature, -jnp.inf), where=mask)
    return jnp.where(mask, mask.sum() * share, 0)


@parts.recorded(
    paper="Qin, Wang and Yan, CVPR 2025",
    when="tasks that fall behind their single-task networks should catch up",
)
def pivrg(
    baselines: Sequence[float] | None = None,
    bound: float = 2.0,
    min_temperature: float = 10.0,
    every: int = 100,
    max_norm: float | None = 1.0,
) -> Balancer:
    """FairGrad of potential delay, weighted by how far each task is behind its baseline: G a = (w / a)^(1/2).

    w = K softmax(s / T) with the scores s_t = 100 (L_t - b_t) / b_t, in percent, of the mean losses of the last window,
    and T = max((max s - min s) / log bound, min_temperature). Until a window has passed, w is 1. The paper scores by
    metrics after each epoch, its code on NYUv2 and Cityscapes by those of training; here a score is the loss's.

    Args:
      baselines: b, the training losses that single-task networks reach, positive, one per task. None: each task's mean
        loss of its first window, so that a score is how little of it has gone; then losses must be at least 0 (below,
        weights are nan).
      bound: no w is more than this times another; above 1.
      min_temperature: in percent.
      every: steps per window.
      max_norm: the trunk's direction is shortened to this, as in the authors' code; None: not at all.
    """
    baselines = numbers("pivrg", "baselines", baselines)
    if baselines is not None and min(baselines) <= 0:
        raise ValueError(f"pivrg: baselines={baselines!r} must be positive, one per task")
    check("pivrg", "above 0", bound=bound, min_temperature=min_temperature)
    if bound <= 1:
        raise ValueError(f"pivrg: bound={bound!r} must be above 1, as it is a ratio of weights; 'fairgrad(alpha=2.0)' "
                         "has none")  # fmt: skip
    check_whole("pivrg", 1, every=every)
    if max_norm is not None:
        check("pivrg", "above 0", max_norm=max_norm)

    def init(num_tasks, template):
        one_per_task("pivrg", "baselines", baselines, num_tasks)
        zeros, none = jnp.zeros((num_tasks,), jnp.float32), jnp.zeros((num_tasks,), jnp.int32)
        first = zeros if baselines is None else jnp.asarray(baselines, jnp.float32)
        return PivrgState(first, zeros, jnp.zeros((num_tasks,), bool), zeros, none, jnp.zeros((), jnp.int32))

    def update(signal, state, *, mask, key):
        wanted = informed_weights(state.score, state.known, mask, bound, min_temperature).astype(signal.gramian.dtype)
        # With a = y / w the equation is (1/w) G (1/w) y = y^(-1/2), FairGrad's with alpha = 2.
        inverse = jnp.where(mask, 1 / jnp.where(mask, wanted, 1), 0)
        solved, _ = power_equation(signal.gramian * inverse[:, None] * inverse[None, :], mask, 2.0)
        weights = solved * inverse
        if max_norm is not None:
            weights = shortened(weights, signal.gramian, max_norm)
        weights = weights.astype(signal.losses.dtype)
        if baselines is None:
            weights = defined(weights, signal.losses, mask)
        return Result(weights), scored(state, signal.losses, mask)

    def scored(state, losses, mask):
        """The state with these losses in its window, which may end with them."""
        total = state.total + jnp.where(mask, losses, 0).astype(jnp.float32)
        count, step = state.count + mask, state.step + 1
        ends = step % every == 0
        new = ends & (count > 0)
        mean = total / jnp.maximum(count, 1)
        baseline = jnp.where(new & (state.baseline == 0), mean, state.baseline)
        behind = 100 * (mean - baseline) / jnp.where(baseline > 0, baseline, 1)
        score = jnp.where(new & (baseline > 0), jnp.clip(behind, -MOST, MOST), state.score)
        return PivrgState(
            baseline, score, state.known | new, jnp.where(ends, 0, total), jnp.where(ends, 0, count), step
        )

    return Balancer(init, update, Needs.GRAMIAN, positive=baselines is None)

"""Dynamic weight average (Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, check_whole
from mtl_jax.balancing.base import Balancer, Needs, Result, defined

MOST = 1e6  # of a ratio: the softmax gives such a task everything


class DwaState(NamedTuple):
    """Mean losses of the last two whole windows (0 where there was none), and the sums of the one under way."""

    older: Float[Array, " task"]
    last: Float[Array, " task"]
    total: Float[Array, " task"]
    count: Int[Array, " task"]  # type: ignore[assignment]  # a tuple's method goes by this name too
    step: Int[Array, ""]


@parts.recorded(
    paper="Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704",
    when="tasks that learn at different speeds, at no cost",
)
def dwa(temperature: float = 2.0, every: int = 100) -> Balancer:
    """Weights K softmax(r / T), where r_t is the ratio of task t's mean losses in the last two windows.

    The paper's window is an epoch; here it is `every` steps. Until two windows have passed, all weights are 1.
    Losses must be at least 0, as a ratio means nothing else: below, weights are nan.

    Args:
      temperature: T; the larger, the more even the weights.
      every: steps per window.
    """
    check_whole("dwa", 1, every=every)
    check("dwa", "above 0", temperature=temperature)

    def init(num_tasks, template):
        zeros, none = jnp.zeros((num_tasks,), jnp.float32), jnp.zeros((num_tasks,), jnp.int32)
        return DwaState(zeros, zeros, zeros, none, jnp.zeros((), jnp.int32))

    def update(signal, state, *, mask, key):
        known = (state.older > 0) & (state.last > 0)
        ratio = jnp.where(known, jnp.minimum(state.last / jnp.where(known, state.older, 1), MOST), 1)
        share = jax.nn.softmax(jnp.where(mask, ratio / temperature, -jnp.inf), where=mask)
        weights = jnp.where(mask, mask.sum() * share, 0)
        weights = defined(weights, signal.losses, mask).astype(signal.losses.dtype)
        total = state.total + jnp.where(mask, signal.losses, 0).astype(jnp.float32)
        count, step = state.count + mask, state.step + 1
        # A task without a label in the whole window keeps the means that it has.
        ended, seen = step % every == 0, count > 0
        mean = total / jnp.maximum(count, 1)
        new = DwaState(
            jnp.where(ended & seen, state.last, state.older),
            jnp.where(ended & seen, mean, state.last),
            jnp.where(ended, 0, total),
            jnp.where(ended, 0, count),
            step,
        )
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.LOSSES, positive=True)

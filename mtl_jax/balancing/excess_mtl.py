"""ExcessMTL, robust weighting by excess risks (He et al., ICML 2024, arXiv:2402.02009)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, check_whole
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, among_present, keep_shares


class ExcessState(NamedTuple):
    """Sums of squared gradients {leaf: [K, ...]}, weights, and each task's first estimate (0 before there was one).

    During warm-up `first` is the mean of the estimates so far, of the `steps` that the task took part in.
    """

    squares: dict[str, Any]
    weights: Float[Array, " task"]
    first: Float[Array, " task"]
    steps: Int[Array, " task"]


@parts.recorded(
    paper="He et al., ICML 2024, arXiv:2402.02009",
    when="noisy labels in some tasks; memory for a Jacobian",
)
def excess_mtl(step_size: float = 0.01, warmup: int = 0) -> Balancer:
    """Multiplies weights by exp(step_size e_t), where e_t estimates how far task t is from its optimum.

    e_t = sum g_t^2 / sqrt(S_t) over the coordinates, S_t the sum of g_t^2 over the steps so far, relative to the
    first e_t. Weights lie on the simplex and apply to trunk and heads; none counts as less than the smallest normal
    number, from where it can rise again.

    Args:
      step_size: of the logarithms of the weights.
      warmup: steps of a task before its weight moves, whose mean e_t then takes the place of its first (the paper's
        appendix C.1 has three epochs).
    """
    check("excess_mtl", "above 0", step_size=step_size)
    check_whole("excess_mtl", 0, warmup=warmup)

    def init(num_tasks, template):
        squares = {p: jnp.zeros((num_tasks, *x.shape), x.dtype) for p, x in template.items()}
        return ExcessState(
            squares,
            jnp.full((num_tasks,), 1 / num_tasks, jnp.float32),
            jnp.zeros((num_tasks,), jnp.float32),
            jnp.zeros((num_tasks,), jnp.int32),
        )

    def update(signal, state, *, mask, key):
        excess, squares = jnp.zeros((len(mask),), jnp.float32), {}
        for path, rows in signal.jacobian.items():
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            rows = jnp.where(mask.reshape(column), rows, 0)
            squares[path] = state.squares[path] + rows**2
            part = rows**2 / jnp.sqrt(jnp.where(squares[path] > 0, squares[path], 1))
            excess = excess + part.reshape(len(mask), -1).sum(-1).astype(jnp.float32)
        warming = state.steps < warmup
        steps = jnp.where(mask & warming, state.steps + 1, state.steps)
        mean = state.first + (excess - state.first) / jnp.maximum(steps, 1)
        first = jnp.where(mask & (warming | (state.first == 0)), jnp.where(warming, mean, excess), state.first)
        moves = mask & (first > 0) & ~warming
        # In logarithms, and by a softmax, which subtracts the largest: a gradient that is huge beside the first one
        # takes all the weight, and its exponential does not overflow.
        share, held = among_present(state.weights, mask)
        tiny = jnp.finfo(share.dtype).tiny
        logits = jnp.log(jnp.maximum(share, tiny)) + jnp.where(
            moves, step_size * excess / jnp.where(moves, first, 1), 0
        )
        share = jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), where=mask), 0)
        used = share.astype(signal.losses.dtype)
        new = ExcessState(squares, keep_shares(state.weights, share, held, mask), first, steps)
        return Result(used, head_weights=used), new

    return Balancer(init, update, Needs.JACOBIAN, simplex=True, keeps=Keeps.JACOBIAN)

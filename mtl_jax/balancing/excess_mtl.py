"""ExcessMTL, robust weighting by excess risks (He et al., ICML 2024, arXiv:2402.02009)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result


class ExcessState(NamedTuple):
    """Sums of squared gradients {leaf: [K, ...]}, weights, and each task's first estimate (0 before there was one)."""

    squares: dict[str, Any]
    weights: Float[Array, " task"]
    first: Float[Array, " task"]


@parts.recorded()
def excess_mtl(step_size: float = 0.01) -> Balancer:
    """Multiplies weights by exp(step_size e_t), where e_t estimates how far task t is from its optimum.

    e_t = sum g_t^2 / sqrt(S_t) over the coordinates, S_t the sum of g_t^2 over the steps so far, relative to the
    first e_t. Weights lie on the simplex and apply to trunk and heads.
    """

    def init(num_tasks, template):
        squares = {p: jnp.zeros((num_tasks, *x.shape), x.dtype) for p, x in template.items()}
        return ExcessState(squares, jnp.full((num_tasks,), 1 / num_tasks), jnp.zeros((num_tasks,), jnp.float32))

    def update(signal, state, *, mask, key):
        excess, squares = jnp.zeros((len(mask),), jnp.float32), {}
        for path, rows in signal.jacobian.items():
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            rows = jnp.where(mask.reshape(column), rows, 0)
            squares[path] = state.squares[path] + rows**2
            part = rows**2 / jnp.sqrt(jnp.where(squares[path] > 0, squares[path], 1))
            excess = excess + part.reshape(len(mask), -1).sum(-1).astype(jnp.float32)
        first = jnp.where(mask & (state.first == 0), excess, state.first)
        grown = state.weights * jnp.exp(step_size * excess / jnp.where(first > 0, first, 1))
        # The present tasks share what they held before, so that the weights of all still add up to 1.
        current = jnp.where(mask, grown, 0)
        share = current / jnp.maximum(current.sum(), 1e-30)
        held = jnp.where(mask, state.weights, 0).sum()
        weights = jnp.where(mask, (share * held).astype(state.weights.dtype), state.weights)
        used = share.astype(signal.losses.dtype)
        return Result(used, head_weights=used), ExcessState(squares, weights, first)

    return Balancer(init, update, Needs.JACOBIAN)

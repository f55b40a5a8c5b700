"""MoCo, multi-objective gradient correction (Fernando et al., ICLR 2023, arXiv:2210.12624)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, among_present, keep_shares
from mtl_jax.balancing.solvers import times
from mtl_jax.gradients.gramian import combine, gramian, pairs


class MocoState(NamedTuple):
    """Tracked task gradients {leaf: [K, ...]}, their weights, and the steps that each task took part in."""

    tracked: dict[str, Any]
    weights: Float[Array, " task"]
    steps: Int[Array, " task"]


@parts.recorded(
    paper="Fernando et al., ICLR 2023, arXiv:2210.12624",
    when="small batches and MGDA; memory for a Jacobian",
)
def moco(
    beta: float = 0.5, beta_sigma: float = 0.5, gamma: float = 0.1, gamma_sigma: float = 0.5, rho: float = 0.0
) -> Balancer:
    """Follows y'w, where y tracks the task gradients and w moves towards MGDA's weights of y.

    y <- y - beta / n^beta_sigma (y - J); w <- softmax(w - gamma / n^gamma_sigma (y y' + rho) w), n the step.

    Args:
      beta, beta_sigma: rate of tracking and the power of its decay.
      gamma, gamma_sigma: rate of the weights and the power of its decay.
      rho: regularisation of the weights.
    """
    check("moco", "in (0, 1]", beta=beta)
    check("moco", "above 0", gamma=gamma)
    check("moco", "at least 0", beta_sigma=beta_sigma, gamma_sigma=gamma_sigma, rho=rho)

    def init(num_tasks, template):
        tracked = {p: jnp.zeros((num_tasks, *x.shape), x.dtype) for p, x in template.items()}
        return MocoState(tracked, jnp.full((num_tasks,), 1 / num_tasks), jnp.zeros((num_tasks,), jnp.int32))

    def update(signal, state, *, mask, key):
        steps = state.steps + mask
        count = jnp.maximum(steps, 1).astype(jnp.float32)

        def follow(y, rows):
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            rate = (beta / count**beta_sigma).reshape(column).astype(rows.dtype)
            return jnp.where(mask.reshape(column), y - rate * (y - rows), y)

        tracked = {p: follow(state.tracked[p], rows) for p, rows in signal.jacobian.items()}
        gram = jnp.where(pairs(mask), gramian(tracked), 0)
        gram = gram + rho * jnp.eye(len(mask), dtype=gram.dtype)
        current, held = among_present(state.weights, mask)
        slope = times(gram, current.astype(gram.dtype))
        moved = current - gamma / count.max() ** gamma_sigma * slope
        share = jnp.where(mask, jax.nn.softmax(jnp.where(mask, moved, -jnp.inf), where=mask), 0)
        direction = combine(share.astype(signal.losses.dtype), tracked)
        return Result(direction=direction), MocoState(tracked, keep_shares(state.weights, share, held, mask), steps)

    return Balancer(init, update, Needs.JACOBIAN, directs=True, keeps=Keeps.JACOBIAN)

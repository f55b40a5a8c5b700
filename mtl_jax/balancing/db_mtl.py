"""DB-MTL, dual-balancing of loss and gradient magnitudes (Lin et al. 2023, arXiv:2308.12029)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from mtl_jax import parts
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, defined
from mtl_jax.gradients.gramian import combine, gramian


class DbMtlState(NamedTuple):
    """Moving averages of the log losses' gradients {leaf: [K, ...]}, and the steps that each task took part in."""

    average: dict[str, Any]
    steps: Int[Array, " task"]


@parts.recorded(
    paper="Lin et al. 2023, arXiv:2308.12029",
    when="scales of losses and gradients both differ; memory for a Jacobian",
)
def db_mtl(beta: float = 0.9, beta_sigma: float = 0.0) -> Balancer:
    """Gradients of log losses, averaged over steps and brought to the length of the longest, then summed.

    Heads follow their log losses too. A loss under 1e-8 counts as that much; below 0 the direction is nan.

    Args:
      beta: share of the old average, divided by n^beta_sigma at step n.
      beta_sigma: power of its decay.
    """
    check("db_mtl", "in [0, 1)", beta=beta)
    check("db_mtl", "at least 0", beta_sigma=beta_sigma)

    def init(num_tasks, template):
        average = {p: jnp.zeros((num_tasks, *x.shape), x.dtype) for p, x in template.items()}
        return DbMtlState(average, jnp.zeros((num_tasks,), jnp.int32))

    def update(signal, state, *, mask, key):
        steps = state.steps + mask
        kept = jnp.where(steps == 1, 0, beta / jnp.maximum(steps, 1).astype(jnp.float32) ** beta_sigma)
        slope = defined(jnp.where(mask, 1 / jnp.maximum(signal.losses, 1e-8), 0), signal.losses, mask)

        def follow(old, rows):
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            share = kept.reshape(column).astype(rows.dtype)
            new = share * old + (1 - share) * slope.reshape(column).astype(rows.dtype) * rows
            return jnp.where(mask.reshape(column), new, old)

        average = {p: follow(state.average[p], rows) for p, rows in signal.jacobian.items()}
        length = jnp.where(mask, jnp.sqrt(jnp.maximum(jnp.diagonal(gramian(average)), 0)), 0)
        there = mask & (length > 1e-20 * length.max())  # a factor stays within float32
        factor = jnp.where(there, length.max() / jnp.where(there, length, 1), 0)
        direction = combine(factor.astype(signal.losses.dtype), average)
        return Result(direction=direction, head_weights=slope), DbMtlState(average, steps)

    return Balancer(init, update, Needs.JACOBIAN, directs=True, positive=True, keeps=Keeps.JACOBIAN)

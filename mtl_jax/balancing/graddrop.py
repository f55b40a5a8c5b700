"""GradDrop, gradient sign dropout (Chen et al., NeurIPS 2020, arXiv:2010.06808)."""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, one_per_task


@parts.recorded()
def graddrop(leak: Sequence[float] | None = None) -> Balancer:
    """Keeps, coordinate by coordinate, only gradients of one sign, drawn by how far the tasks agree on it.

    With purity P = (1 + sum_i g_i / sum_i |g_i|) / 2 and one uniform draw U per coordinate, positive parts are kept
    where P > U and negative ones where P < U.

    Args:
      leak: l_i in [0, 1] per task: l_i g_i + (1 - l_i) (what is kept of g_i); None for zeros.
    """
    leak = None if leak is None else tuple(float(x) for x in leak)
    if leak and not all(0 <= x <= 1 for x in leak):
        raise ValueError(f"graddrop: leak={leak} must lie in [0, 1]")

    def init(num_tasks, template):
        one_per_task("graddrop", "leaks", leak, num_tasks)
        return ()

    def update(signal, state, *, mask, key):
        def leaf(path, rows):
            column = (len(mask),) + (1,) * (rows.ndim - 1)
            rows = jnp.where(mask.reshape(column), rows, 0)
            total, size = rows.sum(0), jnp.abs(rows).sum(0)
            purity = (1 + total / jnp.where(size > 0, size, 1)) / 2
            own = jax.random.fold_in(key, zlib.crc32(path.encode()))
            draw = jax.random.uniform(own, rows.shape[1:], rows.dtype)
            kept = jnp.where(jnp.where(rows > 0, purity > draw, purity < draw), rows, 0)
            if leak is None:
                return kept.sum(0)
            part = jnp.asarray(leak, rows.dtype).reshape(column)
            return (part * rows + (1 - part) * kept).sum(0)

        return Result(direction={p: leaf(p, rows) for p, rows in signal.jacobian.items()}), state

    return Balancer(init, update, Needs.JACOBIAN)

"""GradDrop, gradient sign dropout (Chen et al., NeurIPS 2020, arXiv:2010.06808)."""

import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import numbers
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, one_per_task


@parts.recorded(
    paper="Chen et al., NeurIPS 2020, arXiv:2010.06808",
    when="sign conflicts coordinate by coordinate, at the features",
)
def graddrop(leak: Sequence[float] | None = None, f: Callable | None = None) -> Balancer:
    """Keeps, coordinate by coordinate, only gradients of one sign, drawn by how far the tasks agree on it.

    With purity P = (1 + sum_i g_i / sum_i |g_i|) / 2 and one uniform draw U per coordinate, positive parts are kept
    where f(P) > U and negative ones where f(P) < U.

    Args:
      leak: l_i in [0, 1] per task: l_i g_i + (1 - l_i) (what is kept of g_i); None for zeros.
      f: a rising function of arrays from [0, 1] to [0, 1], such as ``lambda p: p ** 2 / (p ** 2 + (1 - p) ** 2)``,
        which is surer of the majority; None for f(P) = P. As a function of Python it is not part of the call's text.
    """
    leak = numbers("graddrop", "leak", leak)
    if leak and not all(0 <= x <= 1 for x in leak):
        raise ValueError(f"graddrop: leak={leak} must lie in [0, 1]")
    if f is not None and not callable(f):
        raise ValueError(f"graddrop: f={f!r} must be a function of arrays, or None")

    def init(num_tasks, template):
        one_per_task("graddrop", "leaks", leak, num_tasks)
        return ()

    def update(signal, state, *, mask, key):
        def leaf(path, rows):
            def add(task, sums):
                # A CPU adds rows up thirty times faster one by one than as a reduction over the first axis.
                row = jnp.where(mask[task], rows[task], 0)
                new = (jnp.maximum(row, 0), jnp.maximum(-row, 0))
                if leak is not None:
                    new += tuple(jnp.asarray(leak, row.dtype)[task] * x for x in new)
                return tuple(total + x for total, x in zip(sums, new, strict=True))

            zero = jnp.zeros(rows.shape[1:], rows.dtype)
            sums = jax.lax.fori_loop(0, len(mask), add, (zero,) * (2 if leak is None else 4))
            up, down, leaked_up, leaked_down = sums if leak is not None else (*sums, 0, 0)
            size = up + down
            purity = jnp.where(size > 0, up / jnp.where(size > 0, size, 1), 0.5)  # = (1 + sum g / sum |g|) / 2
            purity = purity if f is None else f(purity)
            own = jax.random.fold_in(key, zlib.crc32(path.encode()))
            draw = jax.random.uniform(own, rows.shape[1:], rows.dtype)
            return leaked_up - leaked_down + jnp.where(purity > draw, up - leaked_up, leaked_down - down)

        return Result(direction={p: leaf(p, rows) for p, rows in signal.jacobian.items()}), state

    return Balancer(init, update, Needs.JACOBIAN, directs=True, keeps=Keeps.NOTHING)

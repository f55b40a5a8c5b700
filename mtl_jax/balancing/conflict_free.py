"""ConFIG, conflict-free inverse gradients (Liu, Chu and Thuerey, ICLR 2025, arXiv:2408.11104)."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import preferences
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, preference_of, start_preference
from mtl_jax.balancing.solvers import pinv_solve
from mtl_jax.gradients.gramian import cosines


@parts.recorded(
    paper="Liu, Chu and Thuerey, ICLR 2025, arXiv:2408.11104",
    when="equal cosines to all tasks, as in physics-informed losses",
)
def conflict_free(preference: Sequence[float] | None = None) -> Balancer:
    """The direction with equal cosines to all task gradients, as long as their projections on it together.

    u is the unit vector along U^+ p, with U the task gradients at unit length; the direction is (sum_t g_t'u) u.

    Args:
      preference: p, one per task, in whose proportion the cosines are; None for equal ones.
    """
    preference = preferences("conflict_free", "preference", preference)

    def init(num_tasks, template):
        return start_preference("conflict_free", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        similar, length = cosines(signal.gramian, mask)
        there = mask & (length > 0)
        chosen = jnp.where(there, preference_of(state, mask, similar.dtype), 0)
        chosen = chosen / jnp.where(chosen.max() > 0, chosen.max(), 1)
        x = jnp.where(there, pinv_solve(similar, chosen), 0)
        projections = similar @ x
        norm = jnp.sqrt(jnp.maximum(x @ projections, 0))
        total = (length * projections).sum()
        weights = total * x / jnp.maximum(norm, 1e-12) ** 2 / jnp.where(there, length, 1)
        return Result(jnp.where(there & (norm > 1e-6), weights, 0).astype(signal.losses.dtype)), state

    return Balancer(init, update, Needs.GRAMIAN, carried=("preference",), keeps=Keeps.of(preference), unit_free=True)

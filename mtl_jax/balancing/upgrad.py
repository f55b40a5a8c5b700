"""UPGrad, Jacobian descent without conflict (Quinton and Rey 2024, arXiv:2406.16232)."""

from collections.abc import Sequence

import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, preferences
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, preference_of, start_preference
from mtl_jax.balancing.solvers import dual_cone, regularized
from mtl_jax.gradients.gramian import scaled


@parts.recorded(
    paper="Quinton and Rey 2024, arXiv:2406.16232",
    when="no task may get worse; the safe choice among Gramian methods",
)
def upgrad(preference: Sequence[float] | None = None, regularization: float = 1e-4) -> Balancer:
    """Projects each task's gradient onto the dual cone of all of them and adds the projections up.

    Row i solves min v'Gv over v >= p_i e_i; the weights are the sum of the solutions. No present task's loss rises to
    first order. G is divided by its trace over the present tasks, so the direction is linear in the Jacobian's scale.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      regularization: r, of the scaled G: added to its diagonal, but to that of gradients much shorter than the others
        no more than 10 K r times itself, which would hide their conflicts.
    """
    preference = preferences("upgrad", "preference", preference)
    check("upgrad", "at least 0", regularization=regularization)

    def init(num_tasks, template):
        return start_preference("upgrad", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        gram = regularized(scaled(signal.gramian, mask), mask, regularization)
        solutions, _ = dual_cone(gram, jnp.diag(preference_of(state, mask, gram.dtype)), mask)
        return Result(solutions.sum(0)), state

    return Balancer(init, update, Needs.GRAMIAN, carried=("preference",), keeps=Keeps.of(preference), unit_free=True)

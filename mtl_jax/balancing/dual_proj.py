"""DualProj, the mean gradient projected onto the dual cone (from GEM, Lopez-Paz and Ranzato, NeurIPS 2017)."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, numbers, preference_of, start_preference
from mtl_jax.balancing.gramian import scaled
from mtl_jax.balancing.solvers import dual_cone


@parts.recorded()
def dual_proj(preference: Sequence[float] | None = None, regularization: float = 1e-4) -> Balancer:
    """min v'Gv over v >= p: the vector nearest to J'p that conflicts with no task's gradient.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      regularization: added to the diagonal of G divided by its trace.
    """
    preference = None if preference is None else numbers("dual_proj", "preference", preference)

    def init(num_tasks, template):
        return start_preference("dual_proj", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        gram = scaled(signal.gramian, mask, regularization)
        solution, _ = dual_cone(gram, preference_of(state, mask, gram.dtype)[None], mask)
        return Result(solution[0]), state

    return Balancer(init, update, Needs.GRAMIAN, carried=("preference",))

"""DualProj, the mean gradient projected onto the dual cone (from GEM, Lopez-Paz and Ranzato, NeurIPS 2017)."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, preferences
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, preference_of, start_preference
from mtl_jax.balancing.solvers import dual_cone, regularized
from mtl_jax.gradients.gramian import scaled


@parts.recorded(
    paper="from GEM, Lopez-Paz and Ranzato, NeurIPS 2017",
    when="as upgrad, nearer to the mean, cheaper with many tasks",
)
def dual_proj(preference: Sequence[float] | None = None, regularization: float = 1e-4) -> Balancer:
    """min v'Gv over v >= p: the vector nearest to J'p that conflicts with no task's gradient.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      regularization: of G divided by its trace, as in `upgrad`.
    """
    preference = preferences("dual_proj", "preference", preference)
    check("dual_proj", "at least 0", regularization=regularization)

    def init(num_tasks, template):
        return start_preference("dual_proj", "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        gram = regularized(scaled(signal.gramian, mask), mask, regularization)
        solution, _ = dual_cone(gram, preference_of(state, mask, gram.dtype)[None], mask)
        return Result(solution[0]), state

    return Balancer(init, update, Needs.GRAMIAN, carried=("preference",), keeps=Keeps.of(preference), unit_free=True)

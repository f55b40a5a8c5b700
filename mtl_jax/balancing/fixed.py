"""Fixed weights: gradient descent on sum_t w_t L_t."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.balancing.arguments import preferences
from mtl_jax.balancing.base import Balancer, Needs, Result, preference_of, start_preference


@parts.recorded(
    example={"weights": (1.0, 1.0)},
    when="a static weighting chosen on validation; hard to beat",
)
def fixed(weights: Sequence[float]) -> Balancer:
    """The given weights, one per task in the model's order, for trunk and heads.

    Raises:
      ValueError: if a weight is negative or none is positive, or (when training starts) their number is not that of
        the tasks.
    """
    weights = preferences("fixed", "weights", weights)

    def init(num_tasks, template):
        return start_preference("fixed", "weights", weights, num_tasks)

    def update(signal, state, *, mask, key):
        chosen = preference_of(state, mask, signal.losses.dtype)
        return Result(chosen, head_weights=chosen), state

    return Balancer(init, update, Needs.LOSSES, carried=("weights",))

"""Fixed weights: gradient descent on sum_t w_t L_t."""

from collections.abc import Sequence

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, numbers, preference_of, start_preference


@parts.recorded()
def fixed(weights: Sequence[float]) -> Balancer:
    """The given weights, one per task in the model's order, for trunk and heads.

    Raises:
      ValueError: if a weight is negative, or (when training starts) their number is not that of the tasks.
    """
    weights = numbers("fixed", "weights", weights)
    if not weights or min(weights) < 0:
        raise ValueError(f"fixed: weights={weights} must be non-negative, one per task")

    def init(num_tasks, template):
        return start_preference("fixed", "weights", weights, num_tasks)

    def update(signal, state, *, mask, key):
        chosen = preference_of(state, mask, signal.losses.dtype)
        return Result(chosen, head_weights=chosen), state

    return Balancer(init, update, Needs.LOSSES, carried=("weights",))

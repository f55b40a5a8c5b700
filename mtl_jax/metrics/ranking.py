"""How well scores order the items of lists: normalised discounted cumulative gain."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.metrics.base import Mean, Metric, Weights, add, check_same_shape, expand, macro, number, ratio, total, wide


def ndcg(k: int = 10, gain: str = "exponential") -> Metric:
    """Mean over lists of DCG / ideal DCG over the first k items, with discount 1 / log2(1 + rank); as ``ndcg_10``.

    Järvelin and Kekäläinen ("Cumulated gain-based evaluation of IR techniques", 2002). Items of equal score share the
    mean of their places' discounts, as in scikit-learn (McSherry and Najork, 2008), so that equal scores say nothing
    of an order. A list without an item of grade above 0 has no ideal and is left out; scikit-learn counts it as 0.

    Args:
      k: how many places count.
      gain: "exponential", 2^grade - 1 (Burges et al., 2005), or "linear", the grade.

    Raises:
      ValueError: for an argument out of range.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"ndcg: k={k!r} must be an integer of at least 1")
    if gain not in ("exponential", "linear"):
        raise ValueError(f"unknown gain of ndcg {gain!r}; (exponential, linear)")

    def of_list(scores: Float[Array, " item"], grades: Float[Array, " item"], mask: Bool[Array, " item"]) -> Array:
        count = len(scores)
        gains = jnp.where(mask, jnp.exp2(grades) - 1 if gain == "exponential" else grades, 0)
        place = jnp.arange(count)
        discount = jnp.where(place < k, 1 / jnp.log2(place + 2.0), 0).astype(scores.dtype)
        # Discounts of the first n places, n = 0..count.
        first = jnp.concatenate([jnp.zeros(1, scores.dtype), jnp.cumsum(discount)])
        low = jnp.finfo(scores.dtype).min
        known = jnp.where(mask, jnp.maximum(scores, low), -jnp.inf)  # nothing scores as low as an absent item
        ascending = jnp.sort(known)
        above = count - jnp.searchsorted(ascending, known, side="right")
        with_ties = count - jnp.searchsorted(ascending, known, side="left")
        expected = (first[with_ties] - first[above]) / jnp.maximum(with_ties - above, 1).astype(scores.dtype)
        best = (jnp.sort(gains, descending=True) * discount).sum()
        value = (gains * expected).sum() / jnp.where(best > 0, best, 1)
        return jnp.where(jnp.isnan(known).any(), jnp.nan, value)

    def measure(
        outputs: Float[Array, "row item"],
        targets: Float[Array, "row item"],
        mask: Bool[Array, "..."],
        weights: Weights = None,
    ) -> Mean:
        check_same_shape("ndcg", outputs, targets)
        mask = expand(mask, targets)
        values = jax.vmap(of_list)(wide(outputs), wide(targets), mask)
        ordered = (mask & (targets > 0)).any(-1)
        each = number(ordered, weights)
        return Mean(total(values, each), each.sum(dtype=each.dtype))

    def compute(state: Mean) -> Float[Array, ""]:
        return macro(ratio(state.total, state.count), state.count > 0)

    return Metric(f"ndcg_{k}", measure, add, compute, True, True)

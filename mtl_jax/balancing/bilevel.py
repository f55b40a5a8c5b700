"""Weights that learn from validation batches: Auto-Lambda (Liu et al., TMLR 2022, arXiv:2202.03091) and MOML (Ye et
al., NeurIPS 2021, arXiv:2102.07121).

Both look one virtual step of gradient descent ahead, theta' = theta - r sum_t w_t grad L_t, where a validation loss
changes with a weight by -r <grad L_t(theta), grad V(theta')>. That is a derivative of the training losses along one
direction, so it is exact and needs no second derivative of the model.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax import parts
from mtl_jax.balancing import learned
from mtl_jax.balancing.arguments import check
from mtl_jax.balancing.base import Balancer, Needs, Result
from mtl_jax.balancing.solvers import min_norm_point


def ahead(oracle, weights, rate):
    """The leaves after a virtual step on the weighted training losses."""
    slope = oracle.train.gradient(oracle.leaves, weights)
    return jax.tree.map(lambda x, g: x - rate * g.astype(x.dtype), oracle.leaves, slope)


def is_one_of(ids, names):
    """[K], which tasks have one of these names; all of them where there are none."""
    if not names:
        return jnp.ones(len(ids), bool)
    wanted = np.asarray([zlib.crc32(n.encode()) for n in names], np.uint32)
    return (jnp.asarray(ids)[:, None] == wanted).any(1)


@parts.recorded(
    paper="Liu et al., TMLR 2022, arXiv:2202.03091",
    when="auxiliary tasks that should serve a primary one",
)
def auto_lambda(
    primary: Sequence[str] = (), learning_rate: float = 1e-3, inner_rate: float = 0.01, first_weight: float = 0.1
) -> Balancer:
    """Weights descend on the validation loss of the primary tasks after a virtual step; trunk and heads.

    Args:
      primary: names of the tasks that matter; () for all of them.
      learning_rate: of Adam on the weights, which stay at 0 or above.
      inner_rate: of the virtual step.
      first_weight: every weight's first value.
    """
    if isinstance(primary, str):
        raise ValueError(f"auto_lambda: primary={primary!r} must be a sequence of names, such as ({primary!r},)")
    check("auto_lambda", "above 0", learning_rate=learning_rate, inner_rate=inner_rate, first_weight=first_weight)
    adam, primary = optax.adam(learning_rate), tuple(primary)

    def init(num_tasks, template):
        return learned.start(num_tasks, first_weight, adam)

    def update(signal, state, *, mask, key):
        oracle = signal.oracle
        weights = jnp.where(mask, state.value, 0).astype(signal.losses.dtype)
        wanted = (mask & is_one_of(signal.ids, primary)).astype(weights.dtype)
        later = oracle.validation.gradient(ahead(oracle, weights, inner_rate), wanted)
        slope = -inner_rate * oracle.train.slope(oracle.leaves, later)
        new = learned.descend(state, jnp.where(mask, slope, 0), adam, mask)
        new = new._replace(value=jnp.maximum(new.value, 0))
        weights = jnp.where(mask, new.value, 0).astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.ORACLE, about=primary)


@parts.recorded(
    paper="Ye et al., NeurIPS 2021, arXiv:2102.07121",
    when="weights tuned to validation, for all tasks alike",
)
def moml(learning_rate: float = 1e-3, inner_rate: float = 0.01) -> Balancer:
    """Weights follow the common descent direction (MGDA's) of all validation losses after a virtual step.

    Args:
      learning_rate: of Adam on the weights, which start at 1 and stay at 0 or above.
      inner_rate: of the virtual step.
    """
    check("moml", "above 0", learning_rate=learning_rate, inner_rate=inner_rate)
    adam = optax.adam(learning_rate)

    def init(num_tasks, template):
        return learned.start(num_tasks, 1.0, adam)

    def update(signal, state, *, mask, key):
        oracle = signal.oracle
        weights = jnp.where(mask, state.value, 0).astype(signal.losses.dtype)
        there = ahead(oracle, weights, inner_rate)

        def by_weights(one):  # the slope of one validation loss by all weights
            return -inner_rate * oracle.train.slope(oracle.leaves, oracle.validation.gradient(there, one))

        slopes = jax.lax.map(by_weights, jnp.eye(len(mask), dtype=weights.dtype))
        slopes = jnp.where(mask[:, None] & mask[None, :], slopes, 0)
        largest = jnp.abs(slopes).max()
        unit = slopes / jnp.where(largest > 0, largest, 1)  # squares of small slopes would be 0
        mix, _ = min_norm_point(unit @ unit.T, mask)
        new = learned.descend(state, mix @ slopes, adam, mask)
        new = new._replace(value=jnp.maximum(new.value, 0))
        weights = jnp.where(mask, new.value, 0).astype(signal.losses.dtype)
        return Result(weights, head_weights=weights), new

    return Balancer(init, update, Needs.ORACLE)

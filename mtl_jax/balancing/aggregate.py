"""A balancing method on a plain matrix, for tests, notebooks and comparison with other libraries."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real, UInt32

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Signal, given
from mtl_jax.gradients.gramian import combine, gramian
from mtl_jax.gradients.oracle import Losses, Oracle


def linear_oracle(
    jacobian: Float[Array, "task param"], losses: Float[Array | np.ndarray, " task"], mask: Bool[Array, " task"]
) -> Oracle:
    """Losses with these values and gradients at 0, without curvature."""
    side = Losses(
        lambda x: jnp.where(mask, losses + jacobian @ x[""], 0),
        lambda x, weights: {"": weights @ jacobian},
        lambda x, direction: jacobian @ direction[""],
        mask,
    )
    return Oracle({"": jnp.zeros_like(jacobian[0])}, side, side, frozenset({""}))


def aggregate(
    balancer: Balancer,
    jacobian: Real[Array | np.ndarray, "task param"],
    losses: Real[Array | np.ndarray, " task"] | None = None,
    mask: Bool[Array | np.ndarray, " task"] | None = None,
    state: Any = None,
    key: Array | None = None,
    ids: UInt32[Array | np.ndarray, " task"] | None = None,
) -> tuple[Float[Array, " param"], Float[Array, " task"] | None, Any]:
    """Runs one update. A method of two samples is shown the same gradients as both, and one that reads validation
    batches the same losses, linear in the parameters, as training and validation.

    Args:
      balancer: the method.
      jacobian: a gradient per task; whole numbers count as floats.
      losses: ones by default.
      mask: present tasks; all by default. Rows of absent tasks may hold anything, nan included.
      state: the method's state; by default what its `init` gives.
      key: for methods that draw; ``jax.random.key(0)`` by default.
      ids: what a task's draws depend on (`Signal`); 0, 1, ... by default.

    Returns:
      (direction, weights or None, new state).
    """
    if not isinstance(balancer, Balancer):
        raise parts.no_such("balancer", balancer, "a method such as mtl.balancing.upgrad()")
    jacobian = jnp.asarray(jacobian)
    if jacobian.ndim != 2:
        raise ValueError(f"jacobian has shape {jacobian.shape}; it must be [task, param], a gradient per task")
    if not jnp.issubdtype(jacobian.dtype, jnp.floating):
        jacobian = jacobian.astype(float)
    count = jacobian.shape[0]
    mask = jnp.ones(count, bool) if mask is None else jnp.asarray(mask, bool)
    losses = jnp.ones(count, jacobian.dtype) if losses is None else jnp.asarray(losses, jacobian.dtype)
    held = {"": jnp.where(mask[:, None], jacobian, 0)}
    state = balancer.init(count, {"": jacobian[0]}) if state is None else state
    signal = Signal(
        jnp.where(mask, losses, 0),
        gramian(held) if balancer.needs is Needs.GRAMIAN else None,
        held if balancer.needs is Needs.JACOBIAN else None,
        gramian(held) if balancer.needs is Needs.CROSS else None,
        linear_oracle(held[""], losses, mask) if balancer.needs.functions else None,
        np.arange(count, dtype=np.uint32) if ids is None else ids,
    )
    key = jax.random.key(0) if key is None else key
    result, state = balancer.update(signal, state, mask=mask, key=key)
    if (direction := result.direction) is None:
        direction = combine(given(result.weights), held)
    return direction[""], result.weights, state

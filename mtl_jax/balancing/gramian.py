"""Inner products and combinations of task gradients, leaf by leaf."""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gramian(jacobian: dict[str, Float[Array, "task ..."]]) -> Float[Array, "task task"]:
    """J J^T over all leaves, in float32 at least and at highest precision.

    Raises:
      ValueError: if the Jacobian has no leaf: nothing shared is trainable.
    """
    if not jacobian:
        raise ValueError("the Jacobian is empty: no shared parameter is trainable")

    def leaf(rows: Array) -> Array:
        wide = jnp.promote_types(rows.dtype, jnp.float32)
        flat = rows.reshape(rows.shape[0], -1)
        return jnp.einsum("ip,jp->ij", flat, flat, precision="highest", preferred_element_type=wide)

    return functools.reduce(operator.add, map(leaf, jacobian.values()))


def combine(
    weights: Float[Array, " task"], jacobian: dict[str, Float[Array, "task ..."]]
) -> dict[str, Float[Array, "..."]]:
    """J^T w, leaf by leaf."""

    def leaf(rows: Array) -> Array:
        return jnp.tensordot(weights.astype(rows.dtype), rows, 1, precision="highest")

    return jax.tree.map(leaf, jacobian)

"""Inner products and combinations of task gradients, leaf by leaf."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gramian(jacobian: dict[str, Float[Array, "task ..."]]) -> Float[Array, "task task"]:
    """J J' over all leaves, in float32 at least and at highest precision.

    Raises:
      ValueError: if there is no leaf: nothing that is shared trains, so there is nothing to balance.
    """
    if not jacobian:
        raise ValueError("the Jacobian is empty: no shared parameter trains, so there is nothing to balance")

    def leaf(rows: Array) -> Array:
        flat = rows.reshape(rows.shape[0], -1)
        wide = jnp.promote_types(rows.dtype, jnp.float32)
        return jnp.einsum("ip,jp->ij", flat, flat, precision="highest", preferred_element_type=wide)

    return sum(map(leaf, jacobian.values()))


def combine(
    weights: Float[Array, " task"], jacobian: dict[str, Float[Array, "task ..."]]
) -> dict[str, Float[Array, "..."]]:
    """J'w, leaf by leaf."""
    return jax.tree.map(lambda rows: jnp.tensordot(weights.astype(rows.dtype), rows, 1, precision="highest"), jacobian)


def pairs(mask: Bool[Array, " task"]) -> Bool[Array, "task task"]:
    """Which entries of a Gramian belong to two present tasks."""
    return mask[:, None] & mask[None, :]

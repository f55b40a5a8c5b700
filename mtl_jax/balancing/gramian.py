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


def scaled(
    gramian: Float[Array, "task task"], mask: Bool[Array, " task"], regularization: float = 0.0
) -> Float[Array, "task task"]:
    """G over the present tasks divided by its trace, so that no tolerance depends on scale, plus r I on all."""
    gramian = jnp.where(pairs(mask), gramian, 0)
    trace = jnp.trace(gramian)
    return gramian / jnp.where(trace > 0, trace, 1) + regularization * jnp.eye(len(mask), dtype=gramian.dtype)


def cosines(
    gramian: Float[Array, "task task"], mask: Bool[Array, " task"]
) -> tuple[Float[Array, "task task"], Float[Array, " task"]]:
    """(cosines between the rows of J, their lengths); both 0 for absent tasks and zero rows."""
    length = jnp.where(mask, jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0)), 0)
    there = length > 0
    inverse = jnp.where(there, 1 / jnp.where(there, length, 1), 0)
    return jnp.where(pairs(there), gramian, 0) * inverse[:, None] * inverse[None, :], length

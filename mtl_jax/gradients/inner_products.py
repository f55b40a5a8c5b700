"""Inner products of a Jacobian's rows: of rows that are held, or column by column, where no more than one ever is.

A column of the Gramian is G e_j = J (J' e_j): one pull, and one tangent map through trunk and heads.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax.gradients import units
from mtl_jax.gradients.examples import halves, labelled_examples
from mtl_jax.gradients.gramian import gramian, product
from mtl_jax.gradients.trunk import Trunk
from mtl_jax.parallel import global_sum


def held_gramian(trunk: Trunk, examples: bool = False, unit: Array | None = None) -> Float[Array, "task task"]:
    """Of the objectives' rows times `unit`."""
    found = trunk.jacobian(examples)
    return gramian(found if unit is None else units.times(found, unit))


def held_largest(trunk: Trunk, examples: bool = False) -> Float[Array, " task"]:
    """The largest magnitude in each row."""
    return units.largest_entries(trunk.jacobian(examples))


def held_cross(trunk: Trunk, unit: Array | None = None) -> tuple[Float[Array, "task task"], Bool[Array, " task"]]:
    """(J1 J2' of the two halves of the batch, which tasks have labels in both)."""
    first, second, both = halves(trunk.heads, one_of(trunk) if unit is None else unit)
    return product(trunk.jacobian(factors=first), trunk.jacobian(factors=second)), both


def gramian_by_columns(trunk: Trunk, examples: bool = False, unit: Array | None = None) -> Float[Array, "task task"]:
    """`held_gramian`, without ever holding the Jacobian."""
    unit = one_of(trunk) if unit is None else unit

    def column(index: Array) -> Array:
        along_rows = projections(trunk, trunk.row(index, unit, examples)) * unit
        if examples:
            along_rows = along_rows * labelled_examples(trunk.heads)[:, None]
        return global_sum(along_rows.ravel() if examples else along_rows.sum(1))

    found = jax.lax.map(column, jnp.arange(trunk.objectives(examples)))
    return (found + found.T) / 2


def largest_by_rows(trunk: Trunk, examples: bool = False) -> Float[Array, " task"]:
    """`held_largest`, without ever holding the Jacobian."""
    alone = functools.partial(jax.tree.map, lambda x: x[None])
    return jax.lax.map(
        lambda i: units.largest_entries(alone(trunk.row(i, examples=examples)))[0],
        jnp.arange(trunk.objectives(examples)),
    )


def cross_by_columns(trunk: Trunk, unit: Array | None = None) -> tuple[Float[Array, "task task"], Bool[Array, " task"]]:
    """`held_cross`, without ever holding a Jacobian."""
    first, second, both = halves(trunk.heads, one_of(trunk) if unit is None else unit)

    def column(index: Array) -> Array:
        return global_sum((projections(trunk, trunk.row(index, second)) * first).sum(1))

    return jax.lax.map(column, jnp.arange(trunk.objectives())).T, both


def projections(trunk: Trunk, direction: dict[str, Array]) -> Float[Array, "task batch"]:
    """J times a direction of shared leaves, by rows of the batch."""
    return trunk.heads.projections(trunk.push(direction))


def one_of(trunk: Trunk) -> Float[Array, ""]:
    """The unit of rows as they are."""
    return jnp.ones((), trunk.dtype)

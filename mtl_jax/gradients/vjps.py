"""Linear maps and their transposes, over trees whose leaves have a leading axis of rows."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array, Float

from mtl_jax import partition

JAXPRS = (Jaxpr, ClosedJaxpr)


def with_transpose(function: Callable, both_ways: bool, *at: Any) -> tuple:
    """(value, its transpose, its tangent map if `both_ways`, aux) of a function that returns (value, aux).

    Raises:
      ValueError: if both ways are asked of a function that is differentiated backwards only.
    """
    if not both_ways:
        value, pull, aux = jax.vjp(function, *at, has_aux=True)
        return value, pull, None, aux
    value, push, aux = jax.linearize(function, *at, has_aux=True)
    if "custom_lin" in primitives(jax.make_jaxpr(push)(*at).jaxpr):
        raise ValueError("engine 'columns' takes tangents, which a function with a backward pass of its own "
                         "(jax.custom_vjp) in this model does not have; use engine='map'")  # fmt: skip
    return value, jax.linear_transpose(push, *at), push, aux


def primitives(program: Any) -> set[str]:
    """Names of all operations in a jaxpr, those of inner ones included."""
    found = {e.primitive.name for e in program.eqns}
    for equation in program.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, JAXPRS)):
            if isinstance(value, JAXPRS):
                found |= primitives(getattr(value, "jaxpr", value))
    return found


def floats(tree: Any) -> dict[str, Array]:
    """{path: leaf} of the leaves that can be differentiated; a sequence's mask is none."""
    return {p: x for p, x in partition.flatten(tree).items() if jnp.issubdtype(x.dtype, jnp.inexact)}


def scale_rows(tree: Any, factor: Float[Array, "..."]) -> Any:
    """Leaves [batch, ...] times a scalar, or times one factor per row."""
    return jax.tree.map(
        lambda x: x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim)).astype(x.dtype), tree
    )


def row_products(left: Any, right: Any) -> Float[Array, " batch"]:
    """Inner products row by row of leaves [batch, ...], in float32 at least."""

    def of_leaves(left: Array, right: Array) -> Array:
        wide = jnp.promote_types(left.dtype, jnp.float32)
        return (left.astype(wide) * right.astype(wide)).reshape(len(left), -1).sum(1)

    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return functools.reduce(jnp.add, [of_leaves(*pair) for pair in pairs])


def over_rows(function: Callable, rows: Any, mode: str | int) -> Any:
    """`function` over the leading axis of `rows`: one by one, all at once, or in chunks."""
    if mode == "vmap":
        return jax.vmap(function)(rows)
    return jax.lax.map(function, rows, batch_size=mode if isinstance(mode, int) and mode > 1 else None)

"""Whether whole trees are finite, and their squares, in one pass over them."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

def all_finite(tree: Any, before: Any = None) -> Bool[Array, ""]:
    """Whether every number in a tree is finite; with `before`, whether each is or has not changed (a bound of inf).

    Read off the sum of all numbers, at the speed of memory, where a conjunction takes several times as long; numbers
    whose sum leaves the range of floats count as not finite.
    """
    leaves = jax.tree.leaves(tree)
    olds = [None] * len(leaves) if before is None else jax.tree.leaves(before)
    total = jnp.zeros((), jnp.float32)
    for x, old in zip(leaves, olds, strict=True):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            total += (x if old is None else jnp.where(x == old, 0, x)).sum()
    return jnp.isfinite(total)


def squared_length(tree: Any) -> Float[Array, ""]:
    """The sum of the squares of a tree's numbers, in float32 at least and in one pass, as fast as memory is read.

    Where it is finite, so is every number, and its square, which optimizers form. It is nan where a number is, and inf
    where one is inf or too large for its square.
    """

    def of_leaf(x: Array) -> Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return (x * jnp.conj(x)).real.sum()

    return sum(map(of_leaf, jax.tree.leaves(tree)), jnp.zeros((), jnp.float32))

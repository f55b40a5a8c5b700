"""Whether whole trees are finite, and their squares, in one pass over them."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SMALL = 1024  # numbers in a leaf that is joined with others


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


def finite_each(tree: Any, before: Any = None) -> Bool[Array, " task"]:
    """`all_finite` of every entry of the leading axis that the leaves have in common."""
    return jax.vmap(all_finite)(tree, before)


def squared_lengths(trees: dict[str, Any], stacked: Collection[str] = ()) -> dict[str, Float[Array, "*task"]]:
    """{name: the sum of the squares of a tree's numbers}, in float32 at least and in one pass.

    Where it is finite, so is every number, and its square, which optimizers form. It is nan where a number is, and inf
    where one is inf or too large for its square. Trees in `stacked` have a sum for each entry of the leading axis.
    """
    lengths: dict[str, Any] = {}
    rows: dict[Any, dict[str, Array]] = {}
    for name, tree in trees.items():
        whole = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in jax.tree.leaves(tree)]
        if name in stacked:
            flat = [x.reshape(len(x), -1) for x in whole]
            lengths[name] = sum(jnp.square(x).sum(1) for x in flat)
            continue
        leaves = [x.ravel() for x in whole]
        lengths[name] = sum((jnp.square(x).sum() for x in leaves if x.size > SMALL), jnp.zeros((), jnp.float32))
        if small := [x for x in leaves if x.size <= SMALL]:
            row = jnp.concatenate(small)
            rows.setdefault((row.size, row.dtype), {})[name] = row
    # The time of small leaves is that of their operations' number: those of owners alike are one array.
    for alike in rows.values():
        for name, x in zip(alike, jnp.square(jnp.stack(list(alike.values()))).sum(1), strict=True):
            lengths[name] += x
    return lengths

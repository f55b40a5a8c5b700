"""The `Linearization` of vjps: what `balance` reads of a loop's own losses, as it reads a model's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.gradients import units
from mtl_jax.gradients.gramian import combine, gramian, product
from mtl_jax.gradients.linearization import Gradient, Linearization
from mtl_jax.gradients.own_heads import of_heads
from mtl_jax.gradients.own_losses import OwnLosses
from mtl_jax.gradients.own_vjps import Vjps, Where, of_each, of_one

Part = Callable[[Gradient], Gradient]


class Linear(NamedTuple):
    """What a step of one's own reads.

    Attributes:
      line: for `balance`.
      rest: (weights [K]) -> {path: array}, the weighted sum of the tasks' gradients of leaves that are not shared.
    """

    line: Linearization
    rest: Callable[[Float[Array, " task"]], Gradient]


def vjps_of(losses: OwnLosses, where: Where) -> Vjps:
    """The vjps of whichever form the functions have."""
    where = where._replace(leaves=where.vary(where.leaves))
    if losses.features is not None:
        return of_heads(losses, where)
    return of_each(losses, where) if losses.apart else of_one(losses, where)


def missing(name: str, *args: Any) -> Any:
    """An error for what only a model has."""
    raise ValueError(f"losses of one's own have no {name}")


def pushed(vjps: Vjps, direction: Gradient) -> Float[Array, " task"]:
    """The losses' derivatives along a direction of shared leaves."""
    return missing("tangents here; they come with engine='columns'") if vjps.push is None else vjps.push(direction)


def linear(
    vjps: Vjps,
    shared: frozenset[str],
    *,
    columns: bool = False,
    paths: frozenset[str] | None = None,
    samples: Callable[[], tuple[Vjps, Vjps]] | None = None,
) -> Linear:
    """A linearization made of vjps.

    Args:
      vjps: of the losses.
      shared: the leaves that are balanced.
      columns: whether the Gramian is made column by column, and the Jacobian never held.
      paths: of the shared leaves that `jacobian`, `gramian` and `cross` are about; None for all.
      samples: () -> the vjps of two samples, for `cross`.
    """
    count, dtype = len(vjps.losses), vjps.losses.dtype
    indices, one = jnp.arange(count), jnp.ones((), dtype)

    def seen(gradient: Gradient) -> Gradient:
        return gradient if paths is None else {p: g for p, g in gradient.items() if p in paths}

    def jacobian(examples: bool = False) -> Gradient:
        del examples  # losses of one's own have no rows of a batch
        return seen(vjps.rows())

    def gram(examples: bool = False, unit: Array = one) -> Float[Array, "task task"]:
        if not columns:
            found = jacobian(examples)
            return gramian(found if unit is one else units.times(found, unit))
        found = jax.lax.map(lambda i: pushed(vjps, seen(vjps.row(i, unit))) * unit, indices)
        return (found + found.T) / 2

    def largest(examples: bool = False) -> Float[Array, " task"]:
        if not columns:
            return units.largest_entries(jacobian(examples))
        return jax.lax.map(
            lambda i: units.largest_entries(jax.tree.map(lambda x: x[None], seen(vjps.row(i))))[0], indices
        )

    def cross(unit: Array = one) -> tuple[Array, Array]:
        first, second = missing("second sample") if samples is None else samples()
        both = first.labelled & first.finite & second.labelled & second.finite
        if columns:
            found = jax.lax.map(lambda i: pushed(first, seen(second.row(i, unit))) * unit, indices).T
        else:
            left, right = seen(first.rows()), seen(second.rows())
            left, right = (x if unit is one else units.times(x, unit) for x in (left, right))
            found = product(left, right)
        return found, both

    made: list[tuple[Any, Gradient]] = []  # scalarizations weight shared leaves and the rest alike, by one pull

    def mixed(weights: Float[Array, " task"]) -> Gradient:
        if not made or made[-1][0] is not weights:
            made.append((weights, vjps.mix(weights)))
        return made[-1][1]

    line = Linearization(
        losses=vjps.losses,
        labelled=vjps.labelled,
        finite=vjps.finite,
        state=(),
        metrics={},
        jacobian=jacobian,
        gramian=gram,
        largest=largest,
        weighted=lambda weights: {p: g for p, g in mixed(weights).items() if p in shared},
        cross=cross,
        examples=functools.partial(missing, "examples"),
        at_features=vjps.at_features or functools.partial(missing, "features"),
        along=vjps.along or functools.partial(missing, "features"),
        own=functools.partial(missing, "leaves that belong to a task"),
        extra=functools.partial(missing, "parts outside the balancer"),
        notes=[],
    )
    return Linear(line, lambda weights: {p: g for p, g in mixed(weights).items() if p not in shared})


def of_rows(
    rows: Gradient, losses: Float[Array, " task"], mask: Array, second: Gradient | None = None
) -> Linearization:
    """The linearization of a Jacobian that is held: {path: [K, ...]}; `second` is that of another sample."""

    def vjps(rows: Gradient) -> Vjps:
        def row(index: Array, factor: Any = 1) -> Gradient:
            return jax.tree.map(lambda x: x[index] * factor, rows)

        return Vjps(losses, mask, jnp.ones_like(mask), None, row, lambda: rows, lambda w: combine(w, rows), None)

    samples = None if second is None else lambda: (vjps(rows), vjps(second))
    return linear(vjps(rows), frozenset(rows), samples=samples).line

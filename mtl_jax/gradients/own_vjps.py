"""Loss functions of one's own, linearised: rows of their Jacobian, and any weighted sum of rows, pulled on demand.

One function of all losses is pulled as a whole, once per row. Functions of the tasks' own are pulled one by one, and no
task pays for another. Heads after common features have a file of their own (`own_heads`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax.batch import aligned
from mtl_jax.gradients import over_devices
from mtl_jax.gradients.finite import all_finite
from mtl_jax.gradients.gramian import combine
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.own_losses import OwnLosses
from mtl_jax.gradients.vjps import over_rows, with_transpose


class Where(NamedTuple):
    """A place and a way: what to linearise at, and how.

    Attributes:
      params: the tree; leaves: its arrays; shared: the paths among them that are balanced.
      batch: what the functions read.
      mode: how rows are pulled, as for `engine.linearize` (not "layers").
      mask: [K], the tasks that may be there, besides what the functions say; None for all.
      look: whether a task counts as finite only if its whole gradient is; rows are then pulled, and cut, one by one.
      axis_name: over which devices share the batch.
    """

    params: Any
    leaves: Gradient
    shared: frozenset[str]
    batch: Any
    mode: str | int = "map"
    mask: Bool[Array, " task"] | None = None
    look: bool = False
    axis_name: str | None = None

    def tree(self, leaves: Gradient) -> Any:
        """The parameters with these leaves."""
        return partition.unflatten(leaves, self.params)

    def mean(self, tree: Any) -> Any:
        """Over the devices."""
        return over_devices.mean(tree, self.axis_name)

    def vary(self, tree: Any) -> Any:
        """As each device's own."""
        return over_devices.vary(tree, self.axis_name)

    def only_shared(self, gradient: Gradient) -> Gradient:
        """The part of a gradient that is balanced."""
        return {p: g for p, g in gradient.items() if p in self.shared}

    def both(self, direction: Gradient) -> Gradient:
        """A direction of shared leaves as one of all, in the leaves' dtypes."""
        still = jax.tree.map(jnp.zeros_like, self.leaves)
        return self.vary(still | {p: g.astype(still[p].dtype) for p, g in direction.items()})


class Vjps(NamedTuple):
    """Losses at a place, and their vjps.

    Attributes:
      losses: [K], the mean over the devices.
      labelled: [K], which tasks are there; finite: [K], of which loss (and gradient, with `look`) are finite.
      aux: what the functions returned besides, on this device.
      row: (index, factor=1) -> {path: array}, the row of a task times a factor, over shared leaves.
      rows: () -> {path: [K, ...]}, all of them. Tasks that are not there, or not finite, are cut off.
      mix: (weights) -> {path: array} over all leaves, the weighted sum of all tasks' gradients.
      push: (direction) -> [K], the losses' derivatives along a direction of shared leaves (mode "columns").
      at_features: () -> {path in the features: [K, ...]}, this device's part; along: ({path in the features: array}) ->
        the direction pulled back to shared leaves. None without features.
    """

    losses: Float[Array, " task"]
    labelled: Bool[Array, " task"]
    finite: Bool[Array, " task"]
    aux: Any
    row: Callable[..., Gradient]
    rows: Callable[[], Gradient]
    mix: Callable[[Float[Array, " task"]], Gradient]
    push: Callable[[Gradient], Float[Array, " task"]] | None
    at_features: Callable[[], Gradient] | None = None
    along: Callable[[Gradient], Gradient] | None = None


def usable_in(where: Where, losses: Array, mask: Array) -> tuple[Array, Array, Array]:
    """(losses over all devices, which tasks are there, which losses are finite)."""
    losses = where.mean(losses)
    there = over_devices.anywhere(mask, where.axis_name)
    return losses, there if where.mask is None else there & where.mask, jnp.isfinite(losses)


def of_one(form: OwnLosses, where: Where) -> Vjps:
    """One function of all losses: each row is a pull through all of it."""

    def function(leaves: Gradient) -> tuple[Array, tuple[Array, Any]]:
        values = form.all(where.tree(leaves), where.batch)[1]
        return values.losses, (values.mask, values.aux)

    losses, transpose, tangent, (mask, aux) = with_transpose(function, where.mode == "columns", where.leaves)
    dtype, count = losses.dtype, len(losses)
    losses, labelled, finite = usable_in(where, losses, mask)

    def pull(weights: Array) -> Gradient:
        return where.mean(transpose(where.vary(weights.astype(dtype)))[0])

    def unit(index: Array, factor: Any = 1) -> Array:
        return jnp.where(jnp.arange(count) == index, factor, 0).astype(dtype)

    if where.look:
        every = over_rows(lambda i: pull(unit(i)), jnp.arange(count), where.mode)
        finite &= jax.vmap(all_finite)(every)
        every = cut(labelled & finite, every)
        return Vjps(losses, labelled, finite, aux, _indexed(where, every), lambda: where.only_shared(every),
                     lambda weights: combine(weights, every), None)  # fmt: skip
    usable = labelled & finite

    def row(index: Array, factor: Any = 1) -> Gradient:
        # 0 * nan is nan: a row is cut off by selection, not by a weight.
        return cut(usable[index], where.only_shared(pull(unit(index, factor))))

    def push(direction: Gradient) -> Array:
        return jnp.where(usable, where.mean(tangent(where.both(direction))), 0)

    return Vjps(losses, labelled, finite, aux, row, lambda: over_rows(row, jnp.arange(count), where.mode),
                 lambda weights: pull(jnp.where(usable, weights, 0)), push if tangent else None)  # fmt: skip


def of_each(form: OwnLosses, where: Where) -> Vjps:
    """A function per task, each pulled by itself: together they cost what one pull of their sum does."""
    parts = [
        with_transpose(lambda x, n=n, own=own: form.one(n, where.tree(x), own), where.mode == "columns", where.leaves)
        for n, own in form.batches(where.batch).items()
    ]
    losses = jnp.stack([value for value, *_ in parts])
    losses, labelled, finite = usable_in(where, losses, jnp.stack([mask for *_, (mask, _) in parts]))
    aux = dict(zip(form.tasks or (), [a for *_, (_, a) in parts], strict=True)) if form.has_aux else None

    def pull(task: int, factor: Any) -> Gradient:
        value, transpose, *_ = parts[task]
        return where.mean(transpose(where.vary(jnp.asarray(factor, value.dtype)))[0])

    if where.look:
        found = [pull(i, 1) for i in range(len(parts))]
        every = jax.tree.map(lambda *x: jnp.stack(x), *found)
        finite &= jax.vmap(all_finite)(every)
        every = cut(labelled & finite, every)
        return Vjps(losses, labelled, finite, aux, _indexed(where, every), lambda: where.only_shared(every),
                     lambda weights: combine(weights, every), None)  # fmt: skip
    usable = labelled & finite

    def own_row(task: int, factor: Any) -> Gradient:
        return cut(usable[task], where.only_shared(pull(task, factor)))

    def row(index: Array, factor: Any = 1) -> Gradient:
        ways = [lambda f, i=i: own_row(i, f) for i in range(len(parts))]
        return jax.lax.switch(index, ways, jnp.asarray(factor, losses.dtype))

    def rows() -> Gradient:
        return jax.tree.map(lambda *x: jnp.stack(x), *(own_row(i, 1) for i in range(len(parts))))

    def mix(weights: Array) -> Gradient:
        return jax.tree.map(lambda *x: sum(x), *(cut(usable[i], pull(i, weights[i])) for i in range(len(parts))))

    def push(direction: Gradient) -> Array:
        whole = where.both(direction)
        return jnp.where(usable, where.mean(jnp.stack([tangent(whole) for _, _, tangent, _ in parts])), 0)

    return Vjps(losses, labelled, finite, aux, row, rows, mix, push if where.mode == "columns" else None)


def cut(usable: Bool[Array, "..."], tree: Any) -> Any:
    """Leaves, or their rows, that are not usable as zeros."""
    return jax.tree.map(lambda x: jnp.where(aligned(usable, x), x, 0), tree)


def _indexed(where: Where, every: Gradient) -> Callable[..., Gradient]:
    def row(index: Array, factor: Any = 1) -> Gradient:
        return jax.tree.map(lambda x: x[index] * jnp.asarray(factor, x.dtype), where.only_shared(every))

    return row

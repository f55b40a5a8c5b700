"""The heads at one batch: losses, and the cotangents at the features, by one backward pass of the summed losses."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax import stacked_model as stacked
from mtl_jax.batch import aligned
from mtl_jax.gradients import rows
from mtl_jax.gradients.finite import finite_each
from mtl_jax.gradients.forward import Forward
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.point import Point
from mtl_jax.gradients.vjps import row_products, scale_rows, with_transpose
from mtl_jax.members import Outputs
from mtl_jax.model import merge
from mtl_jax.parallel import global_sum
from mtl_jax.stacking import Layout, task_losses
from mtl_jax.tasks import divisor


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """What the heads of K tasks give, and what comes back through them.

    Attributes:
      point, forward: where, and the trunk.
      kept: whether the cotangents at the features are kept; else each is made anew whenever it is needed.
      state: the model's state after the pass.
      outputs: {first: outputs [task, ...]}.
      pull: cotangents at the outputs -> ({path: array} of the tasks' own leaves, cotangents at the features).
      push: the tangent map of that (columns mode only).
      losses, counts: [K], the means over the labelled elements of the global batch, and how many those are.
      labelled, finite: [K], as `Linearization` says; usable: both. Tasks that are not are cut off in what follows.
      by_output: {first: [task, ...]}, the losses' gradients by the outputs.
      cotangents: {first: {path in the features: [task, batch, ...]}}; what they are like, if they are not `kept`.
      own: {path: array}, the losses' gradients by leaves of the tasks' own through the heads; nothing is cut off.
    """

    point: Point
    forward: Forward
    kept: bool
    state: Any
    outputs: dict[str, Outputs]
    pull: Callable
    push: Callable | None
    losses: Float[Array, " task"]
    counts: Float[Array, " task"]
    labelled: Bool[Array, " task"]
    finite: Bool[Array, " task"]
    usable: Bool[Array, " task"]
    by_output: dict[str, Outputs]
    cotangents: dict[str, Gradient]
    own: Gradient

    def remade(self, first: str, index: Array, factor: Array) -> Gradient:
        """A task's cotangent made anew from its head, after its output's was multiplied by a factor, or one per row."""
        # Rows are taken apart at the output, where they belong to the loss, whatever the head does with them.
        head, features = self._head(first, index)
        _, pull = jax.vjp(head, features)
        by_output = jax.tree.map(lambda x: x[index], self.by_output[first])
        return cut(self.point.layout, self.usable, pull(scale_rows(by_output, factor))[0], first, index)

    def scaled(self, weights: Float[Array, "task ..."]) -> dict[str, Gradient]:
        """The cotangents of the losses times weights [K] or [K, batch], pulled through all heads at once.

        {first: {path in the features: array}}, for each task or summed over the group, as the heads read them.
        """
        part = self.point.layout.part
        by_output = {first: jax.vmap(scale_rows)(x, part(weights, first)) for first, x in self.by_output.items()}
        return self.pull(by_output)[1]

    def projections(self, moved: dict[str, Gradient]) -> Float[Array, "task batch"]:
        """The losses' derivatives, by rows of the batch, along tangents {first: tangent of its features}."""
        still = jax.tree.map(jnp.zeros_like, self.point.private)
        if self.push is None:
            raise ValueError("tangents are for engine 'columns'")
        changes = self.push(still, copied(self.point, self.forward, self.kept, moved))
        of_rows = {first: jax.vmap(row_products)(self.by_output[first], changes[first]) for first in changes}
        return self.point.layout.join(of_rows)

    @functools.cached_property
    def apart(self) -> bool:
        """Whether heads handle every row by itself, so that a kept cotangent can be cut into rows; else what belongs
        to some rows is made anew from the outputs."""
        for first in self.point.layout.groups:
            if rows.meet(*self._head(first, 0), self.point.size) is not None:
                self.forward.notes.append(
                    "what belongs to some rows is pulled from the outputs, as rows may meet after the features"
                )
                return False
        return True

    def _head(self, first: str, index: Array | int) -> tuple[Callable[[Gradient], Any], Gradient]:
        """(one task's head as a function of {path: its features}, those features)."""
        point, forward = self.point, self.forward

        def take(tree: Any) -> Any:
            return jax.tree.map(lambda x: x[index], tree)

        variables = point.variables_with(point.private)
        weights, state = (take(variables[kind]["tasks"].get(first, {})) for kind in ("params", "state"))
        values, features = forward.values[first], forward.features[first]
        if not forward.common:
            values, features = take((values, features))

        def head(features: Gradient) -> Any:
            return stacked.decode_one(
                point.model, point.layout, first, variables, weights, state, partition.unflatten(features, values),
                jnp.asarray(index, jnp.int32), train=point.train, rng=point.rng,
            )[0]  # fmt: skip

        return head, features


def through_heads(point: Point, forward: Forward, *, both_ways: bool, kept: bool, check: bool) -> Heads:
    """Runs the heads once, forwards and backwards.

    Args:
      point, forward: where, and the trunk.
      both_ways: whether tangents will be pushed, too.
      kept: whether the cotangents are kept.
      check: whether a task counts as finite only if what comes back from it through its head is, too.
    """
    layout = point.layout
    in_common = forward.common and not kept

    def decode(private: Gradient, features: dict[str, Gradient]) -> tuple[dict[str, Outputs], Any]:
        values = copied(point, forward, kept, forward.values)
        read = {first: partition.unflatten(x, values[first]) for first, x in features.items()}
        return stacked.decode(
            point.model, layout, point.variables_with(private), read, train=point.train, rng=point.rng,
            in_common=in_common,
        )  # fmt: skip

    outputs, pull, push, decoded = with_transpose(
        decode, both_ways, point.private, copied(point, forward, kept, forward.features)
    )

    def mean_losses(outputs: dict[str, Outputs]) -> tuple[Array, tuple[Array, Array]]:
        sums, counts = task_losses(layout, outputs, point.batch)
        local = sums / divisor(counts)
        return local.sum(), (local, counts)

    by_output, (local, counts) = jax.grad(mean_losses, has_aux=True)(outputs)
    losses = global_sum(local)
    own, cotangents = pull(by_output)
    labelled, finite = counts > 0, jnp.isfinite(losses)
    if check:
        finite &= all_finite_of(layout, by_output, cotangents if kept else {}, own)
    usable = labelled & finite
    by_output = {first: cut(layout, usable, x, first) for first, x in by_output.items()}
    if kept:
        cotangents = {first: cut(layout, usable, x, first) for first, x in cotangents.items()}
    state = merge(merge(point.variables["state"], forward.state), decoded)
    return Heads(
        point, forward, kept, state, outputs, pull, push, losses, counts, labelled, finite, usable,
        by_output, cotangents if kept else forward.features, own,
    )  # fmt: skip


def copied(point: Point, forward: Forward, kept: bool, by_group: dict[str, Any]) -> dict[str, Any]:
    """Features {first: tree}; a copy for each task where all heads read one value and a pull is to give the cotangent
    of each."""
    if not (forward.common and kept):
        return by_group
    return {first: point.layout.copies(first, x) for first, x in by_group.items()}


def all_finite_of(layout: Layout, by_output: Any, cotangents: dict[str, Gradient], own: Gradient) -> Any:
    """[K], whether all that comes back from each task is finite, on all devices."""
    of_head: dict[str, Gradient] = {first: {} for first in layout.groups}
    for p, g in own.items():
        of_head[partition.owner(p)][p] = g
    broken = {
        first: ~finite_each((by_output[first], cotangents.get(first, ()), of_head[first])) for first in layout.groups
    }
    return global_sum(layout.join(broken).astype(jnp.int32)) == 0


def cut(layout: Layout, usable: Bool[Array, " task"], tree: Any, first: str, index: Array | None = None) -> Any:
    """A group's leaves [task, ...], or those of its task `index`, as zeros where a task is not usable."""
    # 0 * nan is nan: a task is cut off by selection, not by its weight.
    there = layout.part(usable, first)
    there = there if index is None else there[index]
    return jax.tree.map(lambda x: jnp.where(aligned(there, x), x, 0), tree)

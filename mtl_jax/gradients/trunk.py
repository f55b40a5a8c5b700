"""A linearised trunk: its Jacobian's rows are pulls of the cotangents at the features, taken as a mode says."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.gradients.dense_factors import Factored
from mtl_jax.gradients.examples import labelled_examples
from mtl_jax.gradients.forward import Branch, Forward
from mtl_jax.gradients.heads import Heads
from mtl_jax.gradients.linearization import Gradient, Rows
from mtl_jax.gradients.point import Point
from mtl_jax.gradients.vjps import over_rows, scale_rows
from mtl_jax.parallel import global_sum
from mtl_jax.stacking import Layout


class Pulled(NamedTuple):
    """A cotangent at the features pulled back: to shared leaves, to leaves of the tasks' own that encode reads, and to
    the outputs of the layers that are factored."""

    shared: Gradient
    private: Gradient
    outputs: Gradient


@dataclasses.dataclass(frozen=True, eq=False)
class Trunk:
    """A trunk at one batch, with what comes back from each task's head.

    Attributes:
      point, forward, heads: where, the trunk's own pass, and the heads'.
      mode: how rows are pulled (`engine.linearize_stacked`).
      paths: the shared leaves that the Jacobian is about; None for all.
    """

    point: Point
    forward: Forward
    heads: Heads
    mode: str | int
    paths: frozenset[str] | None

    @property
    def layout(self) -> Layout:
        """How the K tasks lie."""
        return self.point.layout

    @property
    def common(self) -> bool:
        """Whether all heads read one value, so that cotangents may be added up before they are pulled."""
        return self.forward.common

    @property
    def inputs(self) -> Gradient:
        """{path: [N, in]} of the layers whose rows are kept as factors."""
        return self.forward.inputs

    @property
    def dtype(self) -> Any:
        """Of the losses."""
        return self.heads.losses.dtype

    def objectives(self, examples: bool = False) -> int:
        """How many rows the Jacobian has: K, or (`examples`) K times the rows of the batch."""
        return len(self.layout.tasks) * (self.point.size if examples else 1)

    # --- sums of rows -------------------------------------------------------------------------------------------------
    def pull(self, seed: Any) -> Pulled:
        """Pulls {path: cotangent} at the common features, or {first: that} at features per task, back."""
        parts = []
        for branch in self.forward.branches:
            shared, *rest = branch.pull(seed if branch.first is None else {branch.first: seed[branch.first]})
            parts.append((jax.tree.map(lambda x: x.sum(0), shared) if branch.copies else shared, *rest))
        return Pulled(*jax.tree.map(lambda *x: sum(x), *parts))

    def weighted(self, weights: Float[Array, "task ..."]) -> Pulled:
        """The sum of the rows times weights [K], or [K, batch] by row of the batch, on this device."""
        if not self.heads.kept:
            return self.pull(self.together(self.heads.scaled(weights)))
        scaled = {first: self.cotangent(first, self.layout.part(weights, first)) for first in self.layout.groups}
        return self.pull(self.together(scaled))

    def together(self, by_group: dict[str, Gradient]) -> Any:
        """The seed of a pull: the groups' cotangents, as the sum over tasks where all heads read one value."""
        if not self.common:
            return by_group
        if self.heads.kept:
            by_group = jax.tree.map(lambda x: x.sum(0), by_group)
        return jax.tree.map(lambda *x: sum(x), *by_group.values())

    # --- rows ---------------------------------------------------------------------------------------------------------
    def cotangent(self, first: str, factor: Float[Array, "task ..."]) -> Gradient:
        """A group's cotangents at its features, of losses times a factor each, or of their rows times one each."""
        if self.heads.kept and (factor.ndim == 1 or self.heads.apart):
            return jax.vmap(scale_rows)(self.heads.cotangents[first], factor)
        return jax.vmap(lambda i, f: self.heads.remade(first, i, f))(jnp.arange(len(factor)), factor)

    def one(self, first: str, index: Array, factor: Array) -> Gradient:
        """The same of one task, whose index is traced."""
        if self.heads.kept and (not factor.ndim or self.heads.apart):
            return scale_rows(jax.tree.map(lambda x: x[index], self.heads.cotangents[first]), factor)
        return self.heads.remade(first, index, factor)

    def stacked(self) -> Gradient:
        """{path in the features: [K, batch, ...]}, where all heads read one value."""
        if self.heads.kept:
            return self.layout.join(self.heads.cotangents)
        every = jnp.ones(self.objectives(), self.dtype)
        return self.layout.join({n: self.cotangent(n, self.layout.part(every, n)) for n in self.layout.groups})

    def seen(self, gradient: Gradient) -> Gradient:
        """The part of a gradient that the Jacobian is about."""
        return gradient if self.paths is None else {p: g for p, g in gradient.items() if p in self.paths}

    def row(self, index: Array, factors: Array | None = None, examples: bool = False) -> Gradient:
        """One row of the Jacobian; a task with a branch of its own is pulled through that only.

        Args:
          index: of the objective: a task, or (`examples`) task * batch + row of the batch.
          factors: one for all, [K], or [K, batch] by row of the batch, of the tasks' cotangents.
        """
        task, factor = self._factor(index, factors, examples)
        if self.point.branched:
            return global_sum(self.seen(self._of_group(self._through, task, factor)))
        return self._pulled(self._seed(task, factor))

    def jacobian(self, examples: bool = False, factors: Array | None = None) -> Rows:
        """All rows: {path: [objectives, ...]}; without options, dense layers in `inputs` as factors."""
        objectives = jnp.arange(self.objectives(examples))
        branches = self.forward.branches
        if self.point.branched and not all(b.copies for b in branches):
            return over_rows(lambda i: self.row(i, factors, examples), objectives, self.mode)
        if self.point.branched:  # each task's rows through its own branch, those of a group in one pull
            found = {b.first: self._branch_rows(b, b.first, factors, examples) for b in branches if b.first}
            found = global_sum(self.layout.join(found))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found) if examples else found
        factored = self.inputs and not examples and factors is None
        take = self._with_factors if factored else self._pulled
        if examples or not self.common:
            rows = over_rows(lambda i: take(self._seed(*self._factor(i, factors, examples))), objectives, self.mode)
        else:
            seeds = self.stacked()
            if factors is not None:
                every = jnp.broadcast_to(factors, (self.objectives(),)) if not factors.ndim else factors
                seeds = self.layout.join({n: self.cotangent(n, self.layout.part(every, n)) for n in self.layout.groups})
            rows = over_rows(take, seeds, self.mode)
        if not factored:
            return rows
        rows, cotangents = rows
        flat = {p: x.reshape(self.objectives(), -1, x.shape[-1]) for p, x in cotangents.items()}
        return rows | {p: Factored(self.inputs[p], x) for p, x in flat.items()}

    def _factor(self, index: Array, factors: Array | None, examples: bool) -> tuple[Array, Array]:
        """(task, factor of its cotangent or of each of that's rows) of an objective."""
        if examples:
            size, scale = self.point.size, labelled_examples(self.heads)
            task, one = index // size, 1 if factors is None else factors
            return task, jnp.where(jnp.arange(size) == index % size, scale[task] * one, 0)
        if factors is None:
            return index, jnp.ones((), self.dtype)
        return index, factors[index] if factors.ndim else factors

    def _of_group(self, function: Callable, task: Array, factor: Array) -> Any:
        """function(first, index in the group, factor) of a task whose index is traced."""
        groups = list(self.layout.groups)
        if len(groups) == 1:
            return function(groups[0], task, factor)
        at = [self.layout.group_of[n] for n in self.layout.names]
        which, index = np.asarray([groups.index(first) for first, _ in at]), np.asarray([i for _, i in at])
        ways = [lambda i, f, first=first: function(first, i, f) for first in groups]
        return jax.lax.switch(jnp.asarray(which)[task], ways, jnp.asarray(index)[task], factor)

    def _seed(self, task: Array, factor: Array) -> Any:
        """The seed of a pull of one task, whose index is traced."""
        if self.common:
            if self.heads.kept and (not factor.ndim or self.heads.apart):
                return scale_rows(jax.tree.map(lambda x: x[task], self.stacked()), factor)
            return self._of_group(self.one, task, factor)
        if self.heads.kept and (not factor.ndim or self.heads.apart):

            def only(first: str, x: Gradient) -> Gradient:
                here = jnp.asarray(self.layout.positions[first]) == task
                return jax.vmap(lambda x, on: scale_rows(x, jnp.where(on, factor, 0)))(x, here)

            return {first: only(first, x) for first, x in self.heads.cotangents.items()}

        def alone(first: str, index: Array, factor: Array) -> Any:
            found, nothing = self.one(first, index, factor), jax.tree.map(jnp.zeros_like, self.heads.cotangents)
            return nothing | {first: jax.tree.map(lambda z, x: z.at[index].set(x), nothing[first], found)}

        return self._of_group(alone, task, factor)

    def _pulled(self, seed: Any) -> Gradient:
        return global_sum(self.seen(self.pull(seed).shared))

    def _through(self, first: str, index: Array, factor: Array) -> Gradient:
        """One row by a pass of its own: that of a task with a branch of its own, whose index is traced."""
        return self.point.pulled_alone(first, index, self.one(first, index, factor))

    def _with_factors(self, seed: Any) -> tuple[Gradient, Gradient]:
        found = self.pull(seed)
        return {p: g for p, g in self.seen(found.shared).items() if p not in self.inputs}, found.outputs

    def _branch_rows(self, branch: Branch, first: str, factors: Array | None, examples: bool) -> Gradient:
        """{path: [task, ...]} of a group, or (`examples`) [task, batch, ...]."""

        def rows(factor: Float[Array, "task ..."]) -> Gradient:
            return self.seen(branch.pull({first: self.cotangent(first, factor)})[0])

        every = jnp.ones(self.objectives(), self.dtype)
        if examples:
            scale = self.layout.part(labelled_examples(self.heads), first)
            by_row = jnp.eye(self.point.size, dtype=self.dtype)[:, None, :] * scale[:, None]
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), over_rows(rows, by_row, self.mode))
        if factors is not None:
            every = factors if factors.ndim else every * factors
        return rows(self.layout.part(every, first))

    # --- tangents -----------------------------------------------------------------------------------------------------
    def push(self, direction: Gradient) -> dict[str, Gradient]:
        """{first: tangent of its features} along a direction of shared leaves, the others still (columns mode)."""
        whole = {p: jnp.zeros_like(v) for p, v in self.point.shared.items()} | direction
        still, moved = jax.tree.map(jnp.zeros_like, self.point.private), {}
        for branch in self.forward.branches:
            if branch.push is None:
                raise ValueError("tangents are for engine 'columns'")
            tangent = branch.push(whole, still, {})
            moved |= dict.fromkeys(self.layout.groups, tangent) if self.common else tangent
        return moved

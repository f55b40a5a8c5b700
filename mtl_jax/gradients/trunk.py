"""A linearised trunk: its Jacobian's rows are pulls of the cotangents at the features, taken as a mode says."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.gradients.dense_factors import Factored
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.vjps import over_rows, scale_rows
from mtl_jax.parallel import global_sum
from mtl_jax.stacking import Layout


class Branch(NamedTuple):
    """One linearised computation of features: pull is its transpose, push its tangent map (columns mode only)."""

    groups: Sequence[str]  # that it serves, by their first task
    pull: Callable
    push: Callable | None
    copies: bool  # whether shared leaves come back as [task, ...], from a copy for each task of the group


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
      layout: how the K tasks lie.
      branches: the trunk; one for all tasks, or (`branched`) one for each group.
      branched: whether each task's features are a computation of their own.
      common: whether all heads read one value, so that cotangents may be added up before they are pulled.
      cotangents: {first: {path in the features: [task, batch, ...]}}; what they are like, if they are not `kept`.
      remade: (first, index, factor) -> a task's cotangent made anew from its head, after its output's cotangent was
        multiplied by the factor, a number or one per row.
      summed: (weights [K] or [K, batch]) -> the seed of a pull of the weighted sum, made anew.
      through: (first, index, factor) -> the row of a task with a branch of its own, by a pass of its own.
      kept: whether the cotangents are kept; else each is made anew whenever it is needed.
      apart: () -> whether heads handle every row by itself, so that a kept cotangent can be cut into rows; else what
        belongs to some rows is made anew from the outputs.
      mode: how rows are pulled (`engine.linearize_stacked`).
      paths: the shared leaves that the Jacobian is about; None for all.
      inputs: {path: [N, in]} of the layers whose rows are kept as factors.
      size: rows of the batch.
      scale: () -> [K], the labelled examples of each task.
      dtype: of the losses.
    """

    layout: Layout
    branches: Sequence[Branch]
    branched: bool
    common: bool
    cotangents: dict[str, Gradient]
    remade: Callable[[str, Array, Array], Gradient]
    summed: Callable[[Array], Any]
    through: Callable[[str, Array, Array], Gradient]
    kept: bool
    apart: Callable[[], bool]
    mode: str | int
    paths: frozenset[str] | None
    inputs: Gradient
    size: int
    scale: Callable[[], Float[Array, " task"]]
    dtype: Any

    @property
    def count(self) -> int:
        """K."""
        return len(self.layout.tasks)

    # --- sums of rows -------------------------------------------------------------------------------------------------
    def pull(self, seed: Any) -> Pulled:
        """Pulls {path: cotangent} at the common features, or {first: that} at features per task, back."""
        parts = []
        for branch in self.branches:
            shared, *rest = branch.pull(seed if self.common else {first: seed[first] for first in branch.groups})
            parts.append((jax.tree.map(lambda x: x.sum(0), shared) if branch.copies else shared, *rest))
        return Pulled(*jax.tree.map(lambda *x: sum(x), *parts))

    def weighted(self, weights: Float[Array, "task ..."]) -> Pulled:
        """The sum of the rows times weights [K], or [K, batch] by row of the batch, on this device."""
        if not self.kept:
            return self.pull(self.summed(weights))
        scaled = {first: self.cotangent(first, self.layout.part(weights, first)) for first in self.layout.groups}
        return self.pull(self.together(scaled))

    def together(self, by_group: dict[str, Gradient]) -> Any:
        """The seed of a pull: the groups' cotangents, as the sum over tasks where all heads read one value."""
        if not self.common:
            return by_group
        if self.kept:
            by_group = jax.tree.map(lambda x: x.sum(0), by_group)
        return jax.tree.map(lambda *x: sum(x), *by_group.values())

    # --- rows ---------------------------------------------------------------------------------------------------------
    def cotangent(self, first: str, factor: Float[Array, "task ..."]) -> Gradient:
        """A group's cotangents at its features, of losses times a factor each, or of their rows times one each."""
        if self.kept and (factor.ndim == 1 or self.apart()):
            return jax.vmap(scale_rows)(self.cotangents[first], factor)
        return jax.vmap(lambda i, f: self.remade(first, i, f))(jnp.arange(len(factor)), factor)

    def one(self, first: str, index: Array, factor: Array) -> Gradient:
        """The same of one task, whose index is traced."""
        if self.kept and (not factor.ndim or self.apart()):
            return scale_rows(jax.tree.map(lambda x: x[index], self.cotangents[first]), factor)
        return self.remade(first, index, factor)

    def stacked(self) -> Gradient:
        """{path in the features: [K, batch, ...]}, where all heads read one value."""
        if self.kept:
            return self.layout.join(self.cotangents)
        every = jnp.ones(self.count, self.dtype)
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
        if self.branched:
            return global_sum(self.seen(self._of_group(self.through, task, factor)))
        return self._pulled(self._seed(task, factor))

    def jacobian(self, examples: bool = False, factors: Array | None = None) -> dict[str, Array | Factored]:
        """All rows: {path: [objectives, ...]}; without options, dense layers in `inputs` as factors."""
        objectives = jnp.arange(self.count * (self.size if examples else 1))
        if self.branched and not all(b.copies for b in self.branches):
            return over_rows(lambda i: self.row(i, factors, examples), objectives, self.mode)
        if self.branched:  # each task's rows through its own branch, those of a group in one pull
            found = {first: self._branch_rows(b, first, factors, examples)
                     for b in self.branches for first in b.groups}  # fmt: skip
            found = global_sum(self.layout.join(found))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found) if examples else found
        factored = self.inputs and not examples and factors is None
        take = self._with_factors if factored else self._pulled
        if examples or not self.common:
            rows = over_rows(lambda i: take(self._seed(*self._factor(i, factors, examples))), objectives, self.mode)
        else:
            seeds = self.stacked()
            if factors is not None:
                every = jnp.broadcast_to(factors, (self.count,)) if not factors.ndim else factors
                seeds = self.layout.join({n: self.cotangent(n, self.layout.part(every, n)) for n in self.layout.groups})
            rows = over_rows(take, seeds, self.mode)
        if not factored:
            return rows
        rows, cotangents = rows
        flat = {p: x.reshape(self.count, -1, x.shape[-1]) for p, x in cotangents.items()}
        return rows | {p: Factored(self.inputs[p], x) for p, x in flat.items()}

    def _factor(self, index: Array, factors: Array | None, examples: bool) -> tuple[Array, Array]:
        """(task, factor of its cotangent or of each of that's rows) of an objective."""
        if examples:
            task, one = index // self.size, 1 if factors is None else factors
            return task, jnp.where(jnp.arange(self.size) == index % self.size, self.scale()[task] * one, 0)
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
            if self.kept and (not factor.ndim or self.apart()):
                return scale_rows(jax.tree.map(lambda x: x[task], self.stacked()), factor)
            return self._of_group(self.one, task, factor)
        if self.kept and (not factor.ndim or self.apart()):

            def only(first: str, x: Gradient) -> Gradient:
                here = jnp.asarray(self.layout.positions[first]) == task
                return jax.vmap(lambda x, on: scale_rows(x, jnp.where(on, factor, 0)))(x, here)

            return {first: only(first, x) for first, x in self.cotangents.items()}

        def alone(first: str, index: Array, factor: Array) -> Any:
            found, nothing = self.one(first, index, factor), jax.tree.map(jnp.zeros_like, self.cotangents)
            return nothing | {first: jax.tree.map(lambda z, x: z.at[index].set(x), nothing[first], found)}

        return self._of_group(alone, task, factor)

    def _pulled(self, seed: Any) -> Gradient:
        return global_sum(self.seen(self.pull(seed).shared))

    def _with_factors(self, seed: Any) -> tuple[Gradient, Gradient]:
        found = self.pull(seed)
        return {p: g for p, g in self.seen(found.shared).items() if p not in self.inputs}, found.outputs

    def _branch_rows(self, branch: Branch, first: str, factors: Array | None, examples: bool) -> Gradient:
        """{path: [task, ...]} of a group, or (`examples`) [task, batch, ...]."""

        def rows(factor: Float[Array, "task ..."]) -> Gradient:
            return self.seen(branch.pull({first: self.cotangent(first, factor)})[0])

        every = jnp.ones(self.count, self.dtype)
        if examples:
            scale = self.layout.part(self.scale(), first)
            by_row = jnp.eye(self.size, dtype=self.dtype)[:, None, :] * scale[:, None]
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), over_rows(rows, by_row, self.mode))
        if factors is not None:
            every = factors if factors.ndim else every * factors
        return rows(self.layout.part(every, first))

    # --- tangents -----------------------------------------------------------------------------------------------------
    def push(self, direction: Gradient, shared: Gradient, private: Gradient) -> dict[str, Gradient]:
        """{first: tangent of its features} along a direction of shared leaves (columns mode).

        Args:
          direction: leaves of `shared`; the others do not move.
          shared, private: the leaves, for their shapes.
        """
        whole = {p: jnp.zeros_like(v) for p, v in shared.items()} | direction
        still, moved = jax.tree.map(jnp.zeros_like, private), {}
        for branch in self.branches:
            tangent = branch.push(whole, still, {})
            moved |= {first: tangent if self.common else tangent[first] for first in branch.groups}
        return moved

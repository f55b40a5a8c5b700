"""A linearised trunk: its Jacobian's rows are pulls of the cotangents at the features, taken as a mode says."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.balancing.layers import Factored
from mtl_jax.balancing.linearization import Gradient
from mtl_jax.balancing.pulls import over_rows, scale_rows
from mtl_jax.parallel import global_sum


class Branch(NamedTuple):
    """One linearised computation of features: pull is its transpose, push its tangent map (columns mode only)."""

    names: Sequence[str]  # the tasks that it serves
    pull: Callable
    push: Callable | None


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
      names: of the K tasks.
      branches: the trunk; one for all tasks, or (`branched`) one each.
      branched: whether each task's features are a computation of their own.
      common: whether all heads read one value, so that cotangents may be added up before they are pulled.
      cotangents: {task: {path in the features: [batch, ...]}}.
      remade: (task, factor) -> its cotangent made anew from its head, after its output's cotangent was multiplied by
        the factor, a number or one per row.
      kept: whether the cotangents are kept; else each is made anew whenever it is needed.
      apart: () -> whether heads handle every row by itself, so that a kept cotangent can be cut into rows; else what
        belongs to some rows is made anew from the outputs.
      mode: how rows are pulled (`engine.linearize`).
      paths: the shared leaves that the Jacobian is about; None for all.
      inputs: {path: [N, in]} of the layers whose rows are kept as factors.
      size: rows of the batch.
      scale: () -> [K], the labelled examples of each task.
      dtype: of the losses.
    """

    names: tuple[str, ...]
    branches: Sequence[Branch]
    branched: bool
    common: bool
    cotangents: dict[str, Gradient]
    remade: Callable[[str, Array], Gradient]
    kept: bool
    apart: Callable[[], bool]
    mode: str | int
    paths: frozenset[str] | None
    inputs: Gradient
    size: int
    scale: Callable[[], Float[Array, " task"]]
    dtype: Any

    # --- sums of rows -------------------------------------------------------------------------------------------------
    def pull(self, seed: Any) -> Pulled:
        """Pulls {path: cotangent} at the common features, or {task: that} at features per task, back."""
        parts = [b.pull(seed if self.common else {n: seed[n] for n in b.names}) for b in self.branches]
        return Pulled(*jax.tree.map(lambda *x: sum(x), *parts))

    def weighted(self, weights: Float[Array, "task ..."]) -> Pulled:
        """The sum of the rows times weights [K], or [K, batch] by row of the batch, on this device."""
        if self.kept:
            scaled = {n: self.cotangent(i, weights[i]) for i, n in enumerate(self.names)}
            return self.pull(self.together(scaled))
        nothing = jax.tree.map(jnp.zeros_like, self.cotangents[self.names[0]])
        seed = jax.lax.fori_loop(
            0, len(self.names), lambda i, total: jax.tree.map(jnp.add, total, self._seed(i, weights[i])), nothing
        )
        return self.pull(seed)

    def together(self, by_task: dict[str, Gradient]) -> Any:
        """The seed of a pull: the tasks' cotangents, as their sum where all heads read one value."""
        return jax.tree.map(lambda *x: sum(x), *by_task.values()) if self.common else by_task

    # --- rows ---------------------------------------------------------------------------------------------------------
    def cotangent(self, task: int, factor: Array) -> Gradient:
        """A task's cotangent at its features, of its loss times a factor, or of the loss's rows times one each."""
        name = self.names[task]
        if self.kept and (not factor.ndim or self.apart()):
            return scale_rows(self.cotangents[name], factor)
        return self.remade(name, factor)

    def stacked(self) -> Gradient:
        """{path in the features: [K, batch, ...]}, where all heads read one value."""
        return jax.tree.map(lambda *x: jnp.stack(x), *self.cotangents.values())

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
            ways = [lambda f, i=i: self._through(i, f) for i in range(len(self.names))]
            return global_sum(jax.lax.switch(task, ways, factor))
        return self._pulled(self._seed(task, factor))

    def jacobian(self, examples: bool = False, factors: Array | None = None) -> dict[str, Array | Factored]:
        """All rows: {path: [objectives, ...]}; without options, dense layers in `inputs` as factors."""
        count = len(self.names)
        if self.branched:  # each task's rows through its own branch
            rows = [self._branch_rows(i, factors, examples) for i in range(count)]
            return global_sum(jax.tree.map(lambda *x: jnp.concatenate(x), *rows))
        factored = self.inputs and not examples and factors is None
        take = self._with_factors if factored else self._pulled
        if examples or not self.common:
            indices = jnp.arange(count * (self.size if examples else 1))
            rows = over_rows(lambda i: take(self._seed(*self._factor(i, factors, examples))), indices, self.mode)
        else:
            seeds = self.stacked()
            if factors is not None:
                scaled = [self.cotangent(i, factors[i]) for i in range(count)]
                seeds = jax.tree.map(lambda *x: jnp.stack(x), *scaled)
            rows = over_rows(take, seeds, self.mode)
        if not factored:
            return rows
        rows, cotangents = rows
        flat = {p: x.reshape(count, -1, x.shape[-1]) for p, x in cotangents.items()}
        return rows | {p: Factored(self.inputs[p], x) for p, x in flat.items()}

    def _factor(self, index: Array, factors: Array | None, examples: bool) -> tuple[Array, Array]:
        """(task, factor of its cotangent or of each of that's rows) of an objective."""
        if examples:
            task, one = index // self.size, 1 if factors is None else factors
            return task, jnp.where(jnp.arange(self.size) == index % self.size, self.scale()[task] * one, 0)
        if factors is None:
            return index, jnp.ones((), self.dtype)
        return index, factors[index] if factors.ndim else factors

    def _seed(self, task: Array, factor: Array) -> Any:
        """The seed of a pull of one task, whose index is traced."""
        if self.kept and (not factor.ndim or self.apart()):
            if self.common:
                return scale_rows(jax.tree.map(lambda x: x[task], self.stacked()), factor)
            return {
                n: scale_rows(x, jnp.where(task == i, factor, 0)) for i, (n, x) in enumerate(self.cotangents.items())
            }
        return jax.lax.switch(task, [lambda f, i=i: self._alone(i, f) for i in range(len(self.names))], factor)

    def _alone(self, task: int, factor: Array) -> Any:
        found = self.cotangent(task, factor)
        if self.common:
            return found
        return jax.tree.map(jnp.zeros_like, self.cotangents) | {self.names[task]: found}

    def _pulled(self, seed: Any) -> Gradient:
        return global_sum(self.seen(self.pull(seed).shared))

    def _with_factors(self, seed: Any) -> tuple[Gradient, Gradient]:
        found = self.pull(seed)
        return {p: g for p, g in self.seen(found.shared).items() if p not in self.inputs}, found.outputs

    def _through(self, task: int, factor: Array) -> Gradient:
        name = self.names[task]
        return self.seen(Pulled(*self.branches[task].pull({name: self.cotangent(task, factor)})).shared)

    def _branch_rows(self, task: int, factors: Array | None, examples: bool) -> Gradient:
        if examples:
            every = jnp.eye(self.size, dtype=self.dtype) * self.scale()[task]
            return over_rows(lambda factor: self._through(task, factor), every, self.mode)
        return jax.tree.map(lambda x: x[None], self._through(task, self._factor(jnp.asarray(task), factors, False)[1]))

    # --- tangents -----------------------------------------------------------------------------------------------------
    def push(self, direction: Gradient, shared: Gradient, private: Gradient) -> dict[str, Gradient]:
        """{task: tangent of its features} along a direction of shared leaves (columns mode).

        Args:
          direction: leaves of `shared`; the others do not move.
          shared, private: the leaves, for their shapes.
        """
        whole = {p: jnp.zeros_like(v) for p, v in shared.items()} | direction
        still, moved = jax.tree.map(jnp.zeros_like, private), {}
        for branch in self.branches:
            tangent = branch.push(whole, still, {})
            moved |= {n: tangent if self.common else tangent[n] for n in branch.names}
        return moved

"""Alike tasks lie stacked: what belongs to them is one array with a leading axis of tasks, and runs as one program.

A `Layout` says which tasks lie together. The first task of a group stands for it: where a tree has an entry per task,
``{name: tree}``, the stacked tree has one per group, ``{first name: tree with leaves [task, ...]}``, and so a path such
as ``tasks/<first>/head/out/kernel`` names the leaf of a whole group.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from mtl_jax.batch import Batch, PerTask
from mtl_jax.parallel import global_sum
from mtl_jax.scaler import Scaler
from mtl_jax.tasks import Task, loss_sum

ByTask = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How K tasks lie.

    Attributes:
      tasks: in the order of every [K] axis.
      groups: {first name: names of the group, in the tasks' order}.
    """

    tasks: tuple[Task, ...]
    groups: dict[str, tuple[str, ...]]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of all tasks."""
        return tuple(t.name for t in self.tasks)

    @functools.cached_property
    def group_of(self) -> dict[str, tuple[str, int]]:
        """{name: (first name of its group, its index there)}."""
        return {n: (first, i) for first, names in self.groups.items() for i, n in enumerate(names)}

    @functools.cached_property
    def positions(self) -> dict[str, np.ndarray]:
        """{first name: where the group's tasks are among all}."""
        at = {n: i for i, n in enumerate(self.names)}
        return {first: np.asarray([at[n] for n in names]) for first, names in self.groups.items()}

    def size(self, first: str) -> int:
        """How many tasks a group has."""
        return len(self.groups[first])

    # --- trees with an entry per task --------------------------------------------------------------------------------
    def stack(self, by_task: ByTask, axis: int = 0) -> dict[str, Any]:
        """{first: leaves stacked along a new axis} of {name: tree}; a group without entries has none."""
        lying = getattr(by_task, "values_by_task", by_task)
        if isinstance(lying, View) and lying.layout is self and not lying.own and not axis:
            return dict(lying.stacked)
        stacked = {}
        for first, names in self.groups.items():
            trees = [by_task[n] for n in names if n in by_task]
            if trees and len(trees) < len(names):
                missing, has = (next(n for n in names if (n in by_task) is there) for there in (False, True))
                raise ValueError(f"task {missing!r} lacks what the tasks that it runs with, such as {has!r}, have")
            if trees:
                stacked[first] = jax.tree.map(lambda *x: _stack(x, axis), *trees)
        return stacked

    def unstack(self, stacked: ByTask, axis: int = 0) -> dict[str, Any]:
        """{name: tree} of {first: leaves [task, ...]}; of several tasks, what lies on devices comes to the host."""
        found = {}
        for first, names in self.groups.items():
            if first in stacked:
                tree = jax.tree.map(_at_hand, stacked[first]) if len(names) > 1 else stacked[first]
                found |= {n: jax.tree.map(lambda x, i=i: _index(x, i, axis), tree) for i, n in enumerate(names)}
        return found

    def view(self, stacked: ByTask, own: ByTask | None = None) -> "View":
        """{name: tree} that is sliced where it is read; `own` entries go before."""
        return View(self, stacked, own or {})

    # --- variables: {"params", "state"}: {"shared", "tasks"} ----------------------------------------------------------
    def stack_variables(self, variables: Any, axis: int = 0) -> Any:
        """The variables with their tasks' branches stacked."""
        return {kind: {**tree, "tasks": self.stack(tree["tasks"], axis)} for kind, tree in variables.items()}

    def unstack_variables(self, variables: Any, axis: int = 0) -> Any:
        """The variables with a branch per task."""
        return {kind: {**tree, "tasks": self.unstack(tree["tasks"], axis)} for kind, tree in variables.items()}

    def view_variables(self, variables: Any) -> Any:
        """The variables as models read them."""
        return {kind: {**tree, "tasks": self.view(tree["tasks"])} for kind, tree in variables.items()}

    # --- {path: leaf} ----------------------------------------------------------------------------------------------
    def unstack_paths(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """{path: leaf} with a path per task of what lies stacked."""
        found = {}
        for path, x in leaves.items():
            head, _, rest = path.partition("/")
            if head != "tasks":
                found[path] = x
                continue
            first, _, rest = rest.partition("/")
            found |= {f"tasks/{n}/{rest}": _index(x, i, 0) for i, n in enumerate(self.groups[first])}
        return found

    # --- axes of tasks -----------------------------------------------------------------------------------------------
    def part(self, values: Shaped[Array, "task ..."], first: str) -> Shaped[Array, "group ..."]:
        """A group's part of [K, ...]."""
        at = self.positions[first]
        if len(at) == len(self.tasks):
            return values
        if at[-1] - at[0] == len(at) - 1:
            return values[int(at[0]) : int(at[-1]) + 1]
        return values[at]

    def join(self, by_group: Mapping[str, Any]) -> Any:
        """Leaves [K, ...] of {first: tree of leaves [group, ...]}."""
        trees = [by_group[first] for first in self.groups]
        if len(trees) == 1:
            return trees[0]
        order = np.argsort(np.concatenate(list(self.positions.values())))
        whole = jax.tree.map(lambda *x: jnp.concatenate(x), *trees)
        return whole if (order == np.arange(len(order))).all() else jax.tree.map(lambda x: x[order], whole)

    def each(self, function: Callable, *given: Mapping[str, Any] | None) -> dict[str, Any]:
        """{first: function(task, *a task's entry of each of `given`), for a group at once}.

        Args:
          function: of a task, and trees; what `given` lacks of it is None.
          given: {first: tree of leaves [group, ...]}, or None.
        """

        def of_group(first: str) -> Any:
            tasks = self.group_tasks(first)

            def one(scaler: Any, *own: Any) -> Any:
                return function(_with_scaler(tasks[0], scaler), *own)

            own = [None if x is None else x.get(first) for x in given]
            return jax.vmap(one, axis_size=len(tasks))(_scalers(tasks), *own)

        return {first: of_group(first) for first in self.groups}

    def copies(self, first: str, tree: Any) -> Any:
        """A tree once for each task of a group."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.size(first), *x.shape)), tree)

    def group_tasks(self, first: str) -> list[Task]:
        """The tasks of a group."""
        return [self.tasks[i] for i in self.positions[first]]

    # --- batches ---------------------------------------------------------------------------------------------------
    def stack_batch(self, batch: Batch, axis: int = 0) -> Batch:
        """A batch whose tasks have entries [..., task, rows, ...] by group; inputs in common stay as they are."""
        inputs = batch.inputs
        return Batch(
            PerTask(self.stack(inputs, axis)) if isinstance(inputs, PerTask) else inputs,
            self.stack(batch.targets, axis),
            self.stack(batch.masks, axis),
            self.stack(batch.weights, axis) if batch.weights else None,
        )

    def view_batch(self, batch: Batch) -> Batch:
        """A stacked batch as models read it, an entry per task."""
        return batch._replace(
            targets=self.view(batch.targets),
            masks=self.view(batch.masks),
            weights=self.view(batch.weights) if batch.weights else None,
        )


def task_losses(layout: Layout, outputs: ByTask, batch: Batch) -> tuple[Float[Array, " task"], Float[Array, " task"]]:
    """`tasks.task_losses` of stacked outputs: ([K] sums over this device's labels, [K] counts of the global batch)."""
    pairs = layout.each(loss_sum, outputs, batch.targets, batch.masks, batch.weights)
    sums, counts = layout.join(pairs)
    return sums, global_sum(counts)


def alone(tasks: Sequence[Task]) -> Layout:
    """The layout of tasks that each lie by themselves."""
    return Layout(tuple(tasks), {t.name: (t.name,) for t in tasks})


@jax.tree_util.register_pytree_with_keys_class
class View(Mapping):
    """What lies stacked, read by task: {name: tree}, a slice where it is read."""

    def __init__(self, layout: Layout, stacked: ByTask, own: ByTask):
        self.layout, self.stacked, self.own, self.read = layout, stacked, own, {}

    def __getitem__(self, name: str) -> Any:
        if name in self.own:
            return self.own[name]
        if name not in self.read:
            first, index = self.layout.group_of[name]
            self.read[name] = jax.tree.map(lambda x: _index(x, index, 0), self.stacked[first])
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        return (n for n in self.layout.names if n in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self.own or (name in self.layout.group_of and self.layout.group_of[name][0] in self.stacked)

    def tree_flatten_with_keys(self):
        names = tuple(sorted(self))
        return [(jax.tree_util.DictKey(n), self[n]) for n in names], names

    @classmethod
    def tree_unflatten(cls, names, children):
        return dict(zip(names, children, strict=True))


class Standing(tuple):
    """(name,): the tasks that a pass is about, where one trace stands for each task of a group.

    Attributes:
      place: of the task among all, traced.
    """

    place: Any

    @classmethod
    def of(cls, layout: Layout, first: str, index: Any) -> "Standing":
        """The task of this index of the group of `first`."""
        found = cls((first,))
        found.place = jnp.asarray(layout.positions[first])[index]
        return found


def over_tasks(by_task: ByTask, names: Sequence[str], function: Callable) -> Any:
    """`function` of each task's tree, stacked in the order of `names`, all tasks; once for those that lie stacked."""
    if isinstance(by_task, View) and not by_task.own and by_task.stacked.keys() == by_task.layout.groups.keys():
        return by_task.layout.join({first: jax.vmap(function)(x) for first, x in by_task.stacked.items()})
    return jax.tree.map(lambda *x: jnp.stack(x), *(function(by_task[n]) for n in names))


def _stack(arrays: Sequence[Any], axis: int) -> Any:
    on_host = all(isinstance(x, np.ndarray | np.generic) for x in arrays)
    if not on_host and len(arrays) == 1:
        return jnp.expand_dims(arrays[0], axis)
    return (np if on_host else jnp).stack(arrays, axis)


def _at_hand(x: Any) -> Any:
    # Each slice of an array on a device would be a program of its own.
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)


def _index(x: Any, index: int, axis: int) -> Any:
    if isinstance(x, np.ndarray):
        return np.asarray(x[(slice(None),) * axis + (index,)])
    if x.shape[axis] == 1:
        return x.reshape(x.shape[:axis] + x.shape[axis + 1 :])
    return jax.lax.index_in_dim(x, index, axis, keepdims=False)


def _scalers(tasks: Sequence[Task]) -> Any:
    """([task, entries] means, the same of deviations) where tasks differ in them, else None."""
    if len(tasks) == 1 or tasks[0].scaler is None or all(t.scaler == tasks[0].scaler for t in tasks):
        return None
    return tuple(np.asarray([getattr(t.scaler, k) for t in tasks], np.float64) for k in ("mean", "std"))


def _with_scaler(task: Task, scaler: Any) -> Task:
    if scaler is None:
        return task
    mean, std = (tuple(x[i] for i in range(len(x))) for x in scaler)
    return dataclasses.replace(task, scaler=Scaler(mean, std))

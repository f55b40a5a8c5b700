"""A walk that runs a network with its variables (`places`)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.keys import TaskKey, named_keys, task_key
from mtl_jax.model import Train, merge
from mtl_jax.sharing.encoder_copies import Layers, apply_columns, one_by_one
from mtl_jax.sharing.places import Place, Rows, get, per_task, put, read_by
from mtl_jax.stacking import Layout, Standing, View

FEW = 4  # tasks whose own networks are quicker beside each other, on a CPU, than as one with an axis of tasks


class Running(Place):
    """Runs with the variables that lie at their places.

    Args:
      variables: as `MultiTaskModel` takes them.
      train, key: of the pass.
      wanted: the tasks that it is about; None for all.
      names, batch, task: see `Place`.

    Attributes:
      losses, metrics: what the walk reports of what all tasks have in common, by name.
    """

    def __init__(
        self, variables: Any, train: Train, key: Any, names: Sequence[str] = (), batch: Batch | None = None,
        wanted: Sequence[str] | None = None, task: str | None = None, place: Any = None,
    ):  # fmt: skip
        super().__init__(names, names if wanted is None else wanted, task, batch)
        self.variables, self.train, self.key = variables, train, key
        self.place = wanted.place if isinstance(wanted, Standing) else place
        own = variables["params"]["tasks"]
        self.layout = own.layout if isinstance(own, View) and wanted is None and task is None else None
        self.changed: dict[str, Any] = {}
        self.stood: dict[str, Any] = {}  # what changed of groups of tasks
        self.losses, self.metrics = {}, {}

    def __call__(self, layers: Layers, path: str, x: Any) -> Any:
        return self.run(layers, self._params(path), path, x)

    def run(self, layers: Layers, weights: Any, path: str, x: Any) -> Any:
        """Layers with weights made elsewhere; their state lies at `path`."""
        x, new = base.apply_layers(
            layers, weights, self._state(path), x, train=self.train, key=self.key, prefix=self.path(path)
        )
        return self._noted(path, new, x)

    def leaf(self, path: str, make: Callable | None = None) -> Any:
        """The parameters at a path."""
        del make
        return self._params(path)

    def kept(self, path: str, first: Any) -> Any:
        """The state at a path."""
        del first
        return self._state(path)

    def keep(self, path: str, value: Any) -> None:
        """Sets the state at a path."""
        put(self.changed, self.state_path(path), value)

    def on(self, path: str) -> bool:
        """Whether what lies at `path` runs as in training (see `MultiTaskModel`)."""
        return bool(self.train(self.path(path)) if callable(self.train) else self.train)

    def columns(self, layers: Layers, path: str, names: Sequence[str], x: Any, stacked: bool = False) -> Any:
        """A copy of the layers per name, [column, B, ...], on one `x` or (`stacked`) on each its own."""
        x, new = apply_columns(
            layers, self._params(path), self._state(path), x, train=self.train, key=self.key, prefix=self.path(path),
            names=names, stacked=stacked,
        )  # fmt: skip
        return self._noted(path, new, x)

    def columns_of_each(self, layers: Layers, path: str, names: Sequence[str], x: Any) -> Any:
        """`columns` for every task, [task, column, B, ...], on one `x` or on each task's of `Rows`."""
        keys = None if self.key is None else named_keys(self.key, self.names)

        def one(params: Any, state: Any, own: Any, x: Any) -> tuple:
            own = self.key._replace(key=own) if isinstance(self.key, TaskKey) else own
            return apply_columns(layers, params, state, x, train=self.train, key=own, prefix=path, names=names)

        axes = (0, 0, None if keys is None else 0, 0 if isinstance(x, Rows) else None)
        read = x.tree if isinstance(x, Rows) else x
        x, new = jax.vmap(one, axes)(self._params(path), self._state(path), keys, read)
        return self._noted(path, new, x)

    def of(self, name: str) -> "Running":
        """The pass of one task, which notes its changes here."""
        if self.task is not None:
            return self
        place = self.names.index(name) if self.place is None else self.place
        at = Running(
            self.variables, self.train, None if self.key is None else task_key(self.key, name), self.names, self.batch,
            (name,), name, place,
        )  # fmt: skip
        at.changed, at.losses, at.metrics = self.changed, self.losses, self.metrics
        return at

    def each(self, function: Callable, *values: Any, few: int | None = None) -> Any:
        """`PerTask` of ``function(at, *values)``, `at` being one task's pass; alike tasks that lie stacked at once.

        Args:
          function: where it returns a tuple, a tuple of `PerTask` is returned.
          few: groups of at most so many tasks run beside each other; None for `FEW`.
          values: `PerTask`, of which a task reads its own; `Rows`, likewise; or the same for all.
        """
        few = FEW if few is None else few
        layout = self.layout
        if layout is None or max(map(layout.size, layout.groups)) <= few:
            found = {}
            for name in self.wanted:
                at = self.of(name)
                found[name] = function(at, *(read_by(v, name, at.place) for v in values))
            return per_task(found)
        found = {first: self._group(layout, first, function, values) for first in layout.groups}
        return per_task(found, lambda x: PerTask(layout.view(x)))

    def _group(self, layout: Layout, first: str, function: Callable, values: Sequence[Any]) -> Any:
        names, parts = layout.groups[first], [_part(layout, v, first) for v in values]
        common = {i: x for i, (x, lies) in enumerate(parts) if not lies}
        own = {i: x for i, (x, lies) in enumerate(parts) if lies}

        def one(index: Any, weights: Any, state: Any, own: dict[int, Any]) -> tuple:
            read = common | own
            mine = {"params": weights, "state": state}
            variables = {
                kind: {"shared": tree["shared"], "tasks": {first: mine[kind]}} for kind, tree in self.variables.items()
            }
            key = None if self.key is None else task_key(TaskKey(self.key, names, index), first)
            at = Running(variables, self.train, key, self.names, self.batch, (first,), first)
            x = function(at, *(read[i] for i in range(len(values))))
            return x, at.changed.get("tasks", {}).get(first, {})

        weights, state = (self.variables[k]["tasks"].stacked.get(first, {}) for k in ("params", "state"))
        x, new = jax.vmap(one, axis_size=len(names))(np.arange(len(names)), weights, state, own)
        if new:
            self.stood[first] = merge(self.stood.get(first, {}), new)
        return x

    def rows(self, of_each: PerTask) -> Any:
        """[task, ...] of what each task has; of all tasks."""
        if self.layout is not None:
            return self.layout.join(self.layout.stack(of_each))
        return jax.tree.map(lambda *x: jnp.stack(x), *(of_each[n] for n in self.names))

    def apart(self, tree: Any) -> PerTask:
        """What each wanted task has of [task, ...]."""
        if self.layout is not None:
            return PerTask(self.layout.view({f: _part(self.layout, Rows(tree), f)[0] for f in self.layout.groups}))
        if self.task is not None:
            return PerTask({self.task: read_by(Rows(tree), self.task, self.place)})
        found = one_by_one(tree, self.names)
        return PerTask({n: found[n] for n in self.wanted})

    def new_state(self) -> dict[str, Any]:
        """The state that changed."""
        if self.layout is None or not self.stood:
            return self.changed
        return {**self.changed, "tasks": self.layout.view(self.stood, self.changed.get("tasks", {}))}

    def _params(self, path: str) -> Any:
        return get(self.variables["params"], self.path(path))

    def _state(self, path: str) -> Any:
        return get(self.variables["state"], self.state_path(path))

    def _noted(self, path: str, new: dict, x: Any) -> Any:
        put(self.changed, self.state_path(path), new)
        return x


def _part(layout: Layout, value: Any, first: str) -> tuple[Any, bool]:
    """(what a group reads of a value of `each`, whether it lies [task, ...])."""
    if isinstance(value, PerTask):
        lying = value.values_by_task
        if isinstance(lying, View) and lying.layout is layout and not lying.own:
            return lying.stacked[first], True
        return jax.tree.map(lambda *x: jnp.stack(x), *(value[n] for n in layout.groups[first])), True
    if isinstance(value, Rows):
        return jax.tree.map(lambda x: layout.part(x, first), value.tree), True
    return value, False

"""Modules and leaves at places of the tree of variables, so that one walk through a network both starts and runs it.

A walk is a function of `at`: ``x = at(layers, path, x)`` runs modules with what lies under `path`, ``shared/heads`` or,
in the pass of one task, ``own/head`` for ``tasks/<t>/head``; ``at.leaf(path, make)`` is a parameter. `Starting` draws
what is there, `Running` uses it. ``at.each(function, *values)`` runs what is said for one task for every task: alike
tasks that lie stacked at once, by `vmap` over their leaves.

Statistics lie with the parameters, but for those of shared modules in a task's pass, which are the task's:
``state/tasks/<t>/shared/...``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import OF_EACH, TaskKey, named_key, named_keys, task_key
from mtl_jax.model import Train, merge
from mtl_jax.sharing.encoder_copies import Layers, apply_columns, init_columns, one_by_one
from mtl_jax.stacking import Layout, Standing, View


class Rows(NamedTuple):
    """What lies [task, ...] in the order of all tasks."""

    tree: Any


class Place:
    """Where a walk is: in what all tasks have in common, or in the pass of one task.

    Attributes:
      names: of all tasks.
      wanted: those that the walk is about.
      task: whose pass it is; None in what they have in common.
      batch: whose inputs are read.
    """

    def __init__(self, names: Sequence[str], wanted: Sequence[str], task: str | None, batch: Batch | None):
        self.names, self.wanted, self.task, self.batch = tuple(names), tuple(wanted), task, batch

    def path(self, path: str) -> str:
        """A path from the root."""
        return f"tasks/{self.task}{path.removeprefix('own')}" if path == "own" or path.startswith("own/") else path

    def state_path(self, path: str) -> str:
        """Where the state of what lies at `path` is."""
        path = self.path(path)
        return f"tasks/{self.task}/{path}" if self.task is not None and path.startswith("shared/") else path


class Starting(Place):
    """Draws what is met for the first time; a module's draws depend on its path alone. What it gives back is zeros.

    Args:
      key: of all draws.
      layout: how the tasks lie in `variables`, what was made so far; None for an entry per task.
      sharing: named in errors.
      names, batch, task: see `Place`.
    """

    def __init__(
        self, key: Key[Array, ""] | TaskKey, names: Sequence[str], batch: Batch, sharing: str,
        layout: Layout | None = None, task: str | None = None,
    ):  # fmt: skip
        super().__init__(names, names if task is None else (task,), task, batch)
        self.key, self.layout, self.sharing = key, layout, sharing
        self.losses, self.metrics = {}, {}
        self.variables: dict[str, Any] = {k: {"shared": {}, "tasks": {}} for k in ("params", "state")}
        self.made_by: str | None = None  # the task for whose inputs `shared` was made

    def __call__(self, layers: Layers, path: str, x: Any) -> Any:
        params, state, x = base.init_layers(layers, self.key, x, self.path(path))
        return self._made(path, params, state, x)

    def run(self, layers: Layers, weights: Any, path: str, x: Any) -> Any:
        """Layers with weights made elsewhere; their state lies at `path`."""
        _, state, x = base.init_layers(layers, self.key, x, self.path(path))
        return self._made(path, {}, state, x)

    def drawn(self, layers: Layers, path: str, x: Any) -> dict[str, Any]:
        """The weights that layers would have at `path`."""
        return base.init_layers(layers, self.key, x, self.path(path))[0]

    def leaf(self, path: str, make: Callable) -> Any:
        """The parameters at a path: ``make(key)``, where they are met for the first time."""
        made = get(self.variables["params"], self.path(path))
        if not isinstance(made, dict) or made:
            return made
        found = make(named_key(self.key, self.path(path)))
        put(self.variables["params"], self.path(path), found)
        return found

    def leaves(self, path: str, of: Sequence[str], make: Callable) -> Any:
        """The parameters [name, ...] at a path: ``make(key)`` for each name of `of`."""
        found = jax.vmap(make)(named_keys(self.key, [f"{self.path(path)}/{n}" for n in of]))
        put(self.variables["params"], self.path(path), found)
        return found

    def kept(self, path: str, first: Any) -> Any:
        """The state at a path, which starts as `first`."""
        put(self.variables["state"], self.state_path(path), first)
        return first

    def keep(self, path: str, value: Any) -> None:
        """Sets the state at a path, when it runs."""

    def columns(self, layers: Layers, path: str, names: Sequence[str], x: Any, stacked: bool = False) -> Any:
        """A copy of the layers per name, [column, B, ...], on one `x` or (`stacked`) on each its own."""
        x = jax.tree.map(lambda leaf: leaf[0], x) if stacked else x
        return self._made(path, *init_columns(layers, self.key, x, self.path(path), names))

    def columns_of_each(self, layers: Layers, path: str, names: Sequence[str], x: Any) -> Any:
        """`columns` for every task, [task, column, B, ...], on one `x` or on each task's of `Rows`."""
        x = jax.tree.map(lambda leaf: leaf[0], x.tree) if isinstance(x, Rows) else x
        root = self.key.key if isinstance(self.key, TaskKey) else self.key

        def one(index: Any) -> tuple:
            return init_columns(layers, TaskKey(root, self.names, index), x, f"{path}/{OF_EACH}", names)

        return self._made(path, *jax.vmap(one)(np.arange(len(self.names))))

    def each(self, function: Callable, *values: Any) -> Any:
        """`PerTask` of ``function(at, *values)``: a value is `PerTask`, `Rows` or the same for all; see `Running`."""
        if self.task is not None:
            return _by_name({self.task: function(self, *(_of(v, self.task, 0) for v in values))})
        groups = {n: (n,) for n in self.names} if self.layout is None else self.layout.groups
        found = {}
        for first, names in groups.items():

            def one(index: Any, before: Any, first: str = first, names: tuple = names) -> tuple:
                key = self.key if self.layout is None else TaskKey(self.key, names, index)
                at = Starting(key, self.names, self.batch, self.sharing, task=first)
                at.variables["params"]["tasks"][first] = before
                x = function(at, *(_of(v, first, 0) for v in values))
                made = at.variables
                own = {k: made[k]["tasks"].get(first, {}) for k in made}
                return own, made["params"]["shared"], jax.tree.map(lambda y: jnp.zeros(jnp.shape(y), y.dtype), x)

            before = self.variables["params"]["tasks"].get(first, {})
            if self.layout is None:
                own, shared, x = one(0, before)
            else:
                own, shared, x = jax.vmap(one, out_axes=(0, None, None))(np.arange(len(names)), before)
            for kind, tree in own.items():
                put(self.variables[kind], f"tasks/{first}", tree)
            self._share(shared, first)
            found |= dict.fromkeys(names, x)
        return _by_name(found)

    def rows(self, of_each: PerTask) -> Any:
        """[task, ...] of what each task has."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(self.names), *x.shape)), of_each[self.names[0]])

    def apart(self, tree: Any) -> PerTask:
        """What each task has of [task, ...]."""
        return PerTask(dict.fromkeys(self.wanted, jax.tree.map(lambda x: x[0], tree)))

    def on(self, path: str) -> bool:
        """Whether what lies at `path` runs as in training."""
        del path
        return False

    def _share(self, shared: dict[str, Any], task: str) -> None:
        """Notes what a task's pass made of what is shared: the same for all."""
        if not shared:
            return
        before = self.variables["params"]["shared"]
        if self.made_by is not None:
            check_same_shapes({self.made_by: {"shared": before}, task: {"shared": shared}}, self.sharing)
        self.made_by = self.made_by or task
        self.variables["params"]["shared"] = merge(before, shared)

    def _made(self, path: str, params: dict, state: dict, x: Any) -> Any:
        put(self.variables["params"], self.path(path), params)
        put(self.variables["state"], self.state_path(path), state)
        return x


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

    def leaf(self, path: str, make: Callable) -> Any:
        """The parameters at a path."""
        del make
        return self._params(path)

    def leaves(self, path: str, of: Sequence[str], make: Callable) -> Any:
        """The parameters [name, ...] at a path."""
        del of, make
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

    def each(self, function: Callable, *values: Any) -> Any:
        """`PerTask` of ``function(at, *values)``, `at` being one task's pass; alike tasks that lie stacked at once.

        Args:
          function: where it returns a tuple, a tuple of `PerTask` is returned.
          values: `PerTask`, of which a task reads its own; `Rows`, likewise; or the same for all.
        """
        if self.layout is None:
            found = {}
            for name in self.wanted:
                at = self.of(name)
                found[name] = function(at, *(_of(v, name, at.place) for v in values))
            return _by_name(found)
        found = {first: self._group(first, function, values) for first in self.layout.groups}
        return _apart(found, lambda x: PerTask(self.layout.view(x)))

    def _group(self, first: str, function: Callable, values: Sequence[Any]) -> Any:
        names, parts = self.layout.groups[first], [_part(self.layout, v, first) for v in values]
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
            return PerTask({self.task: _of(Rows(tree), self.task, self.place)})
        found = one_by_one(tree, self.names)
        return PerTask({n: found[n] for n in self.wanted})

    def new_state(self) -> dict[str, Any]:
        """The state that changed."""
        if not self.stood:
            return self.changed
        return {**self.changed, "tasks": self.layout.view(self.stood, self.changed.get("tasks", {}))}

    def _params(self, path: str) -> Any:
        return get(self.variables["params"], self.path(path))

    def _state(self, path: str) -> Any:
        return get(self.variables["state"], self.state_path(path))

    def _noted(self, path: str, new: dict, x: Any) -> Any:
        put(self.changed, self.state_path(path), new)
        return x


def _of(value: Any, name: str, place: Any) -> Any:
    """What a task reads of a value of `each`."""
    if isinstance(value, PerTask):
        return value[name]
    return jax.tree.map(lambda x: x[place], value.tree) if isinstance(value, Rows) else value


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


def _by_name(found: dict[str, Any]) -> Any:
    return _apart(found, PerTask)


def _apart(found: dict[str, Any], made: Callable) -> Any:
    """`made` of {name: value}, or a tuple of them where the values are tuples."""
    several = [len(x) for x in found.values() if type(x) is tuple]
    return tuple(made({n: x[i] for n, x in found.items()}) for i in range(several[0])) if several else made(found)


def check_same_shapes(shared: dict[str, Any], sharing: str) -> None:
    """An error if {task: leaves in common, as this task's inputs need them} differ in a shape."""
    (first, leaves), *others = shared.items()
    expected = {p: x.shape for p, x in partition.flatten(leaves).items()}
    for task, leaves in others:
        for path, x in partition.flatten(leaves).items():
            if x.shape != expected.get(path, x.shape):
                raise ValueError(
                    f"{sharing}: {path} would be {expected[path]} for the inputs of task {first!r} and {x.shape} for "
                    f"those of {task!r}; give tasks inputs of one shape, or use sharing 'independent'"
                )


def get(tree: Any, path: str) -> Any:
    """The branch of a nested dict at `path`; {} where there is none."""
    for part in path.split("/"):
        tree = tree.get(part, {})
    return tree


def put(tree: dict, path: str, new: Any) -> None:
    """Adds what is `new`, a leaf or entries, if any, at `path`."""
    if isinstance(new, dict) and not new:
        return
    *above, last = path.split("/")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = merge(tree.get(last, {}), new)


def split_stages(encoder: Encoder, shared_stages: int | None, sharing: str) -> tuple[Layers, Layers]:
    """(layers in common, layers that each task has a copy of); the pool goes with the last stage.

    Raises:
      ValueError: if `shared_stages` (None: all) does not lie between 1 and the number of stages.
    """
    count = len(encoder.stages)
    shared_stages = count if shared_stages is None else shared_stages
    if not 1 <= shared_stages <= count:
        raise ValueError(f"{sharing}: shared_stages={shared_stages} must lie in 1..{count}, the encoder's stages")
    own = base.layers(encoder, shared_stages) if shared_stages < count else []
    return base.layers(encoder, 0, shared_stages), own

"""A walk that starts a network: it draws what it meets (`places`)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.keys import OF_EACH, TaskKey, named_key
from mtl_jax.model import merge
from mtl_jax.sharing.encoder_copies import Layers, init_columns
from mtl_jax.sharing.places import Place, Rows, get, per_task, put, read_by
from mtl_jax.stacking import Layout


class Starting(Place):
    """Draws what is met for the first time; a module's draws depend on its path alone. What it gives back is zeros.

    Args:
      key: of all draws.
      layout: how the tasks lie in `variables`, what was made so far; None for an entry per task.
      sharing: named in errors.
      names, batch, task: see `Place`.
    """

    batch: Batch

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

    def leaf(self, path: str, make: Callable | None = None) -> Any:
        """The parameters at a path: ``make(key)``, where they are met for the first time."""
        made = get(self.variables["params"], self.path(path))
        if not isinstance(made, dict) or made:
            return made
        assert make is not None  # whoever meets it first says how it is made
        found = make(named_key(self.key, self.path(path)))
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

    def each(self, function: Callable, *values: Any, few: int | None = None) -> Any:
        """`PerTask` of ``function(at, *values)``: a value is `PerTask`, `Rows` or the same for all; see `Running`."""
        del few
        if self.task is not None:
            return per_task({self.task: function(self, *(read_by(v, self.task, 0) for v in values))})
        groups = {n: (n,) for n in self.names} if self.layout is None else self.layout.groups
        found = {}
        for first, names in groups.items():

            def one(index: Any, before: Any, first: str = first, names: tuple = names) -> tuple:
                key = self.key
                if self.layout is not None:
                    assert not isinstance(key, TaskKey)  # a layout goes with the key of the whole model
                    key = TaskKey(key, names, index)
                at = Starting(key, self.names, self.batch, self.sharing, task=first)
                at.variables["params"]["tasks"][first] = before
                x = function(at, *(read_by(v, first, 0) for v in values))
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
        return per_task(found)

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

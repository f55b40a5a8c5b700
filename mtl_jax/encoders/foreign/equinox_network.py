"""An Equinox module as a network: its floating arrays are parameters, other arrays and `eqx.nn.State` are state."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from mtl_jax import partition
from mtl_jax.encoders.foreign.classes import own_classes
from mtl_jax.encoders.foreign.leaves import is_weight, leaf_at, nested, strong
from mtl_jax.encoders.foreign.signatures import called_by, flag_values, parameters, read_call

AXIS = "batch"  # the name of the axis of examples, which eqx.nn.BatchNorm(..., axis_name="batch") reads


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or the shape of one."""
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


@dataclasses.dataclass(frozen=True, eq=False)
class EquinoxNetwork:
    """A constructor, or what an instance held when it was given.

    Attributes:
      construct: (key=key) -> a module, or (a module, its `eqx.nn.State`); None for an instance.
      per_example: whether it takes one example, and so is mapped over the batch.
      classes, static: of one's own, and all of an instance that is no array, for the run's identity.
      weights: {path: array} of an instance, that it starts with.
    """

    construct: Callable | None
    per_example: bool
    classes: tuple[type, ...] = ()
    static: Any = None
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)
    _given: tuple = dataclasses.field(default=(), repr=False)

    @property
    def name(self) -> str:
        """In messages."""
        if self.construct is None:
            return f"Equinox module {type(self.static).__name__}"
        return f"Equinox constructor {called_by(self.construct)}"

    @functools.cached_property
    def skeleton(self) -> tuple[Any, Any]:
        """(module, its `eqx.nn.State` or None) with shapes in place of arrays."""
        construct = self.construct
        if construct is None:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if eqx.is_array(x) else x, self._given)
        return eqx.filter_eval_shape(lambda key: made_by(construct, key, self.name), jax.random.key(0))

    @functools.cached_property
    def places(self) -> list[tuple[str, tuple[str, ...]] | None]:
        """(collection, path) of each leaf of the skeleton; None for what is no array."""
        module, state = self.skeleton
        found: list = [
            ("params" if is_weight(leaf) else "buffers", tuple(path.split("/"))) if is_array(leaf) else None
            for path, leaf in named(module)
        ]
        return found + [("equinox_state", (str(i),)) if is_array(leaf) else None
                        for i, leaf in enumerate(jax.tree.leaves(state))]  # fmt: skip

    def start(self, key: Any, x: Any) -> tuple[dict, dict]:
        """(params, {collection: state}): drawn by the constructor, or the instance's own."""
        del x
        made = self._given if self.construct is None else made_by(self.construct, key, self.name)
        return self._kept(jax.tree.leaves(made), ("params", "buffers", "equinox_state"))

    def _kept(self, leaves: list, collections: tuple[str, ...]) -> tuple[dict, dict]:
        found: dict[str, list] = {"params": []}
        for place, leaf in zip(self.places, leaves, strict=True):
            if place is not None and place[0] in collections:
                found.setdefault(place[0], []).append((place[1], strong(leaf)))
        variables = {k: nested(held, self.name) for k, held in found.items()}
        return variables.pop("params"), variables

    def run(self, params: dict, state: dict, x: Any, *, train: bool, key: Any) -> tuple[Any, dict]:
        """(features, {collection: new state})."""
        variables = {"params": params, **state}
        leaves, structure = jax.tree.flatten(self.skeleton)
        filled = [
            leaf if place is None else leaf_at(variables[place[0]], place[1])
            for place, leaf in zip(self.places, leaves, strict=True)
        ]
        module, held = jax.tree.unflatten(structure, filled)
        module = eqx.nn.inference_mode(module, value=not train)
        call = type(module).__call__
        flags = flag_values(
            read_call(call, self.name, first=3 if held is not None else 2, also=("key", "state")), train
        )
        takes_key = "key" in parameters(call)

        def one(x: Any, key: Any) -> tuple[Any, Any]:
            more = {"key": key} if takes_key else {}
            return (module(x, **more, **flags), None) if held is None else module(x, held, **more, **flags)

        if self.per_example:
            rows = len(jax.tree.leaves(x)[0])
            keys = jax.random.split(key, rows) if takes_key and key is not None else None
            axes = (0, None if keys is None else 0)
            y, after = jax.vmap(one, axes, (0, None), axis_name=AXIS)(x, keys)
        else:
            y, after = one(x, key)
        new = {} if held is None else {"equinox_state": {
            str(i): strong(v) for i, v in enumerate(jax.tree.leaves(after)) if eqx.is_array(v)}}  # fmt: skip
        return y, {**{k: v for k, v in state.items() if k not in new}, **new} if train else {}


def named(tree: Any) -> list[tuple[str, Any]]:
    """(path, leaf) of every leaf."""
    return [(partition.path_name(k), leaf) for k, leaf in jax.tree.leaves_with_path(tree)]


def made_by(construct: Callable, key: Any, name: str) -> tuple[Any, Any]:
    """(module, its state or None) that a constructor makes, or an error."""
    return as_pair(construct(key=key), f"{name}, called with key, made")


def as_pair(given: Any, what: str) -> tuple[Any, Any]:
    """(module, its state or None) of a module, or of a module and its state."""
    module, state = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(module, eqx.Module) or not (state is None or isinstance(state, eqx.nn.State)):
        raise ValueError(f"from_module: {what} a {type(given).__name__}, no eqx.Module, nor (eqx.Module, eqx.nn.State)")
    keeps = [x for x in jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, eqx.nn.StateIndex))
             if isinstance(x, eqx.nn.StateIndex)]  # fmt: skip
    if keeps and state is None:
        raise ValueError(
            f"from_module: {type(module).__name__} keeps state, such as batch statistics; give what "
            "eqx.nn.make_with_state makes: lambda key: eqx.nn.make_with_state(Net)(key)"
        )
    return module, state


def instance_network(given: Any, per_example: bool) -> EquinoxNetwork:
    """A network of a module, or (module, state), that starts with the arrays that it holds."""
    module, state = as_pair(given, "it is")
    name = f"Equinox module {type(module).__name__}"
    read_call(type(module).__call__, name, first=3 if state is not None else 2, also=("key", "state"))
    held = {path: leaf for path, leaf in named((module, state)) if eqx.is_array(leaf)}
    static = eqx.partition(module, eqx.is_array)[1]
    return EquinoxNetwork(None, per_example, own_classes(module), static, held, (module, state))


def constructor_network(construct: Callable, per_example: bool) -> EquinoxNetwork:
    """A network of a constructor that takes `key`."""
    return EquinoxNetwork(construct, per_example)

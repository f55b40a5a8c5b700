"""A Flax NNX module as a network: its graph apart from what it holds, which lies in the framework's variables.

`nnx.Param` and its kin are parameters, `nnx.BatchStat` is state, and so is the rest (under ``nnx_state``). Streams of
random numbers are no state: at every call they start anew from the key of the step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_jax.encoders.foreign.classes import own_classes
from mtl_jax.encoders.foreign.leaves import is_weight, leaf_at, nested, strong
from mtl_jax.encoders.foreign.signatures import called_by, flag_values, read_call
from mtl_jax.keys import named_key


class Place(NamedTuple):
    """One variable of a module: where it lies there, its path here, and the collection that it is in.

    `variable` is the NNX variable with the shape of its value; the collection "rng" is not kept.
    """

    at: tuple
    path: tuple[str, ...]
    collection: str
    variable: Any


class Graph(NamedTuple):
    """What a module is without its arrays."""

    definition: Any
    places: tuple[Place, ...]


def taken_apart(module: nnx.Module) -> tuple[Graph, list[Any]]:
    """(its graph, the value of each place)."""
    definition, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    places, values = [], []
    for at, variable in zip(flat.paths, flat.leaves, strict=True):
        value = variable.get_value()
        if isinstance(variable, nnx.RngState):
            collection = "rng"
        elif isinstance(variable, nnx.Param) and is_weight(value):
            collection = "params"
        else:
            collection = "batch_stats" if isinstance(variable, nnx.BatchStat) else "nnx_state"
        places.append(Place(at, tuple(map(str, at)), collection, variable))
        values.append(value)
    return Graph(definition, tuple(places)), values


@dataclasses.dataclass(frozen=True, eq=False)
class NnxNetwork:
    """A constructor, or what an instance held when it was given.

    Attributes:
      construct: (rngs=nnx.Rngs) -> module; None for an instance.
      classes, outline: of one's own, and the plain attributes of an instance, for the run's identity.
      weights: {path: value} of an instance, that it starts with.
    """

    construct: Callable | None
    classes: tuple[type, ...] = ()
    outline: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)
    _graph: tuple[Graph, ...] = dataclasses.field(default=(), repr=False)

    @property
    def name(self) -> str:
        """In messages."""
        if self.construct is None:
            return f"NNX module {self.outline['module'].__name__}"
        return f"NNX constructor {called_by(self.construct)}"

    @functools.cached_property
    def graph(self) -> Graph:
        """Without arrays."""
        construct = self.construct
        if construct is None:
            return self._graph[0]
        # Traced for its shapes; what a module keeps besides arrays is the same whatever the key.
        return taken_apart(nnx.eval_shape(lambda: check_module(construct(rngs=nnx.Rngs(0)), self.name)))[0]

    def start(self, key: Any, x: Any) -> tuple[dict, dict]:
        """(params, {collection: state}): drawn by the constructor, or the instance's own."""
        del x
        if self.construct is None:
            values = [self.weights.get("/".join(p.path)) for p in self.graph.places]
        else:
            _, values = taken_apart(check_module(self.construct(rngs=nnx.Rngs(key)), self.name))
        kept: dict[str, list] = {"params": []}
        for place, value in zip(self.graph.places, values, strict=True):
            if place.collection != "rng":
                kept.setdefault(place.collection, []).append((place.path, strong(value)))
        variables = {k: nested(leaves, self.name) for k, leaves in kept.items()}
        return variables.pop("params"), variables

    def run(self, params: dict, state: dict, x: Any, *, train: bool, key: Any) -> tuple[Any, dict]:
        """(features, {collection: new state})."""
        graph, variables = self.graph, {"params": params, **state}
        given = {p.at: self._value(p, variables, key) for p in graph.places}
        flat = nnx.from_flat_state([(p.at, p.variable.replace(given[p.at])) for p in graph.places])
        module = nnx.merge(graph.definition, flat)
        module.train() if train else module.eval()
        y = module(x, **flag_values(read_call(type(module).__call__, self.name, first=2), train))
        nnx.pop(module, nnx.Intermediate)
        after, values = taken_apart(module)
        held = {p.at: v for p, v in zip(after.places, values, strict=True)}
        if held.keys() != given.keys():
            odd = sorted("/".join(map(str, at)) for at in held.keys() ^ given.keys())
            raise ValueError(f"from_module: {self.name} makes or drops a variable when called: {odd[0]!r}")
        for place in graph.places:
            touched = held[place.at] is not given[place.at]
            if touched and place.collection == "rng" and (not train or key is None):
                why = "no key was given" if train else "it does not train (module.eval() was called)"
                raise ValueError(f"from_module: {self.name} draws random numbers where {why}")
            if touched and not train:
                raise ValueError(
                    f"from_module: {self.name} changes {'/'.join(place.path)!r} though it does not train "
                    "(module.eval() was called)"
                )
            if touched and place.collection == "params":
                raise ValueError(f"from_module: {self.name} changes its parameter {'/'.join(place.path)!r} when called")
        new = {k: nested([(p.path, held[p.at]) for p in graph.places if p.collection == k], self.name) for k in state}
        return y, new if train else {}

    def _value(self, place: Place, variables: dict, key: Any) -> Any:
        if place.collection != "rng":
            return leaf_at(variables[place.collection], place.path)
        like = place.variable.get_value()
        if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jnp.zeros(like.shape, like.dtype)  # how often the stream was drawn from
        own = named_key(jax.random.key(0) if key is None else key, "/".join(place.path))
        return own if not like.shape else jax.random.split(own, like.shape)


def check_module(made: Any, name: str) -> nnx.Module:
    """What a constructor made, or an error."""
    if not isinstance(made, nnx.Module):
        raise ValueError(f"from_module: {name}, called with rngs, made a {type(made).__name__}, no nnx.Module")
    read_call(type(made).__call__, f"NNX module {type(made).__name__}", first=2)
    return made


def outline_of(module: nnx.Module) -> dict[str, Any]:
    """{path: its class} and {path.name: value} of the plain attributes of all modules inside."""
    found: dict[str, Any] = {}
    for path, inner in nnx.iter_modules(module):
        place = "/".join(map(str, path))
        found[place or "module"] = type(inner)
        for name, value in vars(inner).items():
            if not name.startswith("_") and not isinstance(value, nnx.Variable | nnx.Module | nnx.Rngs | nnx.RngStream):
                found[f"{place}.{name}" if place else name] = value
    return found


def instance_network(module: nnx.Module) -> NnxNetwork:
    """A network of an NNX module that starts with the values that it holds now; later changes of it are not seen."""
    check_module(module, f"NNX module {type(module).__name__}")
    nnx.pop(module, nnx.Intermediate)
    graph, values = taken_apart(module)
    held = {"/".join(p.path): v for p, v in zip(graph.places, values, strict=True) if p.collection != "rng"}
    return NnxNetwork(None, own_classes(module), outline_of(module), held, (graph,))


def constructor_network(construct: Callable) -> NnxNetwork:
    """A network of a constructor that takes `rngs`."""
    return NnxNetwork(construct)

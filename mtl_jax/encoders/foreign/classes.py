"""The classes of one's own that an object is made of: their code belongs to what a run rests on."""

import dataclasses
from typing import Any

LIBRARIES = ("jax", "jaxlib", "flax", "equinox", "numpy", "builtins", "mtl_jax")


def own_classes(value: Any) -> tuple[type, ...]:
    """The classes of an object and of all in its fields and attributes, without those of libraries."""
    found: dict[int, Any] = {}
    _walk(value, found)
    return tuple(
        sorted({type(v) for v in found.values() if _own(type(v))}, key=lambda c: (c.__module__, c.__qualname__))
    )


def _own(kind: type) -> bool:
    return kind.__module__.split(".")[0] not in LIBRARIES


def _walk(value: Any, found: dict[int, Any]) -> None:
    if id(value) in found or isinstance(value, type):
        return
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inside = list(value)
    elif dataclasses.is_dataclass(value):
        inside = [getattr(value, f.name, None) for f in dataclasses.fields(value) if f.name != "parent"]
    elif hasattr(value, "__dict__") and _is_module(value):
        inside = list(vars(value).values())
    else:
        return
    found[id(value)] = value
    for each in inside:
        _walk(each, found)


def _is_module(value: Any) -> bool:
    """Whether an object is a Flax NNX module; other objects are no containers of modules."""
    return any(c.__module__.startswith("flax.nnx") for c in type(value).__mro__)

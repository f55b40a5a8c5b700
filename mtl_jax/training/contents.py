"""What a Python object is made of, as names and plain values: the rate inside an optimizer's closures, a loss's code.

An optax transformation, a balancing method or a loss is functions, and what sets one apart from another lies in their
closures. They are followed to the numbers, texts and arrays that they hold. A function of a library is known by its
name; one's own by its code too (of one Python version), and by the plain values that it reads of its module. An object
of one's own class is what its attributes and its class's functions are. What lies elsewhere, such as in a file, or in
what is too large to be followed (which is said), is not seen.
"""

import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import math
import sys
import types
from typing import Any

import jax
import numpy as np

from mtl_jax.data.fingerprint import of_array

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Their functions have their names for good within a version, and the versions are kept.
LIBRARIES = ("jax", "jaxlib", "optax", "flax", "chex", "numpy", "scipy", "ml_dtypes", "einops", "equinox", "mtl_jax")
DEEPEST, MOST = 24, 4000
HEAP = 1 << 9  # the flag of classes that a class statement made


def contents(value: Any) -> dict[str, Any]:
    """{place: value} of all that `value` holds; a place is dotted names, a value is what JSON takes as it is.

    At a function's place stands ``"function module.name"``, and beside it at ``place.code`` a digest, if it is of no
    library.
    """
    found: dict[str, Any] = {}
    _walk(value, "", found, ())
    return found


def name_of(value: Any) -> str:
    """``module.name`` of a function, a class, or else an object's class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def code_of(function: Any, without: str | None = None) -> str:
    """A digest of all that a function holds but its name, for telling whether it is the same one in another module.

    What lies at a place with `without` in it is left out.
    """
    held = {
        k: v.rpartition(".")[2] if str(v).startswith("function ") else v
        for k, v in contents(function).items()
        if k and without not in k.split(".")
    }
    return f"{PYTHON} {hashlib.blake2b(repr(sorted(held.items())).encode(), digest_size=8).hexdigest()}"


def versions() -> dict[str, str]:
    """Of Python and the libraries whose functions are known by name."""
    found = {"python": PYTHON}
    for package in ("mtl_jax", "optax"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "?"
    return found


def _walk(value: Any, place: str, found: dict[str, Any], above: tuple[int, ...]) -> None:
    if len(found) > MOST:
        found["more"] = f"than {MOST} entries, which were not followed"
        return
    if value is None or isinstance(value, bool | int | str):
        found[place] = value
    elif isinstance(value, float):
        found[place] = value if math.isfinite(value) else repr(value)
    elif isinstance(value, np.ndarray | np.generic | jax.Array) and not isinstance(value, jax.core.Tracer):
        _array(value, place, found)
    elif id(value) in above or len(above) > DEEPEST:
        found[place] = f"{name_of(value)}, seen above"
    else:
        _parts(value, place, found, (*above, id(value)))


def _array(value: Any, place: str, found: dict[str, Any]) -> None:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    value = np.asarray(value)
    if value.ndim == 0 and value.dtype.kind in "fiub":
        _walk(value.item(), place, found, ())
    else:
        found[place] = of_array(value)


def _parts(value: Any, place: str, found: dict[str, Any], above: tuple[int, ...]) -> None:
    def inner(name: Any, part: Any) -> None:
        _walk(part, f"{place}.{name}" if place else str(name), found, above)

    if isinstance(value, tuple) and hasattr(value, "_fields"):
        for name in value._fields:
            inner(name, getattr(value, name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            inner(number, part)
        if not value:
            found[place] = "()"
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            inner(key, value[key])
        if not value:
            found[place] = "{}"
    elif isinstance(value, set | frozenset):
        found[place] = ", ".join(sorted(map(repr, value)))
    elif isinstance(value, functools.partial):
        found[place] = "partial"
        inner("function", value.func)
        inner("arguments", value.args)
        inner("keywords", value.keywords)
    elif isinstance(value, types.MethodType):
        inner("self", value.__self__)
        inner("method", value.__func__)
    elif isinstance(value, types.FunctionType):
        _function(value, place, found, above)
    elif isinstance(value, type) and not _of_library(value):
        found[place] = name_of(value)
        found[f"{place}.code" if place else "code"] = _class(value, above)
    elif not isinstance(value, type) and callable(
        getattr(value, "__wrapped__", None)
    ):  # a jitted function and its like
        inner("of", value.__wrapped__)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found[place] = name_of(value)
        fields = {f.name for f in dataclasses.fields(value)}
        for name in sorted(fields - ({"parent", "name"} if "parent" in fields else set())):  # where a Flax module hangs
            inner(name, getattr(value, name, None))
    elif isinstance(value, enum.Enum):
        found[place] = str(value)
    elif _is_own(type(value)) and not isinstance(value, type | types.ModuleType):
        _object(value, place, found, above)
    else:
        found[place] = name_of(value) if not isinstance(value, np.dtype) else str(value)


def _is_own(kind: type) -> bool:
    """Whether a class is defined in Python and of no library, so that its attributes make its objects what they are."""
    home = str(kind.__module__).split(".")[0]
    return (
        home == "__main__"
        or bool(kind.__flags__ & HEAP)
        and home not in LIBRARIES
        and home not in sys.stdlib_module_names
    )


def _object(value: Any, place: str, found: dict[str, Any], above: tuple[int, ...]) -> None:
    """The attributes of an object of one's own class, and the functions of its classes."""

    def inner(name: str, part: Any) -> None:
        _walk(part, f"{place}.{name}" if place else name, found, above)

    found[place] = name_of(value)
    slots = [n for kind in type(value).__mro__ for n in _slots(kind)]
    held = {**{n: getattr(value, n) for n in slots if hasattr(value, n)}, **getattr(value, "__dict__", {})}
    for name in sorted(held, key=str):
        inner(str(name), held[name])
    for kind in filter(_is_own, type(value).__mro__):
        for name, part in sorted(vars(kind).items()):
            part = getattr(part, "__func__", getattr(part, "fget", part))
            if isinstance(part, types.FunctionType):
                inner(f"class.{name}", part)
            elif isinstance(part, bool | int | float | str | tuple) and not name.startswith("__"):
                inner(f"class.{name}", part)


def _slots(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(n for n in names if not n.startswith("__"))


def _function(value: types.FunctionType, place: str, found: dict[str, Any], above: tuple[int, ...]) -> None:
    def inner(name: str, part: Any) -> None:
        _walk(part, f"{place}.{name}" if place else name, found, above)

    if hasattr(value, "described"):  # what made it says what it is
        _walk(value.described, place, found, above)
        return
    library = _of_library(value)
    while library and hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    found[place] = f"function {name_of(value)}"
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            inner(name, cell.cell_contents)
        except ValueError:  # a cell that nothing was put in yet
            found[f"{place}.{name}"] = "empty"
    if library:
        return
    found[f"{place}.code" if place else "code"] = f"{PYTHON} {_code(value.__code__, value.__doc__)}"
    inner("defaults", value.__defaults__ or ())
    inner("keyword_defaults", value.__kwdefaults__ or {})
    for name in sorted(_names(value.__code__)):
        part = value.__globals__.get(name)
        plain = bool | int | float | str | tuple | list | dict | set | frozenset | np.ndarray | jax.Array
        own = isinstance(part, types.FunctionType | type) and not _of_library(part)
        if isinstance(part, plain) or own or (not isinstance(part, type) and _is_own(type(part))):
            inner(name, part)


def _of_library(value: Any) -> bool:
    """Whether a function or class is known by its name."""
    root = str(value.__module__).split(".")[0]
    return root in LIBRARIES or (isinstance(value, type) and root in sys.stdlib_module_names)


def _class(kind: type, above: tuple[int, ...]) -> str:
    """A digest of the methods and plain attributes of a class, and of those it inherits from, but libraries'."""
    held: dict[str, Any] = {}
    for base in kind.__mro__:
        if _of_library(base):
            continue
        for name, part in sorted(vars(base).items()):
            part = getattr(part, "__func__", getattr(part, "fget", getattr(part, "method", part)))
            while not isinstance(part, type) and isinstance(getattr(part, "__wrapped__", None), types.FunctionType):
                part = part.__wrapped__
            if isinstance(part, types.FunctionType):
                if part.__code__.co_filename != "<string>":  # else it was generated, from fields
                    _walk(part, f"{base.__qualname__}.{name}", held, (*above, id(kind)))
            elif isinstance(part, bool | int | float | str | tuple | type(None)) and not name.startswith("__"):
                _walk(part, f"{base.__qualname__}.{name}", held, (*above, id(kind)))
    return f"{PYTHON} {hashlib.blake2b(repr(sorted(held.items())).encode(), digest_size=8).hexdigest()}"


def _names(code: types.CodeType) -> set[str]:
    """Names that a function's code, and code within it, may read of its module."""
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, types.CodeType)), set())


def _code(code: types.CodeType, doc: str | None) -> str:
    """A digest of bytecode, constants and names; not of line numbers, comments or the docstring."""
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_code(constant, None))
        elif isinstance(constant, frozenset):
            constants.append(sorted(map(repr, constant)))
        elif not (doc is not None and constant == doc):
            constants.append(repr(constant))
    text = repr((code.co_code, code.co_names, constants))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

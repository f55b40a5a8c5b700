"""What parameters are read from: paths with shapes and dtypes first, values only of what is wanted."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax.tasks import Task


class Source(NamedTuple):
    """Somewhere that holds named arrays.

    Attributes:
      name: in messages; a path, where it is one.
      shapes: {path: shape and dtype} of all that it holds.
      read: (paths) -> an iterator of (path, NumPy array), in any order; only these are read from disk.
      tasks: the tasks that it was trained on, where it says so.
      names: {path: what its files call it}, where that is another name (`renamed`).
    """

    name: str
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    read: Callable[[Sequence[str]], Iterator[tuple[str, np.ndarray]]]
    tasks: tuple[Task, ...] = ()
    names: Mapping[str, str] = {}


def renamed(source: Source, names: Mapping[str, str]) -> Source:
    """The source with other paths, {new: old}; what `names` does not list is left out."""
    back = {old: new for new, old in names.items()}

    def read(paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        for old, value in source.read([names[p] for p in paths]):
            yield back[old], value

    shapes = {new: source.shapes[old] for new, old in names.items()}
    own = {new: source.names.get(old, old) for new, old in names.items()}
    return source._replace(shapes=shapes, read=read, names=own)


def of_arrays(name: str, arrays: Mapping[str, Any], tasks: tuple[Task, ...] = ()) -> Source:
    """A source of arrays that are in memory."""
    shapes = {p: jax.ShapeDtypeStruct(np.shape(x), x.dtype) for p, x in arrays.items()}
    return Source(name, shapes, lambda paths: ((p, np.asarray(arrays[p])) for p in paths), tasks)


def nearest(name: str, names: Iterable[str]) -> str:
    """`` ; did you mean ...?`` of the most alike of `names`, or else the first of them."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "there are none"

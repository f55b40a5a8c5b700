"""Trees that are merged: of one make, leaf by leaf, on the host; nothing is compiled."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mtl_jax import partition, parts

Flat = dict[str, np.ndarray]
MATRICES = r"(.*/)?kernel"  # the leaves that methods on matrices take as such: inputs by outputs


def read(models: Any, base: Any = None, names: Sequence[str] | None = None) -> tuple[list[Flat], Flat | None]:
    """([{path: array} of each model], that of the base), of equal paths, shapes and dtypes.

    Args:
      models: pytrees of arrays.
      base: the tree that all started from, if the method needs it.
      names: of the models in messages; by default "model 0", ...

    Raises:
      ValueError: for no model, or trees that differ, naming the first path that does.
    """
    if isinstance(models, Mapping) or not hasattr(models, "__iter__"):
        raise parts.no_such("models", models, "several trees of parameters, in a list")
    flat = [{p: np.asarray(x) for p, x in partition.flatten(m).items()} for m in models]
    if not flat or not flat[0]:
        raise ValueError("there is nothing to merge: give one tree of parameters at least")
    names = [f"model {i}" for i in range(len(flat))] if names is None else list(names)
    origin = None if base is None else {p: np.asarray(x) for p, x in partition.flatten(base).items()}
    others = [*zip(names[1:], flat[1:], strict=True), *([("the base", origin)] if origin is not None else [])]
    for name, other in others:
        check_same(names[0], flat[0], name, other)
    return flat, origin


def read_with_base(models: Any, base: Any) -> tuple[list[Flat], Flat]:
    """`read`, for methods that need what all models were tuned from.

    Raises:
      ValueError: for no base as well.
    """
    flat, origin = read(models, base)
    if origin is None:
        raise ValueError("base is None: this method needs the parameters that all models were tuned from")
    return flat, origin


def check_same(name: str, one: Flat, other_name: str, other: Flat) -> None:
    """An error that names the first path in which two trees differ."""
    way_out = "models that are merged must be of one architecture"
    for path in [*one, *(p for p in other if p not in one)]:
        if path not in one or path not in other:
            has, lacks = (name, other_name) if path in one else (other_name, name)
            raise ValueError(f"{path} is in {has} and not in {lacks}; {way_out}")
        if one[path].shape != other[path].shape:
            raise ValueError(
                f"{path} is {one[path].shape} in {name} and {other[path].shape} in {other_name}; {way_out}"
            )
        if one[path].dtype != other[path].dtype:
            raise ValueError(
                f"{path} is {one[path].dtype} in {name} and {other[path].dtype} in {other_name}; {way_out}"
            )
        if not is_float(one[path]):
            if (one[path] != other[path]).any():
                raise ValueError(f"{path} holds whole numbers, which differ between {name} and {other_name}; only "
                                 "floating leaves can be merged")  # fmt: skip
        elif not np.isfinite(wide(other[path])).all() or not np.isfinite(wide(one[path])).all():
            bad = other_name if np.isfinite(wide(one[path])).all() else name
            raise ValueError(f"{path} of {bad} is not finite; a model that has come to nan cannot be merged")


def is_float(leaf: np.ndarray) -> bool:
    """Whether a leaf is merged; whole numbers, which must be equal, stay as they are."""
    return bool(np.issubdtype(leaf.dtype, np.floating)) or leaf.dtype.name in ("bfloat16", "float8_e4m3fn")


def wide(leaf: np.ndarray) -> np.ndarray:
    """A leaf as it is calculated with: float32 at least."""
    return leaf.astype(np.float64 if leaf.dtype == np.float64 else np.float32, copy=False)


def leafwise(function: Callable[..., Any], like: Any, models: Sequence[Flat], base: Flat | None = None) -> Any:
    """A tree of the structure and dtypes of `like`, whose floating leaves are made by `function`.

    Args:
      function: (path, [model, ...], the base's leaf or None) -> leaf.
      like: one of the trees.
      models, base: as `read` returns them.
    """
    found = {}
    for path, first in models[0].items():
        if is_float(first):
            origin = None if base is None else wide(base[path])
            leaf = function(path, np.stack([wide(m[path]) for m in models]), origin)
            found[path] = np.asarray(leaf).astype(first.dtype).reshape(first.shape)
        else:
            found[path] = first
    return partition.unflatten(found, jax.tree.map(np.asarray, like))


def on_matrices(
    function: Callable[[Float[np.ndarray, "model input output"]], Float[np.ndarray, "input output"]],
    models: Sequence[Any],
    base: Any,
    scale: float,
    matrices: str = MATRICES,
) -> Any:
    """base + scale times what `function` makes of the task vectors of every matrix; of all other leaves their mean.

    Args:
      function: [model, in, out] -> [in, out]. A kernel of more axes is read as [all but the last, the last].
      models, base: trees.
      scale: of what is added to the base.
      matrices: regex of the leaves that are matrices.

    Raises:
      ValueError: if there is none.
    """
    flat, origin = read_with_base(models, base)
    check_scale(scale)
    chosen = {p for p, x in flat[0].items() if re.fullmatch(matrices, p) and x.ndim > 1 and is_float(x)}
    if not chosen:
        raise ValueError(f"no leaf of two axes has a path like {matrices!r}; paths are "
                         f"{', '.join(list(flat[0])[:8])}; say which are matrices: matrices='.*'")  # fmt: skip

    def merged(path: str, leaves: np.ndarray, start: Any) -> np.ndarray:
        vectors = leaves - start
        if path not in chosen:
            return start + scale * vectors.mean(0)
        found = function(vectors.reshape(len(vectors), -1, vectors.shape[-1]))
        return start + scale * found.reshape(start.shape)

    return leafwise(merged, models[0], flat, origin)


def check_scale(scale: Any, name: str = "scale") -> None:
    """An error for what is no finite number."""
    if isinstance(scale, bool) or not isinstance(scale, int | float | np.number) or not np.isfinite(scale):
        raise ValueError(f"{name}={scale!r} must be a finite number")


def check_share(share: Any, name: str) -> None:
    """An error for what is no share in [0, 1]."""
    check_scale(share, name)
    if not 0 <= share <= 1:
        raise ValueError(f"{name}={share!r} must lie in [0, 1]")

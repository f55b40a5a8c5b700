"""What a caller of `balanced` gives: parameters, which of them are shared, losses and masks; read once, and checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtl_jax import partition, parts
from mtl_jax.gradients.linearization import Gradient

Shared = str | Sequence[Any] | Callable[[str], bool] | Any


def leaves_of(params: Any) -> Gradient:
    """{path: array} of a tree of parameters.

    Raises:
      ValueError: if there is no leaf, two have one path, or one cannot be differentiated or was donated.
    """
    found = jax.tree.leaves_with_path(params)
    if not found:
        raise ValueError("params have no leaf; give the tree of arrays that trains")
    flat: Gradient = {}
    for keys, leaf in found:
        path = partition.path_name(keys)
        if path in flat:
            raise ValueError(f"params: two leaves are called {path!r}; rename one, as paths tell leaves apart")
        if isinstance(leaf, float):
            leaf = jnp.asarray(leaf)
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            what = getattr(leaf, "__name__", type(leaf).__name__) if dtype is None else dtype
            raise ValueError(
                f"params: leaf {path!r} is {what}, which has no gradient; split off what does not train, as "
                "eqx.partition(model, eqx.is_inexact_array) or nnx.split(model, nnx.Param, ...) do"
            )
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted():
            raise ValueError(f"params: the buffer of leaf {path!r} was donated; use what that call returned")
        flat[path] = jnp.asarray(leaf)
    return flat


def shared_paths(shared: Shared, params: Any, paths: Sequence[str]) -> frozenset[str]:
    """The leaves whose gradients are balanced.

    Args:
      shared: None for all; a regex over paths or several; ordered (regex, bool) rules; a function of a path; or a tree
        of bools like `params`, or like its upper part.
      params: the tree.
      paths: of its leaves.

    Raises:
      ValueError: for rules that match nothing, a tree of another form, or if no leaf is chosen.
    """
    if shared is None:
        return frozenset(paths)
    if _is_tree_of_bools(shared):
        try:
            whole = jax.tree.map(lambda on, part: jax.tree.map(lambda _: bool(on), part), shared, params)
        except ValueError as error:
            raise ValueError(f"shared is a tree of bools that does not fit params: {error}") from error
        chosen = [p for p, on in partition.flatten(whole).items() if on]
    elif callable(shared):
        chosen = [p for p in paths if shared(p)]
    else:
        if isinstance(shared, Mapping) or not isinstance(shared, str | Sequence):
            raise parts.no_such("shared", shared, "a regex over paths, rules, a function of a path or a tree of bools")
        rules = (shared,) if isinstance(shared, str) else tuple(shared)
        rules = [(r, True) if isinstance(r, str) else r for r in rules]
        chosen = [p for p, on in partition.match(rules, paths, False).items() if on]
    if not chosen:
        raise ValueError(f"shared={shared!r} chooses no parameter, so there is nothing to balance; paths are "
                         f"{', '.join(list(paths)[:8])}")  # fmt: skip
    return frozenset(chosen)


def _is_tree_of_bools(tree: Any) -> bool:
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(isinstance(x, bool | np.bool_) for x in leaves)


def in_order(found: Any, tasks: Sequence[str] | None, what: str = "losses") -> tuple[tuple[str, ...], Array, bool]:
    """(names, [K], whether they were named) of a [K] array or of {name: scalar}.

    Args:
      found: what a function of losses, or a mask, is.
      tasks: names and order, where they are known; else a dict's own order, or "0", "1", ...
      what: names it in errors.

    Raises:
      ValueError: for other shapes, or names or a number that do not fit `tasks`.
    """
    if isinstance(found, Mapping):
        check_names(found, what)
        for name, value in found.items():
            if jnp.ndim(value):
                raise ValueError(f"{what}[{name!r}] has shape {jnp.shape(value)}; it must be a scalar: take its mean")
        if tasks is not None and set(found) != set(tasks):
            raise ValueError(f"{what} are named {', '.join(map(str, found))}; the tasks are {', '.join(tasks)}")
        names = tuple(found) if tasks is None else tuple(tasks)
        return names, jnp.stack([jnp.asarray(found[n]) for n in names]), True
    if isinstance(found, list | tuple):
        found = jnp.stack([jnp.asarray(x) for x in found]) if found else jnp.zeros(0)
    values = jnp.asarray(found)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"{what} have shape {values.shape}; they must be [K], one number per task, or {{name: scalar}}"
        )
    if tasks is not None and len(tasks) != len(values):
        raise ValueError(f"{what} are {len(values)}, and there are {len(tasks)} tasks: {', '.join(tasks)}")
    return tuple(map(str, range(len(values)))) if tasks is None else tuple(tasks), values, False


def check_names(found: Mapping, what: str) -> None:
    """An error for a dict by task that is empty, or has a key that is no text."""
    if not found:
        raise ValueError(f"{what} are empty; there is nothing to balance")
    if other := [n for n in found if not isinstance(n, str)]:
        raise ValueError(f"{what} have the key {other[0]!r}; tasks are named by text: {{'name': ...}}")


def check_floats(values: Array) -> Float[Array, " task"]:
    """The losses, or an error where they are whole numbers."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"losses are {values.dtype}; they must be floating-point numbers, which have gradients")
    return values


def read_mask(mask: Any, tasks: Sequence[str]) -> Bool[Array, " task"]:
    """Which tasks are there: [K] bool, or {name: bool}; all for None."""
    if mask is None:
        return jnp.ones(len(tasks), bool)
    _, values, _ = in_order(mask, tasks, "mask entries")
    if values.dtype != bool:
        raise ValueError(f"mask is {values.dtype}; it must be bool, True where a task is there")
    return values


def read_tasks(tasks: int | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of the tasks; a number stands for "0", "1", ..."""
    if tasks is None:
        return None
    if isinstance(tasks, int) and not isinstance(tasks, bool) and tasks > 0:
        return tuple(map(str, range(tasks)))
    if isinstance(tasks, int | str) or not tasks or not all(isinstance(t, str) for t in tasks):
        raise ValueError(f"tasks={tasks!r} must be how many there are, or their names in order")
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks={tuple(tasks)!r} has a name twice")
    return tuple(tasks)


def halves(batch: Any, method: str) -> tuple[Any, Any]:
    """The even and the odd rows of a batch, whose leaves have the rows as first axis.

    Raises:
      ValueError: if a leaf has no rows, or an odd number of them.
    """
    for path, x in partition.flatten(batch).items():
        if not jnp.ndim(x) or jnp.shape(x)[0] % 2 or not jnp.shape(x)[0]:
            raise ValueError(
                f"{method} reads two samples, the halves of a batch, and batch leaf {path!r} of shape {jnp.shape(x)} "
                "cannot be halved; use an even number of rows, or give another batch: second=..."
            )
    return tuple(jax.tree.map(lambda x, i=i: x[i::2], batch) for i in (0, 1))

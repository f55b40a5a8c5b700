"""Any tree of arrays as nested dicts with text for keys, so that its leaves have paths, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Path = tuple[str, ...]


def nested(leaves: Iterable[tuple[Path, Any]], what: str) -> dict[str, Any]:
    """{"a": {"0": leaf}} of (("a", "0"), leaf).

    Raises:
      ValueError: if two leaves would have one path, or one's path begins another's.
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
            if not isinstance(branch, dict):
                break
        if not isinstance(branch, dict) or path[-1] in branch:
            raise ValueError(f"from_module: {what} has two leaves with the path {'/'.join(path)!r}")
        branch[path[-1]] = leaf
    return tree


def leaf_at(tree: Mapping[str, Any], path: Path) -> Any:
    """The leaf at a path."""
    for name in path:
        tree = tree[name]
    return tree


def strong(leaf: Any) -> Any:
    """An array with a dtype of its own: what a Python number left weak would change it from one step to the next."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.astype(leaf.dtype)


def is_weight(leaf: Any) -> bool:
    """Whether a leaf, or its shape, can have a gradient."""
    return jnp.issubdtype(leaf.dtype, np.floating)

"""One parameter tree, split by who can reach a leaf, and the path grammar that names its leaves.

``params = {"shared": ..., "tasks": {name: ...}}``. A leaf is named by its path, such as
``shared/encoder/stage_0/dense/kernel``. Ordered ``(regex, value)`` rules over full paths, first match wins, decide
freezing, learning-rate factors and weight decay. A rule that matches nothing is an error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Rules = Sequence[tuple[str, Any]]


def path_name(key_path: tuple) -> str:
    """``a/b/c`` for a JAX key path."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """{path: leaf}, in the tree's own order."""
    return {path_name(k): leaf for k, leaf in jax.tree.leaves_with_path(tree)}


def unflatten(flat: Mapping[str, Any], like: Any) -> Any:
    """A tree of the structure of `like` with the leaves of `flat`; leaves that `flat` lacks come from `like`."""
    return jax.tree.map_with_path(lambda k, leaf: flat.get(path_name(k), leaf), like)


def owner(path: str) -> str:
    """Who alone can reach a leaf: a task's name, or ``shared``."""
    head, _, rest = path.partition("/")
    return rest.split("/", 1)[0] if head == "tasks" else "shared"


def match(rules: Rules, paths: Sequence[str], default: Any) -> dict[str, Any]:
    """{path: value of the first rule whose regex matches the whole path}, `default` where none does.

    Raises:
      ValueError: if a rule's regex is malformed or matches no path at all.
    """
    if isinstance(rules, Mapping | str):
        raise ValueError(f"rules are {rules!r}; give ordered pairs, (('shared/.*', value), ...)")
    compiled = []
    for rule in rules:
        if not isinstance(rule, tuple | list) or len(rule) != 2 or not isinstance(rule[0], str):
            raise ValueError(f"rule {rule!r} is no pair of a regex and a value, such as ('shared/.*', value)")
        pattern, value = rule
        try:
            compiled.append((re.compile(pattern), value))
        except re.error as error:
            raise ValueError(f"rule {pattern!r} is not a regular expression: {error}") from error
    values = {p: next((v for r, v in compiled if r.fullmatch(p)), default) for p in paths}
    for regex, _ in compiled:
        if not any(regex.fullmatch(p) for p in paths):
            shown = ", ".join(list(paths)[:8]) + (", ..." if len(paths) > 8 else "")
            raise ValueError(f"rule {regex.pattern!r} matches no parameter; paths are {shown}")
    return values


def label(tree: Any, rules: Rules, default: Any) -> Any:
    """A tree of the structure of `tree` whose leaves are the values that `match` gives their paths."""
    return unflatten(match(rules, list(flatten(tree)), default), tree)


def freeze_rules(freeze: str | Sequence[str] | Rules | None) -> Rules:
    """Rules to trainable or not: a regex or several name what is frozen, pairs are taken as they are."""
    if freeze is None:
        return ()
    if isinstance(freeze, str):
        return ((freeze, False),)
    if isinstance(freeze, Mapping | bool) or not hasattr(freeze, "__iter__"):
        raise ValueError(f"freeze={freeze!r} must be a regex such as 'shared/.*', several, or (regex, trains) pairs")
    return tuple((f, False) if isinstance(f, str) else tuple(f) for f in freeze)


def trainable_paths(params: Any, freeze: str | Sequence[str] | Rules | None) -> frozenset[str]:
    """Paths of the leaves that train.

    Raises:
      ValueError: if a rule matches nothing, or everything is frozen.
    """
    kept = frozenset(p for p, on in match(freeze_rules(freeze), list(flatten(params)), True).items() if on)
    if not kept:
        raise ValueError(f"freeze={freeze!r} freezes every parameter; nothing is left to train")
    return kept


def split(params: Any, keep: Callable[[str], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """({path: leaf} of the leaves that `keep` takes, the others)."""
    flat = flatten(params)
    return {p: v for p, v in flat.items() if keep(p)}, {p: v for p, v in flat.items() if not keep(p)}


def rows(params: Any, trainable: frozenset[str] | None = None) -> list[tuple[str, tuple, int, str, bool]]:
    """(path, shape, count, owner, trainable) of every leaf, for the table that `describe` prints."""
    return [
        (p, tuple(v.shape), int(np.prod(v.shape)), owner(p), trainable is None or p in trainable)
        for p, v in flatten(params).items()
    ]

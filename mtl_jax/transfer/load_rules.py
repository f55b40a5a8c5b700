"""Rules of loading: where each leaf of a model comes from, or that it keeps its initial value."""

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mtl_jax.transfer.sources.base import nearest


class Keep(enum.Enum):
    """The type of `KEEP`."""

    KEEP = "KEEP"

    def __repr__(self) -> str:
        return self.value


KEEP = Keep.KEEP
FORM = r"(regex, old path), (regex, KEEP) or (regex, old path or several, change), such as (r'shared/(.*)', r'\1')"


class Origin(NamedTuple):
    """Where a leaf comes from.

    Attributes:
      paths: of the source.
      change: (*arrays) -> the leaf's array, by operators and methods that NumPy and JAX share; None: as it is.
      by_rule: whether a rule says so, and not the leaf's own path.
    """

    paths: tuple[str, ...]
    change: Callable | None
    by_rule: bool


def origins(rules: Sequence[Sequence[Any]], paths: Iterable[str]) -> dict[str, Origin | Keep]:
    """{path: its `Origin`, or `KEEP`} by the first rule whose regex matches the whole path; by none, its own path.

    Args:
      rules: ``(regex, old)`` or ``(regex, old, change)``. `old` is a template that may name the regex's groups, as in
        `re.Match.expand`, or several, or `KEEP`.
      paths: of the new model.

    Raises:
      ValueError: for a rule of another form, or one that matches nothing: it names the nearest path.
    """
    paths = list(paths)
    compiled = [_compiled(rule) for rule in _listed(rules)]
    for regex, _, _ in compiled:
        if not any(regex.fullmatch(p) for p in paths):
            raise ValueError(f"rule {regex.pattern!r} matches no path of the model; {nearest(regex.pattern, paths)}")
    found: dict[str, Origin | Keep] = {}
    for path in paths:
        hits = ((regex.fullmatch(path), old, change) for regex, old, change in compiled)
        hit, old, change = next((h for h in hits if h[0]), (None, path, None))
        if old is KEEP:
            found[path] = KEEP
        elif hit is None:
            found[path] = Origin((path,), None, False)
        else:
            templates = (old,) if isinstance(old, str) else old
            found[path] = Origin(tuple(_expanded(hit, t) for t in templates), change, True)
    return found


def _listed(rules: Any) -> list:
    if isinstance(rules, str | dict) or not hasattr(rules, "__iter__"):
        raise ValueError(f"rules are {rules!r}; give ordered ones, each {FORM}")
    return list(rules)


def _compiled(rule: Any) -> tuple[re.Pattern, Any, Callable | None]:
    good = isinstance(rule, tuple | list) and len(rule) in (2, 3) and isinstance(rule[0], str)
    old = rule[1] if good else None
    several = isinstance(old, tuple) and bool(old) and all(isinstance(t, str) for t in old)
    good = good and (old is KEEP or isinstance(old, str) or (several and len(rule) == 3))
    if not good or (len(rule) == 3 and not (callable(rule[2]) or rule[2] is None)):
        raise ValueError(f"rule {rule!r} is none; it must be {FORM}")
    try:
        return re.compile(rule[0]), old, rule[2] if len(rule) == 3 else None
    except re.error as error:
        raise ValueError(f"rule {rule[0]!r} is not a regular expression: {error}") from error


def _expanded(hit: re.Match, template: str) -> str:
    try:
        return hit.expand(template)
    except (re.error, IndexError) as error:
        raise ValueError(f"rule {hit.re.pattern!r}: the old path {template!r} cannot be filled in: {error}") from error

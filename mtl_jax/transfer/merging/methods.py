"""The methods that merge, by name, and what each reads."""

import inspect
from collections.abc import Callable
from typing import Any

from mtl_jax import parts
from mtl_jax.transfer.merging.averaging import average, greedy_soup, wise_ft
from mtl_jax.transfer.merging.regmean import regmean, regmean_plus_plus
from mtl_jax.transfer.merging.spectral import iso_c, tsv_m
from mtl_jax.transfer.merging.task_vectors import dare, task_arithmetic
from mtl_jax.transfer.merging.ties import ties
from mtl_jax.transfer.merging.wudi import wudi

NAMES: dict[str, Callable] = {
    "average": average, "greedy_soup": greedy_soup, "wise_ft": wise_ft,
    "task_arithmetic": task_arithmetic, "ties": ties, "dare": dare,
    "regmean": regmean, "regmean_plus_plus": regmean_plus_plus,
    "tsv_m": tsv_m, "iso_c": iso_c, "wudi": wudi,
}  # fmt: skip
READS = ("base", "models", "key", "grams", "stages", "grams_of", "score")  # arguments that are no options


def reads(text: str) -> tuple[str, ...]:
    """What the method that `text` names reads, of `READS`."""
    name, _, _ = parts.parse(text, "merging method")
    takes = inspect.signature(parts.lookup(name, NAMES, "merging method")).parameters
    return tuple(n for n in READS if n in takes)


def options(text: str) -> dict[str, Any]:
    """{option: value} of a method, defaults included.

    Raises:
      ValueError: for an unknown method or option, or an option without its name.
    """
    name, positional, given = parts.parse(text, "merging method")
    takes = inspect.signature(parts.lookup(name, NAMES, "merging method")).parameters
    known = {n: p.default for n, p in takes.items() if n not in READS}
    if positional:
        raise ValueError(f"merging method {text!r}: name its options, {', '.join(known) or 'of which there are none'}")
    for key in given:
        if key not in known:
            raise parts.unknown(f"option of merging method {name!r}", key, known)
    return known | given


def build(text: str) -> Callable:
    """The method that `text` names, such as ``"ties(keep=0.1)"``: a function of what it `reads`."""
    name, _, given = parts.parse(text, "merging method")
    options(text)

    def merged(**what: Any) -> Any:
        return NAMES[name](**what, **given)

    return merged

"""Checks of what a method is made with: an argument that makes no sense is refused by a line that names both."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from mtl_jax import parts

RANGES = {
    "at least 0": lambda v: v >= 0,
    "above 0": lambda v: v > 0,
    "in [0, 1)": lambda v: 0 <= v < 1,
    "in (0, 1]": lambda v: 0 < v <= 1,
    "in [0, 1]": lambda v: 0 <= v <= 1,
}


def is_number(value: Any) -> bool:
    """Whether `value` is a finite real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check(method: str, range_: str, **given: Any) -> None:
    """An error unless every argument is a finite number in a range of `RANGES`."""
    for argument, value in given.items():
        if not (is_number(value) and RANGES[range_](value)):
            raise ValueError(f"{method}: {argument}={value!r} must be a finite number {range_}")


def check_whole(method: str, least: int, **given: Any) -> None:
    """An error unless every argument is a whole number from `least` on."""
    for argument, value in given.items():
        if not (isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least):
            raise ValueError(f"{method}: {argument}={value!r} must be a whole number, {least} or more")


def numbers(method: str, argument: str, given: Any) -> tuple[float, ...] | None:
    """A number per task, as floats; None stays None.

    Raises:
      ValueError: for anything else than finite numbers, or for none.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        order = "numbers in the order of the tasks, such as (1.0, 2.0)"
        raise parts.no_such(f"{method}: {argument}", dict(given), order)
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ValueError(f"{method}: {argument}={given!r} must be finite numbers, one per task, such as (1.0, 2.0)")
    found = tuple(x.item() if hasattr(x, "item") else x for x in given)
    if not found or not all(map(is_number, found)):
        raise ValueError(f"{method}: {argument}={found!r} must be finite numbers, one per task")
    return tuple(map(float, found))


def preferences(method: str, argument: str, given: Sequence[float] | None) -> tuple[float, ...] | None:
    """A preference per task, as floats; None stays None.

    Raises:
      ValueError: if one is negative or none is positive.
    """
    found = numbers(method, argument, given)
    if found is not None and (min(found) < 0 or max(found) == 0):
        raise ValueError(f"{method}: {argument}={found!r} must not be negative, and not all of them 0; one per task")
    return found

"""What an evaluation is asked for: labels, rates and methods."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.data.dataset import Dataset
from mtl_jax.transfer import methods as room
from mtl_jax.transfer.evaluation.few_shot import few_shot
from mtl_jax.transfer.evaluation.trainings import SCRATCH
from mtl_jax.transfer.methods import Method

ALL = "all"


def labels_of(data: Dataset, count: int | str, seed: int, validation: int | None) -> Dataset:
    """The data set with so many labels of each class, or all; its validation split with as many, or `validation`."""
    if count != ALL:
        return few_shot(data, int(count), seed, validation)
    if validation is None or data.val is None:
        return data
    val = few_shot(data, 1, seed, validation).val if validation else None
    groups = data.groups if val is None else None
    if groups is not None:
        groups = {k: g for k, g in groups.items() if k != "val"}
    return dataclasses.replace(data, val=val, spec=None, rows=None, groups=groups)


def read_shots(shots: Any) -> tuple[int | str, ...]:
    """Counts in ascending order, "all" last."""
    several = _several("shots", shots, 'labels of each class, such as (1, 5, "all")')
    if not several:
        raise ValueError('shots is empty; give labels of each class, such as (1, 5, "all")')
    for each in several:
        if each != ALL:
            if isinstance(each, str):
                raise ValueError(f'shots: {each!r} must be a number of labels of each class, or "all"')
            parts.check_whole("shots", each)
    numbers = sorted({int(s) for s in several if s != ALL})
    return (*numbers, *([ALL] if ALL in several else []))


def read_rates(rates: Any) -> tuple[float, ...]:
    """Factors on learning rates."""
    several = _several("rates", rates, "factors above 0 on learning rates, such as (0.3, 1, 3)")
    numbers = all(isinstance(r, int | float) and not isinstance(r, bool) and 0 < r < np.inf for r in several)
    if not several or not numbers:
        raise ValueError(f"rates={rates!r} must be factors above 0 on learning rates, such as (0.3, 1, 3)")
    return tuple(float(r) for r in several)


def read_methods(given: Any) -> dict[str, Method]:
    """{name: method}; objects are called by the call that made them."""
    if isinstance(given, str):
        return {n: room.build(n) for n in room.NAMES} if given == ALL else {given: room.build(given)}
    if isinstance(given, Mapping):
        named = {str(n): room.read(m) for n, m in given.items()}
    elif isinstance(given, Method) or not hasattr(given, "__iter__"):
        named = {m.spec or m.name: m for m in [room.read(given)]}
    else:
        named = {}
        for each in given:
            method = room.read(each)
            name = each if isinstance(each, str) else (method.spec or method.name).removesuffix("()")
            if name in named:
                raise ValueError(f"two methods are called {name!r}; name them: {{name: method}}")
            named[name] = method
    if SCRATCH in named:
        raise ValueError(f"a method cannot be called {SCRATCH!r}: that row is always there")
    return named


def read_adapt(given: Any) -> dict[str, Any]:
    """Further arguments of adapting, the same for all methods."""
    if given is not None and not isinstance(given, Mapping):
        raise parts.no_such("adapt", given, 'a dict of arguments, such as {"load": rules}')
    found = dict(given or {})
    for name in ("method", "old", "tasks", "inputs", "freeze"):
        if name in found:
            raise ValueError(f"adapt: {name!r} is set by the evaluation; leave it out")
    return found


def _several(name: str, given: Any, what: str) -> tuple:
    if isinstance(given, int | float | str | np.number):
        return (given,)
    if not hasattr(given, "__iter__"):
        raise parts.no_such(name, given, what)
    return tuple(given)

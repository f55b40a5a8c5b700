"""What losses share: their type, checks of arguments and shapes, and the float type they compute in."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

Loss = Callable[..., Array]

_RANGES = {"in [0, 1)": lambda v: 0 <= v < 1, ">= 0": lambda v: v >= 0, "above 0": lambda v: v > 0}


def check(name: str, value: Any, range_: str) -> None:
    """An error unless `value` is a finite number in a range of `_RANGES`."""
    if not (isinstance(value, Real) and math.isfinite(value) and _RANGES[range_](value)):
        raise ValueError(f"{name}: {value!r} must be a finite number {range_}")


def matched(name: str, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Both in one float type; an error where NumPy would broadcast [N] against [N, 1] to [N, N]."""
    if outputs.shape != targets.shape:
        raise ValueError(f"{name}: outputs {outputs.shape} and targets {targets.shape} must have the same shape")
    dtype = wide(outputs, targets)
    return outputs.astype(dtype), targets.astype(dtype)


def wide(*arrays: Array) -> Any:
    """The type to compute in: float32, or float64 where that is used."""
    return jnp.float64 if any(a.dtype == jnp.float64 for a in arrays) else jnp.float32

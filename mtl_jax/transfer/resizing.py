"""Parameters of another size, made to fit where it is asked for: positions of a grid or a line, and input channels."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mtl_jax import partition, parts

Values = Float[np.ndarray, "..."]


def positions(values: Values, shape: tuple[int, ...], grid: tuple[int, int] | None = None) -> Values:
    """Embeddings [extra + high * wide, width] of a grid of patches for another grid, bicubic (Keys, a = -0.5).

    Tokens in front of the grid, such as a class token, are left as they are; smaller grids are smoothed first.

    Args:
      values: of a square grid.
      shape: to make.
      grid: (high, wide) of the new grid; None for a square.

    Raises:
      ValueError: if either is no such grid.
    """
    if values.ndim != 2 or len(shape) != 2 or values.shape[1] != shape[1]:
        raise ValueError(f"positions {values.shape} -> {shape} are not of one width")
    side = math.isqrt(len(values))
    extra = len(values) - side**2
    high, wide = grid or (math.isqrt(shape[0] - extra),) * 2
    if extra > 2 or high * wide + extra != shape[0]:
        raise ValueError(f"positions {values.shape} -> {shape}: {side} x {side} and {extra} more do not become "
                         f"{high} x {wide}; say which grid, ('positions', (high, wide))")  # fmt: skip
    grown = jax.image.resize(values[extra:].reshape(side, side, -1), (high, wide, shape[1]), "bicubic")
    return np.concatenate([values[:extra], np.asarray(grown, values.dtype).reshape(high * wide, -1)])


def steps(values: Values, shape: tuple[int, ...]) -> Values:
    """The first of the embeddings [step, width] of a sequence's steps.

    Raises:
      ValueError: if more are wanted than there are.
    """
    if values.shape[1:] != shape[1:] or shape[0] > len(values):
        raise ValueError(f"steps {values.shape} -> {shape}: there are no embeddings of later steps")
    return values[: shape[0]]


def channels(values: Values, shape: tuple[int, ...]) -> Values:
    """A kernel [..., in, out] for another number of input channels, so that equal channels give what they gave.

    One channel gets the sum over the old ones; several get them in turn, scaled by old / new.

    Raises:
      ValueError: if anything else differs.
    """
    if values.shape[:-2] != shape[:-2] or values.shape[-1:] != shape[-1:] or len(shape) < 2:
        raise ValueError(f"channels {values.shape} -> {shape} differ in more than input channels")
    old, new = values.shape[-2], shape[-2]
    if new == 1:
        return values.sum(-2, keepdims=True, dtype=values.dtype)
    return (values[..., np.arange(new) % old, :] * (old / new)).astype(values.dtype)


HOW: dict[str, Callable[..., Values]] = {"positions": positions, "steps": steps, "channels": channels}


def resizers(rules: Sequence[tuple[str, Any]], paths: Sequence[str]) -> dict[str, Callable | None]:
    """{path: (values, shape) -> values of that shape, or None} by ordered rules (regex, how).

    Args:
      rules: `how` is one of `HOW`, or ("positions", (high, wide)).
      paths: of the model.

    Raises:
      ValueError: for an unknown way, or a rule that matches nothing.
    """
    return {p: None if how is None else _resizer(how) for p, how in partition.match(rules, paths, None).items()}


def _resizer(how: Any) -> Callable[[Values, tuple[int, ...]], Values]:
    name, *more = (how,) if isinstance(how, str) else how
    function = parts.lookup(name, HOW, "way of resizing")
    return lambda values, shape: function(values, shape, *more)

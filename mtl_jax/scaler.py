"""How targets of numbers are standardised, and what stands for those that float32 would round away."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mtl_jax.batch import Batch


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of a target of numbers, from the training split, in the target's units.

    A time in seconds whose spread is a minute has no room in float32. Such targets stay float64 on the host, and what
    enters a program is relative to `origin` (`centred`): there losses and metrics are the same, but relative errors,
    which are told it. Predictions get the origin back in float64; metrics of one's own and joint losses, in float32.

    Attributes:
      mean, std: an entry for all, or one per dimension.
      origin: as many entries as `mean`; () for none.
    """

    mean: tuple[Any, ...]  # floats; traced numbers where one trace stands for several tasks (`stacking`)
    std: tuple[Any, ...]
    origin: tuple[float, ...] = ()

    def scale(self, values: Any) -> Any:
        """Own units (relative to the origin) to standardised; a single entry serves targets of any shape."""
        return (values - self._like(self._centre, values)) / self._like(self.std, values)

    def unscale(self, values: Any) -> Any:
        """Standardised to own units (relative to the origin)."""
        return values * self._like(self.std, values) + self._like(self._centre, values)

    @property
    def _centre(self) -> tuple[Any, ...]:
        return tuple(m - o for m, o in zip(self.mean, self.origin, strict=True)) if self.origin else self.mean

    @staticmethod
    def _like(entries: tuple[Any, ...], values: Any) -> Any:
        return jnp.asarray(entries[0] if len(entries) == 1 else entries, values.dtype)


def origin_of(task: Any) -> np.ndarray | None:
    """float64, what a target's values are relative to inside a program: a number or [dims]; None for 0."""
    if task.scaler is None or not task.scaler.origin:
        return None
    return np.asarray(task.scaler.origin[0] if len(task.scaler.origin) == 1 else task.scaler.origin, np.float64)


def centred(tasks: Sequence[Any], split: Batch) -> Batch:
    """A split on the host as programs take it: targets relative to the origin of their task's scaler, in float32."""
    targets = dict(split.targets)
    for task in tasks:
        target, origin = targets.get(task.name), origin_of(task)
        if target is not None and origin is not None:
            targets[task.name] = (np.asarray(target, np.float64) - origin).astype(np.float32)
        elif target is not None and getattr(target, "dtype", None) == np.float64:
            targets[task.name] = target.astype(np.float32)
    return Batch(split.inputs, targets, split.masks, split.weights)


def own_units(task: Any, values: Array) -> Array:
    """Values relative to the origin of the task's scaler, as programs hold them, in the target's own units."""
    origin = origin_of(task)
    return values if origin is None else values + jnp.asarray(origin, values.dtype)

"""Losses as functions of the parameters, for methods that look ahead: at a virtual step, or at validation data."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool, Float

from mtl_jax.gradients.linearization import Gradient


class Losses(NamedTuple):
    """The K losses on one batch, by the trainable leaves {path: array}; 0 for tasks without labels in it.

    Attributes:
      value: (leaves) -> [K].
      gradient: (leaves, weights [K]) -> {path: array}, of the weighted sum.
      slope: (leaves, direction) -> [K], the derivatives of the losses along a direction.
      labelled: [K].
    """

    value: Callable[[Gradient], Float[Array, " task"]]
    gradient: Callable[[Gradient, Float[Array, " task"]], Gradient]
    slope: Callable[[Gradient, Gradient], Float[Array, " task"]]
    labelled: Bool[Array, " task"]


class Oracle(NamedTuple):
    """Where a step stands, and its losses on the step's batch and on a validation batch.

    Attributes:
      leaves: {path: array}, all that train.
      train: the losses on the step's batch.
      validation: on a validation batch; None for methods that read none.
      shared: paths of the leaves that are shared; the others are the tasks' own.
    """

    leaves: Gradient
    train: Losses
    validation: Losses | None = None
    shared: frozenset[str] = frozenset()

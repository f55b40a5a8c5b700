"""The contract of a balancing method: a pair of pure functions with its state in a pytree."""

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Float


class Needs(enum.Enum):
    """What a method reads, from cheap to dear."""

    LOSSES = "losses"
    GRAMIAN = "gramian"
    JACOBIAN = "jacobian"


class Signal(NamedTuple):
    """What the engine hands to a method; fields that its `needs` does not name are None."""

    losses: Float[Array, " task"]
    gramian: Float[Array, "task task"] | None = None
    jacobian: dict[str, Float[Array, "task ..."]] | None = None


class Result(NamedTuple):
    """What a method decides.

    Attributes:
      weights: the shared direction is their combination of the task gradients; None if `direction` is given.
      direction: {leaf: array}, a direction that is no combination of task gradients.
      head_weights: factors of each head's own gradient; None means ones. A scalarization sets them to its weights.
    """

    weights: Float[Array, " task"] | None = None
    direction: dict[str, Array] | None = None
    head_weights: Float[Array, " task"] | None = None


class Balancer(NamedTuple):
    """A balancing method.

    Attributes:
      init: (num_tasks, template) -> state. `template` is {path: array}, one row of the Jacobian.
      update: (signal, state, *, mask, key) -> (Result, state). `mask` [task] bool: the tasks that have labels in this
        batch. An absent task gets weight 0, takes no part in the method and keeps its entries of the state.
      needs: the dearest part of `Signal` that `update` reads.
      after: None, or (losses_before, losses_after, state, mask) -> state, called with the losses of the same batch
        after the step.
      spec: the call that made it, such as ``"upgrad(regularization=0.0001)"``; None if that is no literal.
    """

    init: Callable[[int, dict[str, Array]], Any]
    update: Callable[..., tuple[Result, Any]]
    needs: Needs
    after: Callable | None = None
    spec: str | None = None


def stateless(num_tasks: int, template: dict[str, Array]) -> tuple:
    """`init` of a method without state."""
    del num_tasks, template
    return ()


def one_per_task(method: str, what: str, given: Sequence[float] | None, num_tasks: int) -> None:
    """An error unless `given` is None or has an entry for every task."""
    if given is not None and len(given) != num_tasks:
        raise ValueError(f"{method}: {len(given)} {what} were given for {num_tasks} tasks")

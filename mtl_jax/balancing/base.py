"""The contract of a balancing method: a pair of pure functions with its state in a pytree."""

import enum
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from mtl_jax.gradients.oracle import Oracle

T = TypeVar("T")


class Needs(enum.Enum):
    """What a method reads, from cheap to dear."""

    LOSSES = "losses"
    GRAMIAN = "gramian"
    JACOBIAN = "jacobian"
    CROSS = "two samples"
    ORACLE = "validation batches"
    LANDSCAPE = "losses at other parameters"

    @property
    def functions(self) -> bool:
        """Whether it is losses as functions of all parameters that are read (`Signal.oracle`), and no gradients."""
        return self in (Needs.ORACLE, Needs.LANDSCAPE)


class Keeps(enum.IntEnum):
    """What a method carries from step to step."""

    NOTHING = 0
    PER_TASK = 1
    JACOBIAN = 2

    @classmethod
    def of(cls, given: Any) -> "Keeps":
        """Of a method whose state carries an argument, one number per task, where it was given."""
        return cls.NOTHING if given is None else cls.PER_TASK


def given(x: T | None) -> T:
    """What a method's contract says is there.

    Raises:
      ValueError: if it is not.
    """
    if x is None:
        raise ValueError("a balancing method returned neither weights nor a direction, or lacks what its needs name")
    return x


class Signal(NamedTuple):
    """What the engine hands to a method; fields that its `needs` does not name are None.

    Attributes:
      losses: 0 for absent tasks.
      gramian: J J', J a gradient of the shared parameters per row.
      jacobian: J, leaf by leaf.
      cross: J1 J2', of the two interleaved halves of the batch.
      oracle: training and validation losses as functions of the parameters; without validation losses for methods that
        read none.
      ids: a number per task that depends on its name alone; what is drawn at random is drawn from it, so that an
        absent task, or one more, leaves the draws of the others as they were.
    """

    losses: Float[Array, " task"]
    gramian: Float[Array, "task task"] | None = None
    jacobian: dict[str, Float[Array, "task ..."]] | None = None
    cross: Float[Array, "task task"] | None = None
    oracle: Oracle | None = None
    ids: UInt32[Array | np.ndarray, " task"] | None = None


class Result(NamedTuple):
    """What a method decides.

    Attributes:
      weights: the shared direction is their combination of the task gradients; None if `direction` is given.
      direction: {leaf: array}, a direction that is no combination of task gradients. A method that reads an oracle may
        give leaves under ``tasks/`` too, in place of the heads' own gradients.
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
      carried: arguments of that call that `update` reads from the state alone (a preference), so that calls that
        differ in nothing else share one program.
      about: names of the tasks that its arguments name.
      simplex: whether its weights are shares of the present tasks that add up to 1.
      directs: whether it decides on a direction rather than on weights.
      keeps: what its state holds: nothing, and then it is ``()``; something per task; or as much as the Jacobian. None:
        nothing where `init` is `stateless`, else something per task.
      positive: whether it is defined for losses of at least 0 only; its decision is nan where one is below (`defined`).
      unit_free: whether it reads a Gramian, its weights are the same for 4 G, and its state is in no unit of gradients.
    """

    init: Callable[[int, dict[str, Array]], Any]
    update: Callable[..., tuple[Result, Any]]
    needs: Needs
    after: Callable | None = None
    spec: str | None = None
    carried: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    simplex: bool = False
    directs: bool = False
    positive: bool = False
    unit_free: bool = False
    keeps: Keeps | None = None

    @property
    def memory(self) -> Keeps:
        """What its state holds, as it says or by default."""
        if self.keeps is not None:
            return self.keeps
        return Keeps.NOTHING if self.init is stateless else Keeps.PER_TASK


def stateless(num_tasks: int, template: dict[str, Array]) -> tuple:
    """`init` of a method without state."""
    del num_tasks, template
    return ()


def one_per_task(method: str, what: str, given: Sequence[float] | None, num_tasks: int) -> None:
    """An error unless `given` is None or has an entry for every task."""
    if given is not None and len(given) != num_tasks:
        raise ValueError(f"{method}: {len(given)} {what} were given for {num_tasks} tasks")


def start_preference(method: str, what: str, given: Sequence[float] | None, num_tasks: int) -> Any:
    """The state that carries a preference: an array, or nothing where none was given."""
    one_per_task(method, what, given, num_tasks)
    return () if given is None else jnp.asarray(given, jnp.float32)


def preference_of(state: Any, mask: Bool[Array, " task"], dtype: Any) -> Float[Array, " task"]:
    """The preference over the present tasks: what the state carries, or 1 / their number."""
    chosen = 1 / jnp.maximum(mask.sum(), 1) if isinstance(state, tuple) else state
    return jnp.where(mask, chosen, 0).astype(dtype)


def draws(key: Array, ids: UInt32[Array | np.ndarray, " task"]) -> Array:
    """A key per task, which depends on the task's id alone."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(ids))


def defined(
    weights: Float[Array, " task"],
    losses: Float[Array, " task"],
    mask: Bool[Array, " task"],
    lowest: float | Float[Array, "*task"] = 0.0,
) -> Float[Array, " task"]:
    """The weights, nan where a present task's loss is below the lowest that the method is defined for.

    At a step a loss is data, and no error can be raised: nan weights are what a step finds, and does not apply.
    """
    return jnp.where(mask & (losses < lowest), jnp.nan, weights)


def among_present(
    weights: Float[Array, " task"], mask: Bool[Array, " task"]
) -> tuple[Float[Array, " task"], Float[Array, ""]]:
    """Weights on the simplex of all tasks as ones on the simplex of the present tasks.

    Returns:
      (the present tasks' shares of what they hold together, even ones where that is nothing; what they hold: all that
      the absent ones leave, so that rounding does not add up over the steps).
    """
    present = jnp.where(mask, weights, 0)
    total = present.sum()
    even = (mask / jnp.maximum(mask.sum(), 1)).astype(weights.dtype)
    share = jnp.where(total > 0, present / jnp.where(total > 0, total, 1), even)
    return share, jnp.clip(1 - jnp.where(mask, 0, weights).sum(), 0, 1)


def keep_shares(
    weights: Float[Array, " task"], share: Float[Array, " task"], held: Float[Array, ""], mask: Bool[Array, " task"]
) -> Float[Array, " task"]:
    """Weights on the simplex of all tasks: absent ones keep theirs, present ones divide what they hold as `share`."""
    return jnp.where(mask, (share * held).astype(weights.dtype), weights)


def method_name(balancer: Any) -> str:
    """The method's name without its arguments."""
    return re.split(r"\(", balancer.spec)[0] if balancer.spec else "the given balancer"

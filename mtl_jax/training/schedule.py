"""Which tasks train at a step: a pure function of (step, key), traced inside the compiled step.

`NAMES` lists the schedules; each is a function that returns a `Schedule`. A draw depends on the key and on one task's
name, so that adding or reordering tasks leaves the others' draws as they are.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mtl_jax import parts

Active = Callable[[Int[Array, ""], Key[Array, ""]], Bool[Array, " task"]]
BY = ("uniform", "size", "priority", "round_robin")
OPTIMIZERS = ("one", "per_task")


class Schedule(NamedTuple):
    """A schedule.

    Attributes:
      bind: (names, sizes) -> the function (step, key) -> bool [K], whether each task trains. `names` are the K tasks',
        in the model's order, `sizes` [K] how many training labels each has. The step is an int32 scalar, the key one of
        that step's own; at least one task always trains.
      spec: the call that made it, such as ``"task_dropout(rate=0.3)"``; None if that is no literal.
      optimizer_per_task: one task trains at a step, and each has an optimizer state of its own for the trunk too.
    """

    bind: Callable[[Sequence[str], Sequence[float]], Active]
    spec: str | None = None
    optimizer_per_task: bool = False


def bind(schedule: Schedule, names: Sequence[str], sizes: Sequence[float]) -> Active:
    """The schedule's function for these tasks.

    Raises:
      ValueError: if there is not one size per task, or the schedule names tasks that are not there.
    """
    if len(names) != len(sizes):
        raise ValueError(f"{len(sizes)} sizes were given for {len(names)} tasks")
    return schedule.bind(tuple(names), tuple(float(s) for s in sizes))


@parts.recorded()
def joint() -> Schedule:
    """Every task at every step."""
    return Schedule(lambda names, sizes: lambda step, key: jnp.ones(len(names), bool))


@parts.recorded()
def alternating(
    by: str = "uniform",
    temperature: float = 1.0,
    weights: Mapping[str, float] | None = None,
    optimizer: str = "one",
) -> Schedule:
    """One task a step.

    Args:
      by: how it is chosen. "uniform": each with the same probability; "size": with probability proportional to
        n_t^(1 / temperature), where n_t is the task's number of labels (Raffel et al., JMLR 2020, arXiv:1910.10683,
        section 3.5.2; as Hashimoto et al. and many others do, 1 is in proportion); "priority": in proportion to
        `weights`; "round_robin": in turn, in the tasks' order.
      temperature: > 0; towards infinity "size" becomes "uniform".
      weights: {task: number >= 0}, for "priority" only.
      optimizer: "one": the trunk's moments are those of all tasks' gradients; "per_task": each task has moments of its
        own for the trunk, which only its turns change, as if it had an optimizer to itself.
    """
    if by not in BY:
        raise parts.unknown("by of alternating", by, BY)
    if optimizer not in OPTIMIZERS:
        raise parts.unknown("optimizer of alternating", optimizer, OPTIMIZERS)
    if (by == "priority") != (weights is not None):
        raise ValueError("alternating: weights go with by='priority', and with that alone")
    if not temperature > 0:
        raise ValueError(f"alternating: temperature={temperature!r} must be above 0")
    if temperature != 1 and by != "size":
        raise ValueError(f"alternating: temperature goes with by='size', not by={by!r}")
    for name, weight in (weights or {}).items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"alternating: weight {weight!r} of task {name!r} must be at least 0")

    def bind(names: Sequence[str], sizes: Sequence[float]) -> Active:
        if by == "round_robin":
            return lambda step, key: jnp.arange(len(names)) == step % len(names)
        if weights is not None:  # by priority
            _check_known("weights of alternating", weights, names)
            for name in names:
                if name not in weights:
                    raise ValueError(f"alternating: weights has no entry for task {name!r}; 0 leaves it out")
            chances = [weights[name] for name in names]
        else:
            chances = [1.0] * len(names) if by == "uniform" else sizes
        if not any(chances):
            raise ValueError(f"alternating: by={by!r} leaves no task with a chance to train")
        with np.errstate(divide="ignore"):
            logits = jnp.asarray(np.log(np.asarray(chances, np.float64)) / temperature, jnp.float32)

        def active(step: Int[Array, ""], key: Key[Array, ""]) -> Bool[Array, " task"]:
            # The maximum of logits with Gumbel noise is a draw from their softmax.
            drawn = jnp.argmax(logits + per_name(jax.random.gumbel, key, names))
            return jnp.arange(len(names)) == drawn

        return active

    return Schedule(bind, optimizer_per_task=optimizer == "per_task")


@parts.recorded()
def curriculum(starts: Mapping[str, int], rehearsal: float = 1.0) -> Schedule:
    """Tasks enter one after the other: those that entered last train at every step, the earlier ones are rehearsed.

    Args:
      starts: {task: the step at which it enters}; tasks that are not named are there from step 0.
      rehearsal: probability that an earlier task trains at a step, drawn for each task by itself: 1 keeps all, 0 leaves
        them behind.
    """
    if not 0 <= rehearsal <= 1:
        raise ValueError(f"curriculum: rehearsal={rehearsal!r} must lie in [0, 1]")
    for name, start in starts.items():
        if not isinstance(start, int) or start < 0:
            raise ValueError(f"curriculum: start {start!r} of task {name!r} must be a step, 0 or later")

    def bind(names: Sequence[str], sizes: Sequence[float]) -> Active:
        del sizes
        _check_known("starts of curriculum", starts, names)
        first = [starts.get(name, 0) for name in names]
        if min(first) > 0:
            raise ValueError("curriculum: no task is there at step 0; let at least one start there")
        start = jnp.asarray(first, jnp.int32)

        def active(step: Int[Array, ""], key: Key[Array, ""]) -> Bool[Array, " task"]:
            entered = start <= step
            newest = start == jnp.where(entered, start, 0).max()
            return entered & (newest | (per_name(jax.random.uniform, key, names) < rehearsal))

        return active

    return Schedule(bind)


@parts.recorded()
def task_dropout(rate: float = 0.5) -> Schedule:
    """Each task is left out with probability `rate`, by itself; where all would be, the one nearest to staying stays.

    A task trains with probability 1 - rate + rate^K / K.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"task_dropout: rate={rate!r} must lie in [0, 1)")

    def bind(names: Sequence[str], sizes: Sequence[float]) -> Active:
        del sizes

        def active(step: Int[Array, ""], key: Key[Array, ""]) -> Bool[Array, " task"]:
            drawn = per_name(jax.random.uniform, key, names)
            return (drawn >= rate) | (jnp.arange(len(names)) == jnp.argmax(drawn))

        return active

    return Schedule(bind)


def per_name(draw: Callable, key: Key[Array, ""], names: Sequence[str]) -> Float[Array, " task"]:
    """One draw per task, from a key that depends on its name alone."""
    folds = jnp.asarray([zlib.crc32(name.encode()) for name in names], jnp.uint32)
    return jax.vmap(lambda fold: draw(jax.random.fold_in(key, fold), dtype=jnp.float32))(folds)


def _check_known(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            raise parts.unknown(f"task in {what}", name, names)


NAMES = {f.__name__: f for f in (joint, alternating, curriculum, task_dropout)}


def build(text: str) -> Schedule:
    """The schedule that `text` names, such as ``"alternating(by='size', temperature=2.0)"``."""
    return parts.build(text, NAMES, "schedule")

"""The contract between models and everything else: pure functions over one partitioned tree of variables."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from mtl_jax.batch import Batch, inputs_of
from mtl_jax.tasks import Task

if TYPE_CHECKING:
    from mtl_jax.encoders.base import Encoder

Train = bool | Callable[[str], bool]  # a function answers per path: a frozen module runs as in inference

MANY = 20  # tasks; of more, a model reports one number for all where it would report one for each


class MultiTaskModel(NamedTuple):
    """A model as pure functions.

    ``variables = {"params": {"shared", "tasks": {name}}, "state": {"shared", "tasks": {name}}}``. A leaf under
    ``tasks/<t>`` gets a gradient from task t's loss only; everything else is under ``shared``.

    Attributes:
      tasks: their order is the order of every task axis.
      features: "common" (encode returns one value for all heads), "per_task" (`PerTask`, from one computation) or
        "branched" (`PerTask`, one computation per task). With inputs of each task's own, "common" means "branched".
      init: (rng, batch) -> variables.
      encode: (variables, batch, *, train, rng, tasks=None) -> (features, new_state, aux). `tasks` limits the work to
        those names. `new_state` holds only what changed. aux = {"losses": {name: scalar}, "metrics": {name: scalar}}.
      decode: (variables, {task: features}, *, train, rng) -> ({task: outputs}, new_state). Separable: a task's output
        reads ``tasks/<t>`` and its own features only.
      penalty: (variables) -> scalar, for soft sharing.
      encoder, spec: what it was made of, for saving; None in hand-written models.
      alike: (name) -> what the task's computation depends on besides its `Task` and the shapes of its leaves and
        inputs; tasks of equal values there run as one (`mtl_jax.alike`). None: each task runs by itself.
      start: (rng, batch, layout) -> variables that lie as `stacking.Layout` says, with the numbers of `init`; then
        alike tasks are initialised as one. None: all are initialised one after the other.
      base: (the model that it was made of, the fine-tuning method), if `transfer.methods.attach` made it; else None.
      check: (split, its name) -> None, a ValueError for labels that its losses cannot mean; None for any.

    `train` is a bool, or a function of a path: False there means that the module at that path runs as in inference.
    """

    tasks: tuple[Task, ...]
    features: str
    init: Callable
    encode: Callable
    decode: Callable
    penalty: Callable
    encoder: "Encoder | None" = None
    spec: str | None = None
    alike: Callable[[str], Any] | None = None
    start: Callable | None = None
    check: Callable[[Batch, str], None] | None = None
    base: "tuple[MultiTaskModel, Any] | None" = None


def no_penalty(variables: Any) -> Any:
    """The penalty of a model without one."""
    del variables
    return jnp.zeros(())


def by_kind(name: str) -> Any:
    """The `alike` of models that treat all tasks in one way."""
    del name
    return ()


NO_AUX = {"losses": {}, "metrics": {}}


def merge(old: Any, new: Any) -> Any:
    """`old` with the entries of the nested dict `new` in place of its own."""
    if not isinstance(new, dict):
        return new
    return {**old, **{k: merge(old[k], v) if k in old else v for k, v in new.items()}}


def forward(model: MultiTaskModel, variables: Any, batch: Any, *, train: Any = False, rng: Any = None) -> tuple:
    """({task: outputs}, variables["state"] after it, aux) of all tasks, in one pass."""
    features, encoded, aux = model.encode(variables, batch, train=train, rng=rng)
    outputs, decoded = model.decode(variables, spread(model, features), train=train, rng=rng)
    return outputs, merge(merge(variables["state"], encoded), decoded), aux


def spread(model: MultiTaskModel, features: Any) -> dict[str, Any]:
    """{task: features} from what `encode` returned."""
    return {t.name: inputs_of(features, t.name) for t in model.tasks}

"""What all architectures take alike: an encoder, by object or by text, and tasks; anything else is said in one line."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from mtl_jax import encoders, parts
from mtl_jax.encoders import Encoder
from mtl_jax.encoders.foreign.from_module import is_a
from mtl_jax.sharing.prepared import prepared
from mtl_jax.tasks import Task

ENCODER = 'an encoder such as mtl.encoders.mlp(features=(64, 64)), or its text, "mlp(features=(64, 64))"'
TASKS = "tasks such as data.tasks, or a tuple of mtl.Task(name, kind, size)"


def architecture(function: Callable | None = None, *, paper: str = "", when: str = "") -> Callable:
    """Decorates an architecture: its call is recorded in ``spec``, and its encoder and tasks are read first.

    Args:
      function: the architecture.
      paper, when: whose idea it is, and when to use it (`parts.recorded`).

    Raises:
      ValueError: for an encoder or tasks that are none, naming what was given.
    """
    if function is None:
        return functools.partial(architecture, paper=paper, when=when)
    recorded, signature = parts.recorded("encoder", "tasks")(function), inspect.signature(function)

    @functools.wraps(function)
    def constructor(*args, **kwargs):
        bound = parts.bind(function.__name__, signature, args, kwargs)
        given = bound.arguments
        given["encoder"] = given_encoder(function.__name__, given["encoder"])
        given["tasks"] = given_tasks(function.__name__, given["tasks"])
        return prepared(recorded(*bound.args, **bound.kwargs))

    told: Any = constructor
    told.paper, told.when = paper, when
    return told


def given_encoder(sharing: str, encoder: Any) -> Encoder:
    """The encoder, built where it is given as text."""
    if isinstance(encoder, str):
        return encoders.build(encoder)
    if isinstance(encoder, nn.Module) or is_a(encoder, "flax.nnx") or is_a(encoder, "equinox"):
        raise ValueError(f"{sharing}: encoder is the module {type(encoder).__name__}; mtl.encoders.from_module(module) "
                         "makes it an encoder")  # fmt: skip
    if not isinstance(encoder, Encoder):
        raise parts.no_such(f"{sharing}: encoder", encoder, ENCODER)
    return encoder


def given_tasks(sharing: str, tasks: Any) -> tuple[Task, ...]:
    """The tasks as a tuple."""
    if isinstance(tasks, Task):
        raise ValueError(f"{sharing}: tasks is one task, {tasks.name!r}; give a tuple, (task,)")
    if hasattr(tasks, "tasks") and not isinstance(tasks, type):
        raise ValueError(f"{sharing}: tasks is a {type(tasks).__name__}; give its tasks, as data.tasks")
    if isinstance(tasks, str | dict) or not hasattr(tasks, "__iter__"):
        raise parts.no_such(f"{sharing}: tasks", tasks, TASKS)
    tasks = tuple(tasks)
    for task in tasks:
        if not isinstance(task, Task):
            raise parts.no_such(f"{sharing}: an entry of tasks", task, TASKS)
    return tasks

"""Modules and leaves at places of the tree of variables, so that one walk through a network both starts and runs it.

A walk is a function of `at`: ``x = at(layers, path, x)`` runs modules with what lies under `path`, ``shared/heads`` or,
in the pass of one task, ``own/head`` for ``tasks/<t>/head``; ``at.leaf(path, make)`` is a parameter. `Starting` draws
what is there, `Running` uses it. ``at.each(function, *values)`` runs what is said for one task for every task: alike
tasks that lie stacked at once, by `vmap` over their leaves.

Statistics lie with the parameters, but for those of shared modules in a task's pass, which are the task's:
``state/tasks/<t>/shared/...``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import merge
from mtl_jax.sharing.encoder_copies import Layers


class Rows(NamedTuple):
    """What lies [task, ...] in the order of all tasks."""

    tree: Any


class Place:
    """Where a walk is: in what all tasks have in common, or in the pass of one task.

    Attributes:
      names: of all tasks.
      wanted: those that the walk is about.
      task: whose pass it is; None in what they have in common.
      batch: whose inputs are read.
    """

    def __init__(self, names: Sequence[str], wanted: Sequence[str], task: str | None, batch: Batch | None):
        self.names, self.wanted, self.task, self.batch = tuple(names), tuple(wanted), task, batch

    def path(self, path: str) -> str:
        """A path from the root."""
        return f"tasks/{self.task}{path.removeprefix('own')}" if path == "own" or path.startswith("own/") else path

    def state_path(self, path: str) -> str:
        """Where the state of what lies at `path` is."""
        path = self.path(path)
        return f"tasks/{self.task}/{path}" if self.task is not None and path.startswith("shared/") else path


def read_by(value: Any, name: str, place: Any) -> Any:
    """What a task reads of a value of `each`."""
    if isinstance(value, PerTask):
        return value[name]
    return jax.tree.map(lambda x: x[place], value.tree) if isinstance(value, Rows) else value


def per_task(found: dict[str, Any], made: Callable = PerTask) -> Any:
    """`PerTask` of {name: value}, or (`made`) another such; a tuple of them where the values are tuples."""
    several = [len(x) for x in found.values() if type(x) is tuple]
    return tuple(made({n: x[i] for n, x in found.items()}) for i in range(several[0])) if several else made(found)


def get(tree: Any, path: str) -> Any:
    """The branch of a nested dict at `path`; {} where there is none."""
    for part in path.split("/"):
        tree = tree.get(part, {})
    return tree


def put(tree: dict, path: str, new: Any) -> None:
    """Adds what is `new`, a leaf or entries, if any, at `path`."""
    if isinstance(new, dict) and not new:
        return
    *above, last = path.split("/")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = merge(tree.get(last, {}), new)


def split_stages(encoder: Encoder, shared_stages: int | None, sharing: str) -> tuple[Layers, Layers]:
    """(layers in common, layers that each task has a copy of); the pool goes with the last stage.

    Raises:
      ValueError: if `shared_stages` (None: all) does not lie between 1 and the number of stages.
    """
    count = len(encoder.stages)
    shared_stages = count if shared_stages is None else shared_stages
    if not 1 <= shared_stages <= count:
        raise ValueError(f"{sharing}: shared_stages={shared_stages} must lie in 1..{count}, the encoder's stages")
    own = base.layers(encoder, shared_stages) if shared_stages < count else []
    return base.layers(encoder, 0, shared_stages), own

"""Modules at places of the tree of variables, so that one walk through a network both initialises and applies it.

A walk is a function of `at`: ``x = at(named, path, x)`` runs the modules of `named` with what lies under `path`, such
as ``shared/heads`` or ``tasks/<t>/encoder``. `Starting` draws what is there, `Running` uses it.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Key

from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import Train
from mtl_jax.sharing.encoder_copies import Layers


class Starting:
    """Initialises modules where they are first met; a module's draws depend on its path alone.

    Args:
      key: of all draws.

    `variables` holds what was made so far. Set `reader` to a task where inputs are that task's own (`state_place`).
    """

    def __init__(self, key: Key[Array, ""]):
        self.key, self.reader = key, None
        self.variables: dict[str, Any] = {k: {"shared": {}, "tasks": {}} for k in ("params", "state")}

    def __call__(self, named: Layers, path: str, x: Any) -> Any:
        params, state, x = base.init_layers(named, self.key, x, path)
        put(self.variables["params"], path, params)
        put(self.variables["state"], state_place(path, self.reader), state)
        return x


class Running:
    """Applies modules with the variables that lie at their places; `changed` holds the state that changed."""

    def __init__(self, variables: Any, train: Train, key: Any, reader: str | None = None):
        self.variables, self.train, self.key, self.reader = variables, train, key, reader
        self.changed: dict[str, Any] = {}

    def __call__(self, named: Layers, path: str, x: Any) -> Any:
        place = state_place(path, self.reader)
        params, state = get(self.variables["params"], path), get(self.variables["state"], place)
        x, new = base.apply_layers(named, params, state, x, train=self.train, key=self.key, prefix=path)
        put(self.changed, place, new)
        return x


def state_place(path: str, reader: str | None) -> str:
    """Where the state of the modules at `path` is: there, or with the task `reader` whose own inputs they read."""
    return (
        path if reader is None or not path.startswith("shared/") else f"tasks/{reader}/{path.removeprefix('shared/')}"
    )


def runs_in_training(train: Train, path: str) -> bool:
    """Whether what lies at `path` runs as in training (see `MultiTaskModel`)."""
    return bool(train(path) if callable(train) else train)


def get(tree: Any, path: str) -> Any:
    """The branch of a nested dict at `path`; {} where there is none."""
    for part in path.split("/"):
        tree = tree.get(part, {})
    return tree


def put(tree: dict, path: str, new: dict) -> None:
    """Adds the entries of `new`, if any, to the branch at `path`."""
    if new:
        for part in path.split("/"):
            tree = tree.setdefault(part, {})
        tree.update(new)


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


def chosen(names: Sequence[str], tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that a call of `encode` is about."""
    return tuple(names if tasks is None else tasks)


def readers(batch: Batch, wanted: Sequence[str]) -> list[tuple[str | None, Any, Sequence[str]]]:
    """(whose own inputs these are, or None for inputs in common; the inputs; which tasks are wanted of them)."""
    if isinstance(batch.inputs, PerTask):
        return [(name, batch.inputs[name], (name,)) for name in wanted]
    return [(None, batch.inputs, wanted)]

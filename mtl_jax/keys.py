"""Random keys by name: what is drawn for a part depends on its name alone."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

OF_EACH = "{}"  # stands for a task's name in the name of a part that lies under none of the tasks


class TaskKey(NamedTuple):
    """A pass's key where one trace stands for several tasks: what is drawn under a task's name is that task's own.

    Attributes:
      key: of the pass.
      names: of the tasks; the first one's is what is traced.
      index: which of them it is, traced.
    """

    key: Key[Array, ""]
    names: tuple[str, ...]
    index: Int[Array, ""]  # type: ignore[assignment]  # a tuple's method goes by this name too

    def named(self, name: str) -> Key[Array, ""]:
        """The key by `name` with the task's own in place of the first task's."""
        if OF_EACH in name:
            return self.one_of([name.replace(OF_EACH, other) for other in self.names])
        prefix = f"tasks/{self.names[0]}/"
        if not name.startswith(prefix):
            return self.one_of((name,))
        return self.one_of([f"tasks/{other}/{name.removeprefix(prefix)}" for other in self.names])

    def one_of(self, names: Sequence[str]) -> Key[Array, ""]:
        """The key by the task's own of `names`, one per task or one for all."""
        folds = [zlib.crc32(n.encode()) for n in names]
        fold = folds[0] if len(folds) == 1 else jnp.asarray(np.asarray(folds, np.uint32))[self.index]
        return jax.random.fold_in(self.key, fold)


def named_key(key: Key[Array, ""] | TaskKey, name: str) -> Key[Array, ""]:
    """A key that depends on the name alone, so that adding or reordering parts changes no other part's draws."""
    return key.named(name) if isinstance(key, TaskKey) else jax.random.fold_in(key, zlib.crc32(name.encode()))


def task_key(key: Key[Array, ""] | TaskKey, task: str) -> Key[Array, ""] | TaskKey:
    """The key of a task's own pass, for a `named_key` of what is drawn there."""
    if not isinstance(key, TaskKey):
        return named_key(key, task)
    return key._replace(key=key.one_of(key.names if task == key.names[0] else (task,)))


def named_keys(key: Key[Array, ""] | TaskKey, names: Sequence[str]) -> Key[Array, " name"]:
    """The `named_key` of each name, in one program however many there are."""
    root = key.key if isinstance(key, TaskKey) else key
    return jax.vmap(jax.random.fold_in, (None, 0))(root, np.asarray([zlib.crc32(n.encode()) for n in names], np.uint32))

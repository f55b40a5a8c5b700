"""Checkpoints on Orbax: asynchronous and atomic saves, and loads that say what does not fit before they touch data.

Orbax is imported here only, and this module is imported where a checkpoint is written or read.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from mtl_jax import partition


class Checkpoints:
    """The checkpoints of one run, in ``directory/<step>``. An item is a pytree, stored as {path: array}."""

    def __init__(self, directory: str | pathlib.Path, keep: int = 2):
        self.directory = pathlib.Path(directory).resolve()
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(self.directory, preservation_policy=policy)
        self._pending = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        found = self._checkpointer.latest
        return None if found is None else int(found.step)

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Starts to save; an earlier save is waited for. A step that is already there is left as it is."""
        self.wait()
        if self.latest() == step:
            return
        flat = {name: {p: _bits(x) for p, x in partition.flatten(tree).items()} for name, tree in items.items()}
        self._pending = self._checkpointer.save_checkpointables_async(step, flat)

    def wait(self) -> None:
        """Returns when what was started is on disk."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def restore(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        """The items of a checkpoint, each with the structure, shapes, dtypes and shardings of its target.

        Args:
          step: which checkpoint.
          items: {name: target}; leaves are arrays or ShapeDtypeStructs.

        Raises:
          ValueError: listing missing, unexpected and reshaped paths, if the checkpoint does not fit.
        """
        stored = self._checkpointer.checkpointables_metadata(step).metadata
        wanted = {n: {p: _abstract(x) for p, x in partition.flatten(tree).items()} for n, tree in items.items()}
        for name, target in wanted.items():
            check_fit(f"{self.directory.parent} (step {step}, item {name!r})", stored.get(name) or {}, target)
        loaded = self._checkpointer.load_checkpointables(step, wanted)
        return {name: _like(loaded[name], tree) for name, tree in items.items()}

    def restore_part(self, step: int, item: str, target: Any) -> Any:
        """Like `restore` for one item, of which `target` is only a part: what it does not name is not read."""
        wanted = {p: _abstract(x) for p, x in partition.flatten(target).items()}
        stored = self._checkpointer.checkpointables_metadata(step).metadata.get(item) or {}
        named = {p: stored[p] for p in wanted if p in stored}
        check_fit(f"{self.directory.parent} (step {step}, item {item!r})", named, wanted)
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            loaded = self._checkpointer.load_checkpointables(step, {item: wanted})
        return _like(loaded[item], target)

    def shapes(self, step: int, item: str) -> dict[str, tuple[int, ...]]:
        """{path: shape} of one item on disk."""
        stored = self._checkpointer.checkpointables_metadata(step).metadata
        return {p: tuple(m.shape) for p, m in (stored.get(item) or {}).items()}

    def close(self) -> None:
        """Waits for what is under way and lets go of the directory."""
        self.wait()
        self._checkpointer.close()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(leaf: Any) -> Any:
    """A typed random key as the integers that it is stored as."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.eval_shape(_bits, leaf)
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _like(loaded: dict[str, Any], target: Any) -> Any:
    """What was loaded, in the structure of `target`, with its keys typed again."""

    def typed(key_path: tuple, leaf: Any) -> Any:
        found = loaded[partition.path_name(key_path)]
        return jax.random.wrap_key_data(found, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else found

    return jax.tree.map_with_path(typed, target)


def check_fit(where: str, stored: dict[str, Any], target: dict[str, Any]) -> None:
    """An error that lists every path that is missing in the checkpoint, unexpected in it, or of another shape."""
    missing = [p for p in target if p not in stored]
    unexpected = [p for p in stored if p not in target]
    reshaped = [
        f"{p} {tuple(stored[p].shape)} -> {tuple(np.shape(x))}"
        for p, x in target.items()
        if p in stored and tuple(stored[p].shape) != tuple(np.shape(x))
    ]
    found = {"missing": missing, "unexpected": unexpected, "reshaped": reshaped}
    lines = [f"  {kind} {', '.join(paths)}" for kind, paths in found.items() if paths]
    if lines:
        raise ValueError(f"checkpoint {where} does not fit the model:\n" + ";\n".join(lines))

"""Checkpoints on Orbax: asynchronous and atomic saves, and loads that say what does not fit before they touch data.

Orbax is imported here only, and this module is imported where a checkpoint is written or read.
"""

import concurrent.futures
import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from mtl_jax import integrity, partition
from mtl_jax.earlier_paths import Moved
from mtl_jax.integrity import DamagedCheckpoint

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run, in ``directory/<step>``. An item is a pytree, stored as {path: array}.

    Nothing is written, and no folder made, before the first `save`.
    """

    def __init__(self, directory: str | pathlib.Path, keep: int = 2):
        self.directory, self._keep = pathlib.Path(directory).resolve(), keep
        self._checkpointer: Any = None
        self._finishing = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: Any = None
        self._vouched: dict[int, bool] = {}  # by step, for those that were checked

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps whose save was completed, in ascending order; their files may have been damaged since."""
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal() and p.is_dir())

    def latest(self) -> int | None:
        """The newest of `steps`; None if there is none."""
        return max(self.steps(), default=None)

    def newest(self, load: Callable[[int], T]) -> tuple[int, T] | None:
        """(step, `load` of it) of the newest checkpoint that is whole; None if there is no checkpoint at all.

        A damaged one is passed over with a warning that names it.

        Raises:
          DamagedCheckpoint: if all are damaged.
          ValueError: if it does not fit (`restore`).
        """
        bad: list[DamagedCheckpoint] = []
        for step in reversed(steps := self.steps()):
            try:
                loaded = load(step)
            except DamagedCheckpoint as error:
                if not (self.directory / str(step)).exists():  # a fit went on meanwhile, and dropped it
                    return self.newest(load)
                bad.append(error)
                continue
            for error in bad:
                warnings.warn(f"{error}; step {step} is taken in its place", stacklevel=3)
            return step, loaded
        if bad:
            others = f" (so are {', '.join(map(str, reversed(steps[:-1])))})" if steps[1:] else ""
            raise DamagedCheckpoint(f"{bad[0]}{others}; bring it back from a copy, or train anew in another folder")
        return None

    def set_aside(self, after: int) -> None:
        """Renames the damaged checkpoints of later steps, ``<step>.damaged``, as a run goes on from one before them."""
        for step in self.steps():
            if step > after:
                folder, name = self.directory / str(step), f"{step}.damaged"
                while (self.directory / name).exists():
                    name += ".damaged"
                folder.rename(self.directory / name)

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Starts to save; an earlier save is waited for. A step that is already there is left as it is.

        Raises:
          OSError: naming the checkpoint, if it, or the one before, could not be written.
        """
        self.wait()
        if self.latest() == step:
            return
        flat = {name: {p: _bits(x) for p, x in partition.flatten(tree).items()} for name, tree in items.items()}
        with self._writing(step):
            if self._checkpointer is None:
                policy = ocp.training.preservation_policies.LatestN(self._keep)
                self._checkpointer = ocp.training.Checkpointer(self.directory, preservation_policy=policy)
            saving = self._checkpointer.save_checkpointables_async(step, flat)
        self._pending = self._finishing.submit(self._finish, step, saving)

    def _finish(self, step: int, saving: Any) -> None:
        """Waits, beside the loop, until a checkpoint is whole, and notes what was written."""
        with self._writing(step):
            if saving is None or not saving.result():
                raise OSError("it was skipped")
            if jax.process_index() == 0:
                integrity.write_digests(self.directory / str(step))

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            where = f"checkpoint step {step} could not be written in {self.directory}"
            raise OSError(f"{where}: {integrity.first_line(error)}") from error

    def wait(self) -> None:
        """Returns when what was started is on disk."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def restore(self, step: int, items: dict[str, Any], tasks: Sequence[str] = (), axis: int = 0) -> dict[str, Any]:
        """The items of a checkpoint, each with the structure, shapes, dtypes and shardings of its target.

        Args:
          step: which checkpoint.
          items: {name: target}; leaves are arrays or ShapeDtypeStructs.
          tasks, axis: their names in order, and where they are in what is stacked, so that what lay elsewhere is
            found (`earlier_paths`).

        Raises:
          DamagedCheckpoint: if its files are not those that were written.
          ValueError: listing missing, unexpected and reshaped paths, if the checkpoint does not fit.
        """
        wanted = {n: {p: _abstract(x) for p, x in partition.flatten(tree).items()} for n, tree in items.items()}
        moved = {name: Moved(self._stored(step, name), target, tasks, axis) for name, target in wanted.items()}
        for name, target in wanted.items():
            check_fit(f"{self.directory.parent} (step {step}, item {name!r})", moved[name].today, target)
        loaded = self._load(step, {name: moved[name].stored() for name in items})
        return {name: _like(moved[name].made(loaded[name]), tree) for name, tree in items.items()}

    def restore_part(self, step: int, item: str, target: Any, tasks: Sequence[str] = ()) -> Any:
        """Like `restore` for one item, of which `target` is only a part: what it does not name is not read."""
        wanted = {p: _abstract(x) for p, x in partition.flatten(target).items()}
        moved = Moved(self._stored(step, item), wanted, tasks, 0)
        named = {p: moved.today[p] for p in wanted if p in moved.today}
        check_fit(f"{self.directory.parent} (step {step}, item {item!r})", named, wanted)
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            loaded = self._load(step, {item: moved.stored()})
        return _like(moved.made(loaded[item]), target)

    def shapes(self, step: int, item: str) -> dict[str, tuple[int, ...]]:
        """{path: shape} of one item on disk."""
        return {p: tuple(m.shape) for p, m in self._stored(step, item).items()}

    def metadata(self, step: int, item: str) -> dict[str, Any]:
        """{path: what has its shape and dtype} of one item on disk."""
        return self._stored(step, item)

    def _stored(self, step: int, item: str) -> dict[str, Any]:
        """{path: metadata} of one item on disk; empty if the checkpoint was written without it."""
        folder = self._checked(step)
        if item not in integrity.items(folder):
            return {}
        with _reading(folder, self._vouched[step]):
            stored = ocp.checkpointables_metadata(folder).metadata.get(item)
        if not stored:  # Orbax leaves out what it cannot read
            raise integrity.damaged(folder, f"item {item!r} cannot be read")
        return stored

    def _load(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        folder = self._checked(step)
        with _reading(folder, self._vouched[step]):
            return ocp.load_checkpointables(folder, wanted)

    def _checked(self, step: int) -> pathlib.Path:
        """The folder of a checkpoint, whose files are compared with their digests once."""
        folder = self.directory / str(step)
        if step not in self._vouched:
            self._vouched[step] = integrity.check(folder)
        return folder

    def close(self) -> None:
        """Waits for what is under way and lets go of the directory."""
        try:
            self.wait()
        finally:
            self._finishing.shutdown()
            if self._checkpointer is not None:
                self._checkpointer.close()


@contextlib.contextmanager
def _reading(folder: pathlib.Path, vouched: bool) -> Iterator[None]:
    """What Orbax cannot read is damaged, unless digests vouch for it: then the fault is another one."""
    try:
        yield
    except Exception as error:
        if vouched:
            raise
        raise integrity.damaged(
            folder, f"it cannot be read: {integrity.first_line(error.__cause__ or error)}"
        ) from error


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

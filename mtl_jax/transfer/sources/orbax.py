"""Orbax checkpoints: those of our runs, compared with their digests, and other people's."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import integrity, partition
from mtl_jax.training import description
from mtl_jax.transfer.sources.base import Source

MARKS = ("_CHECKPOINT_METADATA", "_METADATA", "orbax.checkpoint")
OURS = ("best", "train")


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder is one checkpoint (and not one that holds several, by step)."""
    return any((folder / mark).exists() for mark in MARKS)


def open_checkpoints(folder: pathlib.Path) -> Source:
    """Of a run's folder or one of several checkpoints by step, the newest that is whole.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: for a damaged one, or several runs side by side.
    """
    from mtl_jax.checkpoint import Checkpoints

    where = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    with Checkpoints(where) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise FileNotFoundError(f"{where} holds no complete checkpoint")
        if not is_ours(where / str(steps[-1])):
            return open_checkpoint(where / str(steps[-1]))
        newest = checkpoints.newest(lambda step: _of_run(checkpoints, step))
    assert newest is not None
    return newest[1]


def open_one(folder: pathlib.Path) -> Source:
    """One checkpoint, of a run of ours or of another program."""
    from mtl_jax.checkpoint import Checkpoints

    if folder.name.isdecimal() and is_ours(folder):
        with Checkpoints(folder.parent) as checkpoints:
            return _of_run(checkpoints, int(folder.name))
    return open_checkpoint(folder)


def is_ours(folder: pathlib.Path) -> bool:
    """Whether a checkpoint has what `fit` or `Run.save` writes."""
    return (folder / "_CHECKPOINT_METADATA").exists() and bool(set(OURS) & set(integrity.items(folder)))


def _of_run(checkpoints: Any, step: int) -> Source:
    """A checkpoint that `fit` or `Run.save` wrote: the paths of parameters and of statistics, in one grammar."""
    from mtl_jax.checkpoint import Checkpoints

    where = checkpoints.directory
    folder = where.parent if where.name == "checkpoints" else where
    tasks = description.read_description(folder)["tasks"] if (folder / "data.json").exists() else ()
    item = next(i for i in OURS if checkpoints.shapes(step, i))
    shapes = checkpoints.shapes(step, item)
    if shapes.get("stale"):
        raise ValueError(f"{folder} holds {shapes['stale'][0]} runs side by side; save one with Run.member")
    if "steps" in shapes:  # of the best so far; where nothing was chosen yet, what trains is meant
        steps = checkpoints.restore_part(step, item, {"steps": np.zeros(shapes["steps"], np.int32)})["steps"]
        item = item if (np.asarray(steps) > 0).any() else "train"
    found, stored = split_paths(checkpoints.metadata(step, item))

    def read(paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        with Checkpoints(where) as again:
            values = again.restore_part(step, item, {stored[p]: found[p] for p in paths})
        yield from ((p, np.asarray(values[stored[p]])) for p in paths)

    return Source(f"{folder} (step {step})", found, read, tasks)


def split_paths(stored: dict[str, Any]) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, str]]:
    """({path: shape} of "params/..." and "state/..." without these, {path: as stored}); a path of both keeps it."""
    parts = {p: p.split("/", 1) for p in stored if p.split("/", 1)[0] in ("params", "state") and "/" in p}
    rests = [rest for _, rest in parts.values()]
    paths = {p if rests.count(rest) > 1 else rest: p for p, (_, rest) in parts.items()}
    return {n: jax.ShapeDtypeStruct(tuple(stored[p].shape), stored[p].dtype) for n, p in paths.items()}, paths


def open_checkpoint(folder: pathlib.Path) -> Source:
    """A checkpoint of another program: its tree's paths, with the item's name in front where there are several items.

    Raises:
      ValueError: naming the folder, if Orbax cannot read it.
    """
    from orbax.checkpoint import v1 as ocp

    with _reading(folder):
        if (folder / "_METADATA").exists():
            trees = {"": ocp.metadata(folder).metadata}
        else:
            trees = {k: v for k, v in ocp.checkpointables_metadata(folder).metadata.items() if v is not None}
    several = len(trees) > 1
    leaves = {
        (f"{item}/{p}" if several else p): leaf
        for item, tree in trees.items()
        for p, leaf in partition.flatten(tree).items()
        if hasattr(leaf, "shape") and leaf.shape is not None
    }
    found = {p: jax.ShapeDtypeStruct(tuple(x.shape), x.dtype) for p, x in leaves.items()}

    def read(paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        wanted = set(paths)
        targets = {i: _part(t, f"{i}/" if several else "", wanted) for i, t in trees.items()}
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with _reading(folder), context:
            if "" in trees:
                values = {"": ocp.load(folder, targets[""])}
            else:
                values = ocp.load_checkpointables(folder, {i: t for i, t in targets.items() if t is not None})
        for item, tree in values.items():
            for p, leaf in partition.flatten(tree).items():
                name = f"{item}/{p}" if several else p
                if name in wanted:
                    yield name, np.asarray(leaf)

    return Source(str(folder), found, read)


def _part(tree: Any, prefix: str, wanted: set[str]) -> Any:
    """The entries of nested dicts that hold what is wanted, as arrays to load into; None if there are none.

    A list or tuple is taken whole, since Orbax does not load a part of one.
    """
    if isinstance(tree, dict):
        parts = {k: _part(v, f"{prefix}{k}/", wanted) for k, v in tree.items()}
        parts = {k: v for k, v in parts.items() if v is not None}
        return parts or None
    names = [prefix.removesuffix("/") if not p else prefix + p for p in partition.flatten(tree)]
    if not wanted & set(names):
        return None
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = integrity.first_line(error.__cause__ or error)
        raise ValueError(f"checkpoint {folder} cannot be read: {text}") from error

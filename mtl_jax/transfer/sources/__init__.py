"""Where parameters come from: a workdir or saved run of ours, an Orbax checkpoint, safetensors, npz, or memory."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mtl_jax import partition, parts, paths
from mtl_jax.training.run import Run
from mtl_jax.transfer.sources.base import Source, of_arrays, renamed
from mtl_jax.transfer.sources.npz import open_npz
from mtl_jax.transfer.sources.safetensors import INDEX, open_safetensors

TAKEN = "a folder of a run, an Orbax checkpoint, *.safetensors, *.safetensors.index.json, *.npz, a Run or {path: array}"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".th", ".pkl", ".h5", ".hdf5", ".keras")
CONVERT = "scripts/convert_weights.py turns it into safetensors"


def open_source(source: Any) -> Source:
    """The source that `source` names; of files, only what they hold is read yet, and no values.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: for what is none of these, or is damaged, naming it.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Run):
        if source.members:
            raise ValueError(f"this run has {source.members} members; load from one, run.member(i)")
        arrays = of_variables(source.variables, "the run")
        return of_arrays(f"a run of {source.data or 'data of its own'}", arrays, tuple(source.tasks))
    if isinstance(source, Mapping):
        return of_arrays("the given arrays", of_variables(source, "the given arrays"))
    if not isinstance(source, str | os.PathLike):
        raise parts.no_such("the source of parameters", source, TAKEN)
    path = paths.local(source, "the source of parameters")
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}, to load parameters from")
    return open_folder(path) if path.is_dir() else open_file(path)


def of_variables(tree: Any, where: str) -> dict[str, Any]:
    """{path: array} of parameters, or of {"params", "state"} in one grammar.

    Raises:
      ValueError: if a parameter and a statistic have the same path, or a leaf is no array.
    """
    branches = [tree[k] for k in ("params", "state")] if is_variables(tree) else [tree]
    found: dict[str, Any] = {}
    for branch in branches:
        for path, leaf in partition.flatten(branch).items():
            if not hasattr(leaf, "dtype"):
                raise ValueError(f"{where}: {path!r} is a {type(leaf).__name__}; it must be an array")
            if path in found:
                raise ValueError(f"{where}: {path!r} is a parameter and a statistic; load each of the two by itself")
            found[path] = leaf
    return found


def is_variables(tree: Any) -> bool:
    """Whether a tree is a model's ``{"params", "state"}``."""
    return isinstance(tree, Mapping) and set(tree) == {"params", "state"}


def split_by_kind(values: Mapping[str, Any], variables: Any) -> dict[str, dict[str, Any]]:
    """{"params", "state": {path: array}} of paths in one grammar, as `Adapted` holds them."""
    return {kind: {p: values[p] for p in partition.flatten(variables[kind]) if p in values} for kind in variables}


def open_file(path: pathlib.Path) -> Source:
    """The source of a file, by its name's ending."""
    if path.name.endswith((".safetensors", INDEX)):
        return open_safetensors(path)
    if path.suffix == ".npz":
        return open_npz(path)
    if path.suffix in PICKLED:
        raise ValueError(f"{path} is in a format that is not read here, since it may run code; {CONVERT}")
    raise ValueError(f"{path} is no file that parameters can be read from; it must be {TAKEN}")


def open_folder(path: pathlib.Path) -> Source:
    """The source of a folder: of a run, a checkpoint, or the one model in safetensors that lies in it."""
    from mtl_jax.transfer.sources import orbax

    if (path / "data.json").exists() or (path / "checkpoints").is_dir():
        return orbax.open_checkpoints(path)
    if orbax.is_checkpoint(path):
        return orbax.open_one(path)
    found = model_files(path)
    if len(found) == 1:
        return open_file(found[0])
    if found:
        raise ValueError(f"{path} holds several models: {', '.join(p.name for p in found)}; name one")
    if any(p.name.isdecimal() and orbax.is_checkpoint(p) for p in path.iterdir()):
        return orbax.open_checkpoints(path)
    pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise ValueError(f"{path} holds {pickled[0]}, a format that is not read here, since it may run code; {CONVERT}")
    raise FileNotFoundError(f"{path} holds nothing to load parameters from; it must be {TAKEN}")


def model_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The models in a folder: an index stands for the files that it names, else each file is one."""
    index = sorted(path.glob(f"*{INDEX}"))
    return index or sorted([*path.glob("*.safetensors"), *path.glob("*.npz")])


__all__ = [
    "PICKLED",
    "Source",
    "is_variables",
    "model_files",
    "of_arrays",
    "of_variables",
    "open_source",
    "renamed",
    "split_by_kind",
]

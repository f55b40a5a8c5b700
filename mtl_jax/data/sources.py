"""Where data sets lie that are not part of the project, and which of their tasks are asked for."""

import os
import pathlib
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.paths import local


def find(relative: str, data_dir: str | pathlib.Path | None, name: str, source: str) -> pathlib.Path:
    """The path of a data set's file under `data_dir`, by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError: saying what is missing, how to name the directory and where to get the file.
    """
    root = data_dir or os.environ.get("MTL_JAX_DATA")
    how = "give data_dir (--config.data_dir=DIR) or set MTL_JAX_DATA"
    if not root:
        raise FileNotFoundError(f"data set {name!r} needs DIR/{relative}; {how}. It comes from {source}")
    path = local(root, "data_dir") / relative
    if not path.is_file():
        raise FileNotFoundError(f"data set {name!r}: there is no {path}; {how}. It comes from {source}")
    return path


def read_mat(path: pathlib.Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """The numeric arrays of a MATLAB file (version 5) that `shapes` names, as float64; None stands for any length.

    Raises:
      ValueError: naming the file, if it is damaged, or an array is not there, of another shape, or not of numbers.
    """
    from scipy import io

    try:
        content = io.loadmat(path, variable_names=list(shapes))
    # What SciPy raises where bytes are missing or others than were written.
    except (ValueError, TypeError, KeyError, OSError, EOFError, NotImplementedError, zlib.error, MemoryError) as error:
        raise ValueError(f"{path} is truncated, damaged or no MATLAB file: {error}") from error
    found = {}
    for name, shape in shapes.items():
        array = content.get(name)
        if array is None:
            raise ValueError(f"{path} holds no array {name!r}")
        fits = zip(shape, array.shape, strict=False)
        if array.dtype.kind not in "fiu" or array.ndim != len(shape) or any(n not in (None, m) for n, m in fits):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{path}: {name!r} is {array.dtype} {array.shape}; it must be numbers ({wanted})")
        found[name] = array.astype(np.float64)
    return found


def chosen_tasks(data_set: str, given: str | Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The names of tasks that a caller asked for, one or several.

    Raises:
      ValueError: for one that the data set lacks.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in known:
            raise parts.unknown(f"task of data set {data_set!r}", name, known)
    return names

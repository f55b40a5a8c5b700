"""npz archives of NumPy: what an array's header says is compared with its length first, and nothing is unpickled."""

import math
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from mtl_jax.transfer.sources.base import Source

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError)


def open_npz(path: pathlib.Path) -> Source:
    """The source of an archive.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: naming file and array, if it is no archive, is cut, holds Python objects, or says other sizes than it
        has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {i.filename.removesuffix(".npy"): _header(archive, i) for i in archive.infolist()}
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        raise ValueError(f"{path} is cut, damaged or no npz archive: {error}") from error

    def read(paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        with zipfile.ZipFile(path) as archive:
            for name in paths:
                try:
                    with archive.open(f"{name}.npy") as file:
                        array = np.lib.format.read_array(file, allow_pickle=False)
                        file.read()  # to the end, where the checksum is compared
                except DAMAGED as error:
                    raise ValueError(f"{path}: array {name!r} is damaged: {error}") from error
                yield name, array

    return Source(str(path), found, read)


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> jax.ShapeDtypeStruct:
    name = info.filename.removesuffix(".npy")
    if name == info.filename:
        raise ValueError(f"{info.filename!r} is no array")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        before = file.tell()
    if dtype.hasobject or dtype.kind not in "fiubV":
        raise ValueError(f"array {name!r} holds {dtype}, no numbers")
    if before + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"array {name!r} is to be {dtype} {shape}, which is not the length that it has")
    return jax.ShapeDtypeStruct(shape, dtype)

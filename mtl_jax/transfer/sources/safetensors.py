"""safetensors files: 8 bytes with the header's length, a JSON header, then the values, which are read by offset.

Read here and not by the package of that name, since what a header says is compared with the file before anything is
allocated, and an error names file and tensor. Format: https://github.com/huggingface/safetensors
"""

import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from mtl_jax import files
from mtl_jax.transfer.sources.base import Source

LONGEST_HEADER = 100_000_000  # bytes, as in the format's reference implementation
LARGEST = 2**44
INDEX = ".safetensors.index.json"
DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16,
    "U8": np.uint8, "BOOL": np.bool_, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip


class Tensor(NamedTuple):
    """Where a tensor's values lie in its file, and what they are."""

    file: pathlib.Path
    start: int
    length: int
    what: jax.ShapeDtypeStruct


def read_header(path: pathlib.Path) -> dict[str, Tensor]:
    """{name: tensor} of one file, in the order of its values.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: naming file and tensor, if the file is cut, or its header is no header, names a dtype that is not
        known, or disagrees with itself or with the file's length.
    """
    with files.open_regular(path, LARGEST) as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise ValueError(f"{path} is no safetensors file: it is {size} bytes long")
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise ValueError(f"{path} is cut, or no safetensors file: its header is to be {length:,} bytes long, and "
                             f"{size - 8:,} follow")  # fmt: skip
        text = file.read(length)
    header = _parsed(path, text)
    header.pop("__metadata__", None)
    data = 8 + length
    found = {name: _tensor(path, name, entry, data, size) for name, entry in header.items()}
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].length)))
    end, before = data, "the header"
    for name, tensor in ordered.items():
        if tensor.start < end:
            raise ValueError(f"{path} is damaged: tensor {name!r} overlaps {before!r} by {end - tensor.start:,} bytes")
        if tensor.start > end:
            raise ValueError(f"{path} is damaged: {tensor.start - end:,} bytes before tensor {name!r} are of no tensor")
        end, before = tensor.start + tensor.length, name
    if end != size:
        raise ValueError(f"{path} is damaged: {size - end:,} bytes at its end are of no tensor")
    return ordered


def _parsed(path: pathlib.Path, text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            names = [k for k, _ in pairs]
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(f"{twice!r} is there twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: its header is no valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is damaged: its header is a {type(header).__name__} in place of an object")
    return header


def _tensor(path: pathlib.Path, name: str, entry: Any, data: int, size: int) -> Tensor:
    """One entry of a header, whose values begin at byte `data` of a file of `size` bytes."""
    where = f"{path}: tensor {name!r}"
    files.check_fields(entry, {"dtype": str, "shape": list, "data_offsets": list}, where)
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{where} has the dtype {entry['dtype']!r}, which is not known; {', '.join(DTYPES)} are")
    whole = [*entry["shape"], *entry["data_offsets"]]
    if len(entry["data_offsets"]) != 2 or any(type(n) is not int or n < 0 or n > LARGEST for n in whole):
        raise ValueError(f"{where} is damaged: shape {entry['shape']}, offsets {entry['data_offsets']}")
    start, end = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    wanted = math.prod(entry["shape"]) * dtype.itemsize
    if end - start != wanted:
        raise ValueError(f"{where} is damaged: {entry['dtype']} {tuple(entry['shape'])} is {wanted:,} bytes, and its "
                         f"offsets {start:,}..{end:,} are {end - start:,}")  # fmt: skip
    if data + end > size:
        raise ValueError(f"{where} ends at byte {data + end:,}, and the file at {size:,}: it is cut")
    return Tensor(path, data + start, end - start, jax.ShapeDtypeStruct(tuple(entry["shape"]), dtype))


def read_index(path: pathlib.Path) -> dict[str, Tensor]:
    """{name: tensor} of a file ``*.safetensors.index.json``, which says in which of several files each one lies."""
    content = files.read_object(path, {"weight_map": dict})
    headers: dict[str, dict[str, Tensor]] = {}
    found = {}
    for name, file in content["weight_map"].items():
        if not isinstance(file, str) or pathlib.PurePath(file).name != file or file in ("", ".", ".."):
            raise ValueError(f"{path}: tensor {name!r} is to lie in {file!r}; it must be a file of the same folder")
        if file not in headers:
            if not (path.parent / file).exists():
                raise FileNotFoundError(f"{path}: there is no {path.parent / file}, in which {name!r} is to lie")
            headers[file] = read_header(path.parent / file)
        if name not in headers[file]:
            raise ValueError(f"{path}: there is no tensor {name!r} in {file}")
        found[name] = headers[file][name]
    return found


def open_safetensors(path: pathlib.Path) -> Source:
    """The source of a file, or of the several that an index names."""
    tensors = read_index(path) if path.name.endswith(INDEX) else read_header(path)

    def read(paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        for name in sorted(paths, key=lambda p: (str(tensors[p].file), tensors[p].start)):
            yield name, read_tensor(name, tensors[name])

    return Source(str(path), {n: t.what for n, t in tensors.items()}, read)


def read_tensor(name: str, tensor: Tensor) -> np.ndarray:
    """The values of one tensor."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        raw = file.read(tensor.length)
    if len(raw) != tensor.length:
        raise ValueError(f"{tensor.file}: tensor {name!r} is cut; the file was changed while it was read")
    return np.frombuffer(raw, tensor.what.dtype).reshape(tensor.what.shape)

"""Weights of PyTorch (.pth, .pt, .bin, .th) and Keras (.h5) as safetensors or npz, which are safe to read.

    python scripts/convert_weights.py resnet50.pth resnet50.safetensors
    python scripts/convert_weights.py vgg16_weights_tf_dim_ordering_tf_kernels.h5 vgg16.npz

Nothing is downloaded. PyTorch's files are unpickled by torch with weights_only=True, which builds tensors and plain
containers alone; torch is needed here and nowhere else. Keras' files need h5py. From within Keras no script is needed:
    np.savez("model.npz", **{w.path: w.numpy() for w in model.weights})

Names stay as they are, but for a wrapper's "state_dict" or "model" around them, and ":0" behind names of Keras. Where
several entries are one tensor (tied weights), each gets a copy. Dtypes stay, too. Numbers that are not finite are
written as they are, and their arrays named. A file that is there is never written over, and one that was begun and not
finished is not left.
"""

import argparse
import collections
import os
import pathlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
PICKLED = (".pth", ".pt", ".bin", ".th", ".ckpt")
HDF5 = (".h5", ".hdf5")
INSTALL = "needs {0}: pip install {0}"


def read_torch(path: pathlib.Path) -> dict[str, Any]:
    """{name: tensor} of a file that torch.save wrote."""
    try:
        import torch
    except ImportError:
        raise SystemExit(f"{path} {INSTALL.format('torch')}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises has many types
        text = str(error).splitlines()[0].split(". ")[0]
        raise SystemExit(
            f"{path} cannot be read as weights alone: {text}\nIf it holds a whole model, save "
            "model.state_dict() where its code is, and convert that; it is not unpickled here, since that may run code"
        ) from None
    while isinstance(content, Mapping):
        inner = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        print(f"taking {inner!r} of {', '.join(map(str, content))}")
        content = content[inner]
    if not isinstance(content, Mapping):
        raise SystemExit(f"{path} holds a {type(content).__name__} in place of tensors by name")
    left = [n for n, x in content.items() if not isinstance(x, torch.Tensor)]
    if left and len(left) == len(content):
        raise SystemExit(f"{path} holds no tensors by name; its entries are {', '.join(map(str, content))}")
    if left:
        print(f"left out, since they are no tensors: {', '.join(map(str, left))}")
    found: dict[str, Any] = {}
    for n, x in content.items():
        if not isinstance(x, torch.Tensor):
            continue
        if x.layout != torch.strided or x.is_quantized:
            raise SystemExit(f"{path}: {n} is a sparse or quantized tensor; make it dense (x.to_dense(), "
                             "x.dequantize()) where its code is")  # fmt: skip
        if str(n) in found:
            raise SystemExit(f"{path} has two tensors with the name {str(n)!r}")
        found[str(n)] = x.detach().contiguous()
    return found


def read_keras(path: pathlib.Path) -> dict[str, np.ndarray]:
    """{layer/array: array} of a file of Keras with a group per layer, as Keras Applications has them."""
    try:
        import h5py
    except ImportError:
        raise SystemExit(f"{path} {INSTALL.format('h5py')}") from None
    found = {}
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            if "layer_names" not in root.attrs:
                raise SystemExit(f"{path} does not name its layers (Keras 3 numbers them); from within Keras, "
                                 "np.savez('model.npz', **{w.path: w.numpy() for w in model.weights})")  # fmt: skip
            for layer in map(_text, root.attrs["layer_names"]):
                for name in map(_text, root[layer].attrs["weight_names"]):
                    short = f"{layer}/{name.split(':')[0].split('/')[-1]}"
                    if short in found:
                        raise SystemExit(f"{path}: layer {layer!r} has two arrays {short.split('/')[-1]!r}")
                    found[short] = np.asarray(root[layer][name])
    except (OSError, KeyError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from None
    return found


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def write(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Arrays, or tensors, as safetensors or npz: the file is there once all of it is."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        (write_npz if path.suffix == ".npz" else write_safetensors)(draft, path, arrays)
        os.replace(draft, path)
    except OSError as error:
        raise SystemExit(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


def write_npz(draft: pathlib.Path, path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """As `np.savez` does, without pickles, and for any names."""
    with zipfile.ZipFile(draft, "w") as file:
        for name, x in arrays.items():
            try:
                array = np.ascontiguousarray(x.numpy() if hasattr(x, "detach") else x).reshape(x.shape)
            except TypeError as error:
                raise SystemExit(f"{path}: NumPy has no such dtype ({name}: {error}); write .safetensors") from None
            if array.dtype.hasobject:
                raise SystemExit(f"{path}: {name} holds objects, no numbers")
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def write_safetensors(draft: pathlib.Path, path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """By the package of that name."""
    tensors = any(hasattr(x, "detach") for x in arrays.values())
    try:
        if tensors:
            from safetensors.torch import save_file
        else:
            from safetensors.numpy import save_file
    except ImportError:
        raise SystemExit(f"{path} {INSTALL.format('safetensors')}") from None
    if not tensors and (objects := [n for n, x in arrays.items() if x.dtype.kind not in "fiub"]):
        raise SystemExit(f"{path}: {objects[0]} is of dtype {arrays[objects[0]].dtype}, which safetensors has not")
    # Several names may share one tensor's memory.
    save_file({n: x.clone() if tensors else np.ascontiguousarray(x).reshape(x.shape) for n, x in arrays.items()}, draft)


def not_finite(arrays: dict[str, Any]) -> list[str]:
    """Arrays that hold nan or infinity: their names, and how many of how many numbers."""
    found = []
    for name, x in arrays.items():
        if hasattr(x, "detach"):
            count = int((~x.float().isfinite()).sum()) if x.is_floating_point() else 0
        else:
            count = int((~np.isfinite(x)).sum()) if x.dtype.kind == "f" else 0
        if count:
            found.append(f"{name} ({count:,} of {int(np.prod(x.shape)):,})")
    return found


def summary(arrays: dict[str, Any]) -> str:
    """How many arrays and numbers there are, by dtype."""
    kinds = collections.Counter(str(x.dtype).removeprefix("torch.") for x in arrays.values())
    size = sum(int(np.prod(x.shape)) for x in arrays.values())
    return f"{len(arrays)} arrays ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}), {size:,} numbers"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help=".pth, .pt, .bin, .th, .ckpt, .h5 or .hdf5")
    parser.add_argument("target", type=pathlib.Path, help=".safetensors or .npz, which must not be there yet")
    given = parser.parse_args(arguments)
    if not given.source.is_file():
        raise SystemExit(f"there is no file {given.source}")
    if given.target.suffix not in (".safetensors", ".npz"):
        raise SystemExit(f"{given.target} must end in .safetensors or .npz")
    if given.target.exists():
        raise SystemExit(f"{given.target} is there already")
    if not given.target.parent.is_dir():
        raise SystemExit(f"there is no folder {given.target.parent} for {given.target.name}")
    kind = given.source.suffix.lower()
    if kind in PICKLED:
        arrays = read_torch(given.source)
    elif kind in HDF5:
        arrays = read_keras(given.source)
    else:
        raise SystemExit(f"{given.source} is of no known format; {', '.join(PICKLED + HDF5)} are")
    if not arrays:
        raise SystemExit(f"{given.source} holds no weights")
    if bad := not_finite(arrays):
        shown = ", ".join(bad[:5]) + (f", and {len(bad) - 5} more" if len(bad) > 5 else "")
        print(f"warning: nan or infinity, written as they are: {shown}", file=sys.stderr)
    write(given.target, arrays)
    print(f"{given.target}: {summary(arrays)}, {given.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())

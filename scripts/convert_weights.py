"""Weights of PyTorch (.pth, .pt, .bin, .th) and Keras (.h5) as safetensors or npz, which are safe to read.

    python scripts/convert_weights.py resnet50.pth resnet50.safetensors
    python scripts/convert_weights.py vgg16_weights_tf_dim_ordering_tf_kernels.h5 vgg16.npz

Nothing is downloaded. PyTorch's files are unpickled by torch with weights_only=True, which builds tensors and plain
containers alone; torch is needed here and nowhere else. Keras' files need h5py. From within Keras no script is needed:
    np.savez("model.npz", **{w.path: w.numpy() for w in model.weights})

Names stay as they are, but for a wrapper's "state_dict" or "model" around them, and ":0" behind names of Keras. Where
several entries are one tensor (tied weights), each gets a copy. Dtypes stay, too.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping
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
    while isinstance(content, Mapping) and not any(isinstance(x, torch.Tensor) for x in content.values()):
        inner = next((w for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            raise SystemExit(f"{path} holds no tensors by name; its entries are {', '.join(map(str, content))}")
        print(f"taking {inner!r} of {', '.join(map(str, content))}")
        content = content[inner]
    if not isinstance(content, Mapping):
        raise SystemExit(f"{path} holds a {type(content).__name__} in place of tensors by name")
    left = [n for n, x in content.items() if not isinstance(x, torch.Tensor)]
    if left:
        print(f"left out, since they are no tensors: {', '.join(map(str, left))}")
    return {str(n): x.detach().contiguous() for n, x in content.items() if isinstance(x, torch.Tensor)}


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
    """Arrays, or tensors, as safetensors or npz."""
    tensors = any(hasattr(x, "detach") for x in arrays.values())
    if path.suffix == ".npz":
        try:
            np.savez(path, **{n: x.numpy() if tensors else x for n, x in arrays.items()})
        except TypeError as error:
            raise SystemExit(f"{path}: NumPy has no such dtype ({error}); write .safetensors") from None
        return
    try:
        from safetensors import numpy as of_numpy
        from safetensors import torch as of_torch
    except ImportError as error:
        if tensors or error.name == "safetensors":
            raise SystemExit(f"{path} {INSTALL.format('safetensors')}") from None
        of_torch = None
    if tensors:  # several names may share one tensor's memory
        of_torch.save_file({n: x.clone() for n, x in arrays.items()}, path)
    else:
        of_numpy.save_file({n: np.ascontiguousarray(x) for n, x in arrays.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help=".pth, .pt, .bin, .th, .ckpt, .h5 or .hdf5")
    parser.add_argument("target", type=pathlib.Path, help=".safetensors or .npz, which must not be there yet")
    given = parser.parse_args()
    if not given.source.is_file():
        raise SystemExit(f"there is no file {given.source}")
    if given.target.suffix not in (".safetensors", ".npz"):
        raise SystemExit(f"{given.target} must end in .safetensors or .npz")
    if given.target.exists():
        raise SystemExit(f"{given.target} is there already")
    if given.source.suffix in PICKLED:
        arrays = read_torch(given.source)
    elif given.source.suffix in HDF5:
        arrays = read_keras(given.source)
    else:
        raise SystemExit(f"{given.source} is of no known format; {', '.join(PICKLED + HDF5)} are")
    if not arrays:
        raise SystemExit(f"{given.source} holds no weights")
    write(given.target, arrays)
    print(f"{given.target}: {len(arrays)} arrays, {given.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())

"""A fingerprint of a data set: what every array of every split holds, so that other data under one name are told."""

import hashlib
from typing import Any

import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import SPLITS, Dataset


def fingerprint(data: Dataset) -> dict[str, str]:
    """{"inputs of train": "float32 (800, 5) 1f0c...", "labels of 'a' in train": ...} of all splits.

    Two data sets have the same one if their rows, in their order, have the same bits in inputs, labels and masks. What
    a missing label holds does not count.
    """
    found = {}
    for name in SPLITS:
        split = getattr(data, name)
        if split is not None:
            found |= of_split(split, name)
    return found


def of_split(split: Batch, name: str) -> dict[str, str]:
    """The fingerprint of one split."""
    found = {}
    for path, leaf in partition.flatten(split.inputs).items():
        found[f"inputs {path!r} of {name}" if path else f"inputs of {name}"] = of_array(leaf)
    for task, target in split.targets.items():
        target, mask = np.asarray(target), np.asarray(split.masks[task])
        if not mask.all():
            target = np.where(mask.reshape(mask.shape + (1,) * (target.ndim - mask.ndim)), target, 0)
        found[f"labels of {task!r} in {name}"] = of_array(target)
        found[f"which labels of {task!r} are there in {name}"] = of_array(mask)
    return found


def of_array(array: Any) -> str:
    """Dtype, shape and a 128-bit digest (BLAKE2b) of an array's elements."""
    array = np.asarray(array)
    if array.dtype == object:
        bits = repr(array.tolist()).encode()
    else:
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    return f"{array.dtype} {array.shape} {hashlib.blake2b(bits, digest_size=16).hexdigest()}"


def of_tree(tree: Any) -> str:
    """One digest of all leaves of a pytree, with their paths."""
    text = "".join(f"{path} {of_array(leaf)}\n" for path, leaf in sorted(partition.flatten(tree).items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

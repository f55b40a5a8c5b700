"""A fingerprint of a data set: what every array of every split holds, so that other data under one name are told."""

import hashlib
from typing import Any

import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch, aligned
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.data.tokenizing import Tokenizer
from mtl_jax.on_disk import OnDisk


def fingerprint(data: Dataset) -> dict[str, dict[str, str]]:
    """{"train": {"inputs": "float32 (800, 5) 1f0c...", "labels of 'a'": ...}} of all splits.

    Two data sets have the same one if their rows, in their order, have the same bits in inputs, labels, masks and
    weights. What a missing label holds does not count; rows on disk are told by their files. Where a tokenizer made
    the inputs, it must be the same too.
    """
    found = {name: of_split(split) for name in SPLITS if (split := getattr(data, name)) is not None}
    if isinstance(made := data.vocabulary, Tokenizer):
        found["the tokenizer"] = {"tokens": f"{len(made)} ids {made.digest}"}
    return found


def differences(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
    """How two fingerprints differ, in plain words."""
    found = []
    for name in [*old, *(n for n in new if n not in old)]:
        if name not in old or name not in new:
            found.append(f"data: {name} is {'new' if name in new else 'not there any more'}")
            continue
        was, now = old[name], new[name]
        kinds = {k: [x.get(k, "nothing").rpartition(" ")[0] for x in (was, now)] for k in {**was, **now}}
        reshaped = [k for k, (a, b) in kinds.items() if a != b]
        if reshaped:  # then all else of the split differs too
            found.append(f"data: {reshaped[0]} of {name} {' -> '.join(k or 'nothing' for k in kinds[reshaped[0]])}")
            continue
        differ = [k for k in was if was[k] != now[k]]
        found += [f"data: {k} of {name} differ" for k in differ if k.replace("missing labels", "labels") not in differ
                  or not k.startswith("missing")]  # fmt: skip
    return found


def of_split(split: Batch) -> dict[str, str]:
    """The fingerprint of one split."""
    found = {}
    for path, leaf in partition.flatten(split.inputs).items():
        found[f"inputs {path!r}" if path else "inputs"] = of_array(leaf)
    for task, target in split.targets.items():
        target, mask = np.asarray(target), np.asarray(split.masks[task])
        if not mask.all():
            target = np.where(aligned(mask, target), target, 0)
        found[f"labels of task {task!r}"] = of_array(target)
        found[f"missing labels of task {task!r}"] = of_array(mask)
    for task, weights in (split.weights or {}).items():
        found[f"weights of task {task!r}"] = of_array(weights)
    return found


def of_array(array: Any) -> str:
    """Dtype, shape and a 128-bit digest (BLAKE2b) of an array's elements."""
    if isinstance(array, OnDisk):
        return f"files of {array.dtype} {array.shape} {array.fingerprint}"
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

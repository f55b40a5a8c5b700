"""Scanned digits overlaid two by two, as MultiMNIST overlays MNIST (Sabour et al., 2017; Sener and Koltun, 2018).

The scans are the 1,797 real 8 x 8 digits that come with scikit-learn (UCI "Optical Recognition of Handwritten Digits"
test set, Alpaydin and Kaynak, 1998); no download is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset, fit_scaler, select_tasks
from mtl_jax.data.sources import chosen_tasks
from mtl_jax.tasks import Task

TASKS = ("left", "right", "sum", "left_gt_right")
SIDE = 12  # of the canvas; scans of 8 x 8 overlap in 4 x 4
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def multi_digits(
    tasks: Sequence[str] = ("left", "right", "sum"),
    num_train: int = 8000,
    num_val: int = 2000,
    num_test: int = 2000,
    enlarge: int = 1,
    views: bool = False,
) -> Dataset:
    """Two digits per image: which is on the left, which on the right, and what is their sum?

    Scans are divided 60/20/20 by a fixed permutation before any two are overlaid, so no scan is in two splits. The
    left digit is in the upper left corner of a 12 x 12 canvas, the right one in the lower right; the brighter pixel
    shows. Inputs are float32 [N, 12, 12, 1] in 0..1.

    Args:
      tasks: among left and right (classification of 10), sum (regression) and left_gt_right (binary; usually held
        back for transfer).
      num_train, num_val, num_test: pairs drawn, with fixed seeds, from each split's scans.
      enlarge: every pixel becomes a square of this side; 3 makes images of 36 x 36 for deep CNNs.
      views: inputs are {"upper": ..., "lower": ...}, the halves of the image as two modalities.
    """
    if enlarge < 1:
        raise ValueError(f"multi_digits: enlarge={enlarge} must be at least 1")
    tasks = chosen_tasks("multi_digits", tasks, TASKS)
    images, digits = scans()
    order = np.random.default_rng(0).permutation(len(digits))
    bounds = np.cumsum([0, *(round(s * len(digits)) for s in SHARES.values())])
    bounds[-1] = len(digits)
    counts = dict(zip(SHARES, (num_train, num_val, num_test), strict=True))
    splits = {
        key: overlay(images[own], digits[own], counts[key], seed=1 + i)
        for i, key in enumerate(SHARES)
        for own in [order[bounds[i] : bounds[i + 1]]]
    }
    splits = {key: split._replace(inputs=shown(split.inputs, enlarge, views)) for key, split in splits.items()}
    names = tuple(map(str, range(10)))
    plain = Task("sum", "regression")
    made = {
        "left": Task("left", "classification", classes=names),
        "right": Task("right", "classification", classes=names),
        "sum": Task("sum", "regression", scaler=fit_scaler(plain, splits["train"])),
        "left_gt_right": Task("left_gt_right", "binary"),
    }
    spec = {"tasks": tasks, "num_train": num_train, "num_val": num_val, "num_test": num_test, "enlarge": enlarge,
            "views": views}  # fmt: skip
    spec = {k: v for k, v in spec.items() if v != DEFAULTS[k]}
    chosen: dict[str, Any] = {k: select_tasks(s, tasks) for k, s in splits.items()}
    return Dataset(
        "multi_digits",
        tuple(made[t] for t in tasks),
        **chosen,
        spec=parts.call("multi_digits", spec),
    )


DEFAULTS = {"tasks": TASKS[:3], "num_train": 8000, "num_val": 2000, "num_test": 2000, "enlarge": 1, "views": False}


def shown(images: np.ndarray, enlarge: int, views: bool) -> np.ndarray | dict[str, np.ndarray]:
    """The images [N, H, W, 1] as asked for."""
    images = images.repeat(enlarge, 1).repeat(enlarge, 2)
    half = images.shape[1] // 2
    return {"upper": images[:, :half], "lower": images[:, half:]} if views else images


def scans() -> tuple[np.ndarray, np.ndarray]:
    """(float32 [1797, 8, 8] in 0..1, int32 [1797])."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("data set 'multi_digits' needs scikit-learn: pip install 'mtl_jax[digits]'") from error
    found = load_digits()
    return (found.images / 16).astype(np.float32), found.target.astype(np.int32)


def overlay(images: np.ndarray, digits: np.ndarray, count: int, seed: int) -> Batch:
    """`count` pairs of scans drawn with `seed`, with all four tasks' labels."""
    left, right = np.random.default_rng(seed).integers(len(digits), size=(2, count))
    canvas = np.zeros((count, SIDE, SIDE), np.float32)
    canvas[:, :8, :8] = images[left]
    canvas[:, -8:, -8:] = np.maximum(canvas[:, -8:, -8:], images[right])
    a, b = digits[left], digits[right]
    targets = {"left": a, "right": b, "sum": (a + b).astype(np.float32), "left_gt_right": (a > b).astype(np.float32)}
    return Batch(canvas[..., None], targets, {t: np.ones(count, bool) for t in targets})

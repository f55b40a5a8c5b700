"""CIFAR-10 (Krizhevsky 2009) as lossless sheets of 1,000 images, the way ConvNetJS carries it."""

import json
import pathlib
import re

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import divide, finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.images.decoding import read_images
from mtl_jax.data.sources import find
from mtl_jax.tasks import Task

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = "the folder demo/cifar10 of github.com/karpathy/convnetjs (sheets cifar10_batch_N.png and cifar10_labels.js)"
SHEETS = {"train": (0, 1), "test": (50,)}
ROWS, SIDE = 1000, 32


def cifar10(val: float = 0.1, seed: int = 0, data_dir: str | pathlib.Path | None = None) -> Dataset:
    """What is on a picture of 32 x 32 pixels: classification of 10. Inputs are uint8 [N, 32, 32, 3].

    The first 2,000 official training images, divided into training and validation, and the first 1,000 official test
    images: enough to check an imported network, and few to train one.

    Args:
      val: share of the training images that validates.
      seed: of that division.
      data_dir: where ``cifar10/cifar10_batch_0.png`` and its like lie; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    labels = read_labels(find("cifar10/cifar10_labels.js", data_dir, "cifar10", SOURCE))
    raw = {}
    for key, sheets in SHEETS.items():
        images = [read_sheet(find(f"cifar10/cifar10_batch_{n}.png", data_dir, "cifar10", SOURCE)) for n in sheets]
        targets = np.concatenate([labels[n * ROWS : (n + 1) * ROWS] for n in sheets])
        raw[key] = Batch(np.concatenate(images), {"object": targets}, {"object": np.ones(len(targets), bool)})
    raw, rows, _ = divide(raw, {"val": val}, seed)
    given = {k: v for k, v, d in (("val", val, 0.1), ("seed", seed, 0)) if v != d}
    task = Task("object", "classification", classes=CLASSES)
    return finish(raw, ("object",), {"object": task}, "cifar10", spec=parts.call("cifar10", given), rows=rows)


def read_sheet(path: pathlib.Path) -> np.ndarray:
    """uint8 [1000, 32, 32, 3]: a row of the sheet is one image, its pixels one after the other."""
    sheet = read_images([path])[0]
    if sheet.shape != (ROWS, SIDE * SIDE, 3):
        raise ValueError(f"{path} has {sheet.shape[0]} x {sheet.shape[1]} pixels; a sheet has {ROWS} x {SIDE * SIDE}")
    return sheet.reshape(ROWS, SIDE, SIDE, 3)


def read_labels(path: pathlib.Path) -> np.ndarray:
    """int32 [51000]: classes of the images of all sheets, in order."""
    text = path.read_text(encoding="ascii", errors="replace")
    match = re.fullmatch(r"\s*var labels\s*=\s*(\[[\d,\s]*\])\s*;?\s*", text)
    found = np.array(json.loads(match[1]) if match else [], np.int32)
    least = (max(max(s) for s in SHEETS.values()) + 1) * ROWS
    if len(found) < least or found.min() < 0 or found.max() >= len(CLASSES):
        raise ValueError(f"{path} is truncated or damaged: it must hold at least {least:,} numbers in 0..9")
    return found

"""Ants and bees: 396 photographs of PyTorch's tutorial on transfer learning, from ImageNet, cut to 144 pixels."""

import pathlib

from mtl_jax import parts
from mtl_jax.data.arrays import divide, finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.images.decoding import read_images
from mtl_jax.data.images.folders import classes_in, labelled
from mtl_jax.data.sources import find

SOURCE = (
    "the tutorial 'Transfer Learning for Computer Vision' of PyTorch (hymenoptera_data), its shorter sides resized to "
    "144 pixels and cut at the centre"
)


def hymenoptera(
    size: int = 144, val: float = 0.2, seed: int = 0, data_dir: str | pathlib.Path | None = None
) -> Dataset:
    """Is it an ant or a bee? Inputs are uint8 [N, size, size, 3].

    The tutorial's 243 training images are divided into training and validation, its 153 validation images are the test
    split.

    Args:
      size: side; smaller ones are scaled from 144.
      val: share of the training images that validates.
      seed: of that division.
      data_dir: where ``hymenoptera_r128/hymenoptera_data`` lies; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file.
    """
    root = find("hymenoptera_r128/SHA256SUMS", data_dir, "hymenoptera", SOURCE).parent / "hymenoptera_data"
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise FileNotFoundError(f"data set 'hymenoptera': there is no {root / part}. It comes from {SOURCE}")
    raw = {}
    for key, part in (("train", "train"), ("test", "val")):
        found = classes_in(root / part, "insect")
        raw[key] = labelled(found, read_images(found.files, size, resize="cover"))
    raw, rows, _ = divide(raw, {"val": val}, seed)
    given = {"size": size, "val": val, "seed": seed}
    defaults = {"size": 144, "val": 0.2, "seed": 0}
    spec = parts.call("hymenoptera", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, ("insect",), {"insect": "classification"}, "hymenoptera", spec=spec, rows=rows)

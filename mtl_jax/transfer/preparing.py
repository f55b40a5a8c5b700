"""Images as a pretrained model was trained to read them."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtl_jax import partition
from mtl_jax.inputs import Place

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE = (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
MISSING = "images are read with Pillow, which comes with mtl_jax[images] (pip install 'mtl_jax[images]')"


class Images(NamedTuple):
    """How images become a model's inputs: resized, the middle cut out, and (pixel - mean) / std.

    Attributes:
      size: (high, wide) of the inputs.
      mean, std: per channel, for pixels of 0 to 255.
      shorter: what the shorter side is resized to before the middle is cut out; None: the image is resized to `size`,
        whatever its proportions.
      filter: of resizing, one of `FILTERS`, as Pillow has them.
      bgr: whether channels are blue, green, red.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    shorter: int | None = None
    filter: str = "bilinear"
    bgr: bool = False

    def prepare(self, images: Any) -> Float[np.ndarray, "image high wide 3"]:
        """Inputs from images: uint8 [N, H, W, 3], or a list of arrays, Pillow images or paths, of any size.

        Raises:
          ValueError: for what is no image, naming it.
        """
        given = [images] if hasattr(images, "convert") or isinstance(images, str | os.PathLike) else list(images)
        if not given:
            raise ValueError("there are no images to prepare")
        pixels = np.stack([self._one(x, i) for i, x in enumerate(given)]).astype(np.float32)
        pixels = pixels[..., ::-1] if self.bgr else pixels
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def _one(self, given: Any, number: int) -> np.ndarray:
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError as error:
            raise ImportError(MISSING) from error
        if isinstance(given, str | os.PathLike):
            try:
                with Image.open(given) as file:
                    image = file.convert("RGB")
            except FileNotFoundError as error:
                raise FileNotFoundError(f"there is no image {os.fspath(given)}") from error
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise ValueError(f"image {os.fspath(given)} cannot be read: {error}") from error
        elif hasattr(given, "convert"):
            image = given.convert("RGB")
        else:
            array = np.asarray(given)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
                raise ValueError(f"image {number} is {array.dtype} {array.shape}; it must be uint8 [H, W, 3], of "
                                 "0 to 255")  # fmt: skip
            image = Image.fromarray(array)
        high, wide = self.size
        how = Image.Resampling[self.filter.upper()]
        if self.shorter is None:
            return np.asarray(image if image.size == (wide, high) else image.resize((wide, high), how))
        by = self.shorter / min(image.size)
        longer = int(self.shorter * max(image.size) / min(image.size))  # cut off, not rounded, as torchvision does
        size = (self.shorter, longer) if image.size[0] <= image.size[1] else (longer, self.shorter)
        image = image if by == 1 else image.resize(size, how)
        left, top = round((image.size[0] - wide) / 2), round((image.size[1] - high) / 2)
        return np.asarray(image.crop((left, top, left + wide, top + high)))


class Pixels(NamedTuple):
    """`Encoder.check` of a pretrained model of images: no bytes, where nothing scales them.

    Attributes:
      own: the check of its encoder.
    """

    own: Callable[[Any, Place], None]

    def __call__(self, inputs: Any, where: Place) -> None:
        for path, leaf in partition.flatten(inputs).items():
            if (kind := leaf.dtype).kind in "iub":
                raise ValueError(
                    f"{where(path)} are {kind}, and the pretrained model was made for pixels that are standardised: "
                    "`adapt(tasks, inputs=data)` makes one that reads bytes, `prepare(images)` makes numbers of them"
                )
        self.own(inputs, where)

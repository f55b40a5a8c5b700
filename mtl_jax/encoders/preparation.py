"""Images on the device, on their way into an encoder: bytes to numbers, and in training random changes of each row.

Everything that is random is drawn from the key of the step, so that a run that is resumed sees the same images.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mtl_jax import partition
from mtl_jax.inputs import Place, are_bytes_on_disk

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision have it


class Preparation(NamedTuple):
    """What `encoders.augmented` asks for; see there.

    Called with images [B, H, W, C], bytes or numbers in 0..1, it gives floats [B, height, width, C].
    """

    flip: bool = False
    shift: int = 0
    zoom: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    colour: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def draws(self) -> bool:
        """Whether training sees other images than inference; cutting is at random, where images are larger."""
        return bool(self.flip or self.shift or self.zoom is not None or self.size is not None or self.colour)

    def __call__(self, images: Any, key: Key[Array, ""] | None) -> Float[Array, "batch high wide channel"]:
        """Changed at random by `key`; without one, only cut at the centre, and standardised."""
        x = as_numbers(images)
        if key is None:
            x = x if self.size is None else centre(x, self.size)
        else:
            x = jax.vmap(self.changed)(x, jax.random.split(key, len(x)))
        if self.mean:
            x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
        return x

    def changed(self, x: Float[Array, "high wide channel"], key: Key[Array, ""]) -> Float[Array, "h w channel"]:
        """One image, changed at random."""
        place, side, tint = jax.random.split(key, 3)
        high, wide = self.size or x.shape[:2]
        if self.zoom is not None:
            x = zoomed(x, place, self.zoom, (high, wide))
        elif self.shift or (high, wide) != x.shape[:2]:
            x = shifted(x, place, self.shift, (high, wide))
        if self.flip:
            x = jnp.where(jax.random.bernoulli(side), x[:, ::-1], x)
        return coloured(x, tint, self.colour) if self.colour else x

    def check(self, inputs: Any, where: Place) -> None:
        """An error for what is no image of bytes, or of numbers in 0..1."""
        for path, leaf in partition.flatten(inputs).items():
            shape = np.shape(leaf)
            if len(shape) != 4:
                hint = "; of one channel make inputs[..., None]" if len(shape) == 3 else ""
                raise ValueError(f"{where(path)} have shape {shape}; augmented takes images [B, H, W, C]{hint}")
            leaf = leaf if are_bytes_on_disk(leaf) else np.asarray(leaf)
            if leaf.dtype != np.uint8 and (leaf.dtype.kind != "f" or not ((leaf >= 0) & (leaf <= 1)).all()):
                span = f" from {leaf.min()} to {leaf.max()}" if leaf.size else ""
                raise ValueError(
                    f"{where(path)} are {leaf.dtype}{span}; augmented takes bytes (uint8), or numbers in 0..1"
                )
            if self.size is not None and (shape[1] < self.size[0] or shape[2] < self.size[1]):
                raise ValueError(f"{where(path)} have shape {shape}, and are too small to cut {self.size} from")
            if len(self.mean) not in (0, 1, shape[3]):
                raise ValueError(f"{where(path)} have {shape[3]} channels, and mean {self.mean} is of {len(self.mean)}")


def as_numbers(images: Any) -> Float[Array, "batch high wide channel"]:
    """Bytes as float32 in 0..1; numbers as they are."""
    x = jnp.asarray(images)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32) / 255


def centre(x: Float[Array, "batch ..."], size: tuple[int, int]) -> Float[Array, "batch ..."]:
    """The middle of images."""
    top, left = ((n - s) // 2 for n, s in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


def shifted(
    x: Float[Array, "high wide channel"], key: Key[Array, ""], most: int, size: tuple[int, int]
) -> Float[Array, "h w channel"]:
    """A cut of `size` at a random place of the image with `most` black pixels around."""
    x = jnp.pad(x, ((most, most), (most, most), (0, 0)))
    spare = jnp.array([n - s for n, s in zip(x.shape[:2], size, strict=True)])
    top, left = jax.random.randint(key, (2,), 0, spare + 1)
    return jax.lax.dynamic_slice(x, (top, left, jnp.zeros_like(top)), (*size, x.shape[2]))


def zoomed(
    x: Float[Array, "high wide channel"], key: Key[Array, ""], share: tuple[float, float], size: tuple[int, int]
) -> Float[Array, "h w channel"]:
    """A part of the image, of a random share of its area, aspect ratio (3/4 to 4/3) and place, scaled to `size`.

    As Inception's training does (Szegedy et al., CVPR 2015, arXiv:1409.4842), by linear interpolation. A part that is
    wider or higher than the image is as wide, or as high, as it.
    """
    how_much, shape, place = jax.random.split(key, 3)
    area = jax.random.uniform(how_much, minval=share[0], maxval=share[1])
    ratio = jnp.exp(jax.random.uniform(shape, minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    sides = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / ratio, ratio])), 1)  # shares of height and width
    start = jax.random.uniform(place, (2,)) * (1 - sides)
    old, new = jnp.array(x.shape[:2], jnp.float32), jnp.array(size, jnp.float32)
    scale = new / (sides * old)
    return jax.image.scale_and_translate(
        x, (*size, x.shape[2]), (0, 1), scale, -start * old * scale, "linear", antialias=False
    ).astype(x.dtype)


def coloured(x: Float[Array, "high wide channel"], key: Key[Array, ""], most: float) -> Float[Array, "h w channel"]:
    """Brightness, then contrast, then (of three channels) saturation, each times 1 - most to 1 + most, within 0..1."""
    bright, contrast, saturation = jax.random.uniform(key, (3,), x.dtype, 1 - most, 1 + most)
    x = jnp.clip(bright * x, 0, 1)

    def grey(x: Array) -> Array:
        return (x @ jnp.asarray(GREY, x.dtype))[..., None] if x.shape[-1] == 3 else x

    mean = grey(x).mean()
    x = jnp.clip(mean + contrast * (x - mean), 0, 1)
    return jnp.clip(grey(x) + saturation * (x - grey(x)), 0, 1) if x.shape[-1] == 3 else x

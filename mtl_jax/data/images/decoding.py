"""Image files to bytes [N, H, W, C] of one size, many at a time; every rule by which pixels change is said here."""

import collections
import io
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax import parts

RESIZES = ("exact", "cover", "pad", "stretch")
CHANNELS = {1: "L", 3: "RGB"}
# How Pillow calls pixels of 8 bits, and whether they have an alpha channel.
MODES = {"1": False, "L": False, "P": False, "RGB": False, "YCbCr": False, "CMYK": False, "LAB": False, "HSV": False,
         "LA": True, "La": True, "PA": True, "RGBA": True, "RGBa": True}  # fmt: skip
MOST_BYTES = 2**31
MOST_PIXELS = 10**8  # in one file; more is a mistake, or made to fill the memory
MISSING = "images need the extra 'images': pip install mtl_jax[images] (Pillow and Grain)"


class Rule(NamedTuple):
    """How an image becomes an array.

    Attributes:
      size: (height, width); None where every image has the same already.
      resize: "exact": an image of another size is an error. "cover": scaled so that it covers the size, then cut at the
        centre. "pad": scaled so that it fits into it, black around it. "stretch": scaled to it, whatever its shape.
      channels: 3: grey is repeated. 1: colours become grey by ITU-R 601-2.
      background: of pixels that an alpha channel lets through, 0 (black) to 255 (white).
    """

    size: tuple[int, int] | None
    resize: str
    channels: int
    background: int


class Decoded(NamedTuple):
    """An image, and what was done to it besides its size."""

    pixels: np.ndarray
    done: tuple[str, ...]


def read_images(
    files: Sequence[Any],
    size: int | tuple[int, int] | None = None,
    *,
    resize: str = "exact",
    channels: int = 3,
    background: int = 255,
    max_bytes: int = MOST_BYTES,
) -> np.ndarray:
    """uint8 [N, H, W, channels] of image files (or of their bytes), decoded in parallel.

    A picture is turned upright as its EXIF entry says; of several frames the first is taken. A warning says how many
    were grey where colours are asked for, coloured where grey is, or had an alpha channel. When a size is reached by
    scaling, it is by Lanczos's filter.

    Args:
      files: paths, or bytes.
      size: side, or (height, width), of all; None: all must have the size of the first.
      resize: how another size is made this one: "exact" (not at all: it is an error), "cover" (scaled, and cut at the
        centre), "pad" (scaled, and black around it) or "stretch".
      channels: 3 or 1.
      background: what shows through where an alpha channel is 0: 0 for black to 255 for white.
      max_bytes: that the result may take; images lie in memory, and on the device that trains.

    Raises:
      FileNotFoundError, ValueError: naming the file that is not there, is no image, has pixels of more than 8 bits, or
        another size.
      ImportError: naming the extra.
    """
    rule = read_rule(size, resize, channels, background)
    if isinstance(files, str | bytes | pathlib.Path):
        raise ValueError("files is one file; give a list: [file]")
    files = [f if isinstance(f, bytes) else pathlib.Path(f) for f in files]
    if not files:
        raise ValueError("there are no images to read")
    names = [f"image {i}" if isinstance(f, bytes) else str(f) for i, f in enumerate(files)]
    high, wide = decode(files[0], names[0], rule).pixels.shape[:2] if rule.size is None else rule.size
    rule = rule._replace(size=(high, wide))
    needed = len(files) * high * wide * channels
    if needed > max_bytes:
        raise ValueError(
            f"{len(files):,} images of {high} x {wide} x {channels} take {needed / 2**30:.2f} GiB, "
            f"more than max_bytes={max_bytes:,} ({max_bytes / 2**30:.2f} GiB); all lie in memory: give a smaller size, "
            "fewer images, or a larger max_bytes"
        )
    found = np.empty((len(files), high, wide, channels), np.uint8)
    done: collections.Counter[str] = collections.Counter()
    for i, image in enumerate(decoded(files, names, rule)):
        found[i] = image.pixels
        done.update(image.done)
    if done:
        said = "; ".join(f"{count} of {len(files)} {what}" for what, count in done.items())
        warnings.warn(f"images: {said}", UserWarning, stacklevel=2)
    return found


def read_rule(size: Any, resize: str, channels: int, background: int) -> Rule:
    """A checked `Rule`."""
    if resize not in RESIZES:
        raise parts.unknown("resize of images", resize, RESIZES)
    if channels not in CHANNELS:
        raise ValueError(f"channels={channels!r} must be 3 (colours) or 1 (grey)")
    if isinstance(background, bool) or not isinstance(background, int) or not 0 <= background <= 255:
        raise ValueError(f"background={background!r} must be a whole number in 0..255")
    if size is None:
        if resize != "exact":
            raise ValueError(f"resize={resize!r} needs a size, such as size=128")
        return Rule(None, resize, channels, background)
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else (size,)
    if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
        raise ValueError(f"size={size!r} must be a side in pixels, or (height, width)")
    return Rule(sides, resize, channels, background)


def decoded(files: list, names: list[str], rule: Rule) -> Any:
    """`Decoded` images in order, on several threads ahead of their turn; Pillow decodes outside Python's lock."""
    try:
        import grain
    except ImportError as error:
        raise ImportError(MISSING) from error
    source = grain.MapDataset.source(range(len(files))).map(lambda i: decode(files[i], names[i], rule))
    return source.to_iter_dataset(grain.ReadOptions(num_threads=min(8, len(files)), prefetch_buffer_size=64))


def decode(file: pathlib.Path | bytes, name: str, rule: Rule) -> Decoded:
    """One image, as `rule` says."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(MISSING) from error
    if not isinstance(file, bytes) and not file.is_file():
        raise FileNotFoundError(f"there is no image {name}")
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{name} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            if image.mode not in MODES:
                raise ValueError(
                    f"{name} has pixels of more than 8 bits ({image.mode}), which bytes cannot hold; save it as 8 bits"
                )
            image.load()
            image = ImageOps.exif_transpose(image)
            return as_rule(image, name, rule)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, EOFError) as error:
        why = "it is none that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{name} is no image that can be read: {why}") from error


def as_rule(image: Any, name: str, rule: Rule) -> Decoded:
    """A Pillow image in the rule's channels and size."""
    from PIL import Image

    done = []
    if MODES[image.mode] or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            done.append(f"have an alpha channel, and lie on a background of {rule.background}")
        below = Image.new("RGBA", image.size, (rule.background,) * 3 + (255,))
        image = Image.alpha_composite(below, image).convert("RGB")
    grey = image.mode in ("1", "L")
    if grey and rule.channels == 3:
        done.append("are grey, which is repeated in three channels")
    if not grey and rule.channels == 1:
        done.append("have colours, which become grey")
    image = image.convert(CHANNELS[rule.channels])
    if rule.size is not None and (image.height, image.width) != rule.size:
        image = resized(image, name, rule)
    pixels = np.asarray(image)
    return Decoded(pixels[..., None] if rule.channels == 1 else pixels, tuple(done))


def resized(image: Any, name: str, rule: Rule) -> Any:
    """An image of another size in the rule's."""
    from PIL import Image, ImageOps

    assert rule.size is not None  # else there is no other size
    high, wide = rule.size
    if rule.resize == "exact":
        raise ValueError(
            f"{name} has {image.height} x {image.width} pixels and not {high} x {wide}; give a size and say how it is "
            "reached: resize='cover', 'pad' or 'stretch'"
        )
    if rule.resize == "stretch":
        return image.resize((wide, high), Image.Resampling.LANCZOS)
    fit = ImageOps.fit if rule.resize == "cover" else ImageOps.pad
    return fit(image, (wide, high), Image.Resampling.LANCZOS)

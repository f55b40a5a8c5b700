"""Image files to bytes [N, H, W, C] of one size, many at a time."""

import collections
import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.data.images.rules import MODES, Decoded, Rule, as_rule, changes, has_alpha, not_exact, read_rule

MOST_BYTES = 2**31
MOST_PIXELS = 10**8  # in one file; more is a mistake, or made to fill the memory
THREADS = 8
MISSING = "images need the extra 'images': pip install mtl_jax[images] (Pillow and Grain)"


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
            "fewer images, or a larger max_bytes; from_image_folder(..., lazy=True) decodes them as they are needed"
        )
    found = np.empty((len(files), high, wide, channels), np.uint8)
    done: collections.Counter[str] = collections.Counter()
    for i, image in enumerate(decoded(files, names, rule)):
        found[i] = image.pixels
        done.update(image.done)
    warn_of(done, len(files), stacklevel=3)
    return found


def warn_of(done: Mapping[str, int], total: int, stacklevel: int) -> None:
    """A warning of what was done to pixels, if anything was."""
    if done:
        said = "; ".join(f"{count} of {total} {what}" for what, count in done.items())
        warnings.warn(f"images: {said}", UserWarning, stacklevel=stacklevel)


def decoded(files: list, names: list[str], rule: Rule) -> Iterator[Decoded]:
    """Images in order, on several threads ahead of their turn."""
    return ahead_of_turn(lambda i: decode(files[i], names[i], rule), range(len(files)), 64)


def ahead_of_turn(function: Callable[[int], Any], order: Sequence[int], ahead: int) -> Iterator[Any]:
    """`function` of each number in order, on several threads; at most `ahead` results wait for their turn.

    Reading files and Pillow's decoding go on outside Python's lock.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError(MISSING) from error
    source = grain.MapDataset.source(order).map(function)
    threads = max(1, min(THREADS, len(order), ahead))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(1, ahead))
    return iter(source.to_iter_dataset(options))


def content(file: pathlib.Path | bytes, name: str) -> bytes:
    """The bytes of a file."""
    if isinstance(file, bytes):
        return file
    if not file.is_file():
        raise FileNotFoundError(f"there is no image {name}")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} is no image that can be read: {error}") from error


@contextlib.contextmanager
def opened(held: bytes, name: str) -> Iterator[Any]:
    """Pillow's image of a file's bytes, whose header is checked; errors of Pillow become ours."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(MISSING) from error
    try:
        with Image.open(io.BytesIO(held)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{name} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            if image.mode not in MODES:
                raise ValueError(
                    f"{name} has pixels of more than 8 bits ({image.mode}), which bytes cannot hold; save it as 8 bits"
                )
            yield image
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, EOFError) as error:
        why = "it is none that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ValueError(f"{name} is no image that can be read: {why}") from error


def decode(file: pathlib.Path | bytes, name: str, rule: Rule) -> Decoded:
    """One image, as `rule` says."""
    with opened(content(file, name), name) as image:
        from PIL import ImageOps

        image.load()
        return as_rule(ImageOps.exif_transpose(image), name, rule)


def check_header(held: bytes, name: str, rule: Rule) -> tuple[str, ...]:
    """What will be done to the pixels of an image besides their size, as its header has it.

    Raises:
      ValueError: for what its header shows to be no image that `rule` takes.
    """
    with opened(held, name) as image:
        # EXIF may turn it by a quarter, which not every header says.
        either = {(image.height, image.width), (image.width, image.height)}
        if rule.resize == "exact" and rule.size not in either:
            raise not_exact(name, (image.height, image.width), rule)
        return changes(image.mode, has_alpha(image), rule)

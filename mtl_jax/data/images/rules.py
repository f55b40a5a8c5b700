"""How the image of a file becomes an array of bytes; every rule by which pixels change is said here."""

from typing import Any, NamedTuple

import numpy as np

from mtl_jax import parts

RESIZES = ("exact", "cover", "pad", "stretch")
CHANNELS = {1: "L", 3: "RGB"}
# How Pillow calls pixels of 8 bits, and whether they have an alpha channel.
MODES = {"1": False, "L": False, "P": False, "RGB": False, "YCbCr": False, "CMYK": False, "LAB": False, "HSV": False,
         "LA": True, "La": True, "PA": True, "RGBA": True, "RGBa": True}  # fmt: skip


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


def as_rule(image: Any, name: str, rule: Rule) -> Decoded:
    """A Pillow image in the rule's channels and size."""
    from PIL import Image

    alpha = has_alpha(image)
    done = changes(image.mode, alpha, rule)
    if alpha:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (255, 255):  # it hides nothing
            done = changes("RGB", False, rule)
        below = Image.new("RGBA", image.size, (rule.background,) * 3 + (255,))
        image = Image.alpha_composite(below, image).convert("RGB")
    image = image.convert(CHANNELS[rule.channels])
    if rule.size is not None and (image.height, image.width) != rule.size:
        image = resized(image, name, rule)
    pixels = np.asarray(image)
    return Decoded(pixels[..., None] if rule.channels == 1 else pixels, done)


def has_alpha(image: Any) -> bool:
    """Whether something may show through an image."""
    return MODES[image.mode] or "transparency" in image.info


def changes(mode: str, alpha: bool, rule: Rule) -> tuple[str, ...]:
    """What an image of a mode goes through, in words."""
    done = []
    if alpha:
        done.append(f"have an alpha channel, and lie on a background of {rule.background}")
    grey = mode in ("1", "L") and not alpha
    if grey and rule.channels == 3:
        done.append("are grey, which is repeated in three channels")
    if not grey and rule.channels == 1:
        done.append("have colours, which become grey")
    return tuple(done)


def not_exact(name: str, has: tuple[int, int], rule: Rule) -> ValueError:
    """The error for an image of another size than the rule's, where none is to be changed."""
    high, wide = rule.size or has
    return ValueError(f"{name} has {has[0]} x {has[1]} pixels and not {high} x {wide}; give a size and say how it is "
                      "reached: resize='cover', 'pad' or 'stretch'")  # fmt: skip


def resized(image: Any, name: str, rule: Rule) -> Any:
    """An image of another size in the rule's."""
    from PIL import Image, ImageOps

    assert rule.size is not None  # else there is no other size
    high, wide = rule.size
    if rule.resize == "exact":
        raise not_exact(name, (image.height, image.width), rule)
    if rule.resize == "stretch":
        return image.resize((wide, high), Image.Resampling.LANCZOS)
    fit = ImageOps.fit if rule.resize == "cover" else ImageOps.pad
    return fit(image, (wide, high), Image.Resampling.LANCZOS)

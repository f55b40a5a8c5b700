"""An encoder in front of which images are made numbers, and changed at random while training."""

from typing import Any

from mtl_jax import encoders as room
from mtl_jax import parts
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.preparation import Preparation

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def augmented(
    encoder: str | Encoder,
    flip: bool = False,
    shift: int = 0,
    zoom: tuple[float, float] | None = None,
    size: int | tuple[int, int] | None = None,
    colour: float = 0.0,
    mean: float | tuple[float, ...] | str = (),
    std: float | tuple[float, ...] = (),
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """`encoder` on images [B, H, W, C] of bytes (or numbers in 0..1), which become floats in 0..1 on the device.

    While a run trains, every row of every step is changed by itself, drawn from the step's key; all tasks that read an
    image in common see the same one. This goes on where the encoder is frozen. `predict` and `evaluate` change nothing,
    but cut images at the centre where `size` is smaller than they are.

    Args:
      encoder: a text, or an encoder of images.
      flip: left to right, every second time.
      shift: by up to so many pixels in both directions, black where nothing was (He et al., CVPR 2016,
        arXiv:1512.03385, take 4 on CIFAR).
      zoom: shares of the area, such as (0.08, 1.0), of a part that is scaled to the image's size.
      size: side, or (height, width), of what is cut out; None: the images' own.
      colour: brightness, contrast and saturation change by up to this share.
      mean, std: each channel is standardised by these, of values in 0..1; mean="imagenet" stands for ImageNet's.
      dtype, remat: of the encoder, where it is a text.

    Raises:
      ValueError: for an argument out of range, naming it.
    """
    if isinstance(encoder, str):
        encoder = room.build(
            encoder, **({} if dtype is None else {"dtype": dtype}), **({"remat": True} if remat else {})
        )
    elif dtype is not None or remat:
        raise ValueError("augmented: dtype= and remat= are for an encoder that is given as text; give it these itself")
    if not isinstance(encoder, Encoder):
        raise parts.no_such("augmented: encoder", encoder, "an encoder such as mtl.encoders.cnn(), or its text")
    if encoder.prepare is not None:
        raise ValueError("augmented: the encoder is augmented already; give all arguments at once")
    prepare = Preparation(
        bool(flip), _whole("shift", shift, 0), _zoom(zoom), _sides(size), _share(colour), *_standard(mean, std)
    )
    if prepare.shift and prepare.zoom is not None:
        raise ValueError("augmented: shift and zoom both say where an image is cut; give one of them")
    given = {"flip": flip, "shift": shift, "zoom": zoom, "size": size, "colour": colour, "mean": mean, "std": std}
    defaults = {"flip": False, "shift": 0, "zoom": None, "size": None, "colour": 0.0, "mean": (), "std": ()}
    spec = None
    if encoder.spec is not None:
        spec = parts.call(
            "augmented", {"encoder": encoder.spec, **{k: v for k, v in given.items() if v != defaults[k]}}
        )
    return encoder._replace(prepare=prepare, check=prepare.check, spec=spec)


def _whole(name: str, given: Any, low: int) -> int:
    parts.check_whole(f"augmented: {name}", given, low)
    return int(given)


def _sides(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2:
        raise ValueError(f"augmented: size={size!r} must be a side in pixels, or (height, width)")
    return _whole("size", sides[0], 1), _whole("size", sides[1], 1)


def _zoom(zoom: Any) -> tuple[float, float] | None:
    if zoom is None:
        return None
    shares = tuple(zoom) if isinstance(zoom, list | tuple) else (zoom,)
    if len(shares) != 2 or not all(isinstance(s, int | float) for s in shares) or not 0 < shares[0] <= shares[1] <= 1:
        raise ValueError(f"augmented: zoom={zoom!r} must be two shares of the area, such as (0.25, 1.0)")
    return float(shares[0]), float(shares[1])


def _share(colour: Any) -> float:
    if isinstance(colour, bool) or not isinstance(colour, int | float) or not 0 <= colour < 1:
        raise ValueError(f"augmented: colour={colour!r} must lie in [0, 1)")
    return float(colour)


def _standard(mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(mean, str):
        if mean != "imagenet" or std != ():
            raise ValueError(f"augmented: mean={mean!r} must be numbers, or 'imagenet' without std")
        return IMAGENET["mean"], IMAGENET["std"]
    both = [tuple(map(float, x)) if isinstance(x, list | tuple) else (float(x),) for x in (mean, std)]
    if len(both[0]) != len(both[1]) or any(s <= 0 for s in both[1]):
        raise ValueError(f"augmented: mean={mean!r} and std={std!r} must be as many numbers, and std above 0")
    return both[0], both[1]


vars(augmented).update(
    paper="Krizhevsky, Sutskever and Hinton, NeurIPS 2012; He et al., CVPR 2016, arXiv:1512.03385",
    when="few images: around any encoder of images",
    example={"encoder": "cnn"},
)

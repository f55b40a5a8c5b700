"""Residual networks (He et al., CVPR 2016, arXiv:1512.03385), for ImageNet's and for CIFAR's images.

Blocks are those of torchvision: the stride of a bottleneck is on its 3x3 convolution, and padding is explicit, so that
weights trained in PyTorch fit.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv, max_pool

IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECKS = (50, 101)
CIFAR = (20, 32, 44, 56, 110)
SHORTCUTS = ("pad", "project")
NORMS = ("batch", "group")
ONE = ((1, 1), (1, 1))


class Stem(nn.Module):
    """The first convolution: 3x3 for small images; else 7x7 with stride 2, and max pooling with stride 2."""

    width: int
    small: bool
    norm: str
    dtype: str | None = None
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        kernel, strides, padding = (3, 1, ONE) if self.small else (7, 2, ((3, 3), (3, 3)))
        x = conv(self.width, kernel, strides=strides, padding=padding, bias=False, dtype=self.dtype)(x)
        x = nn.relu(layers.normalise(x, self.norm, train=train, dtype=self.dtype, eps=self.eps))
        return x if self.small else max_pool(x, 3, 2, padding=1)


class Block(nn.Module):
    """Two 3x3 convolutions, or as a bottleneck 1x1, 3x3 and 1x1 to four times the width, added to the input.

    Where the shape changes, the shortcut is a 1x1 convolution ("project", option B), or ("pad", option A) every
    second row and column with zeros as the new channels, half of them on each side.
    """

    width: int
    stride: int
    bottleneck: bool
    shortcut: str
    norm: str
    dtype: str | None = None
    eps: float = 1e-5
    stride_first: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        plan = [(1, first, 1), (3, second, 1), (1, 1, 4)] if self.bottleneck else [(3, self.stride, 1), (3, 1, 1)]

        def convolved(y: Array, kernel: int, stride: int, width: int, place: str) -> Array:
            padding = ONE if kernel == 3 else "VALID"
            name = f"{place}_conv" if place == "shortcut" else f"conv_{place}"
            y = conv(width, kernel, strides=stride, padding=padding, bias=False, dtype=self.dtype, name=name)(y)
            name = f"{place}_norm" if place == "shortcut" else f"norm_{place}"
            return layers.normalise(y, self.norm, train=train, dtype=self.dtype, name=name, eps=self.eps)

        y = x
        for i, (kernel, stride, times) in enumerate(plan, 1):
            y = convolved(y, kernel, stride, times * self.width, str(i))
            y = nn.relu(y) if i < len(plan) else y
        if x.shape != y.shape:
            if self.shortcut == "project":
                x = convolved(x, 1, self.stride, y.shape[-1], "shortcut")
            else:
                more = y.shape[-1] - x.shape[-1]
                x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0),) * 3 + ((more // 2, more - more // 2),))
        return nn.relu(x + y)


class Group(nn.Module):
    """Blocks of one width, the first with the stride; in front of the first group, the stem."""

    block: Callable[..., Block]  # (stride, name) -> block
    count: int
    stride: int
    stem: Stem | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        x = x if self.stem is None else self.stem(x, train=train)
        for i in range(self.count):
            x = self.block(stride=1 if i else self.stride, name=f"block_{i}")(x, train=train)
        return x


@parts.recorded(
    paper="He et al., CVPR 2016, arXiv:1512.03385",
    when="images, from thousands of examples on",
)
def resnet(
    depth: int = 18,
    width: int | None = None,
    small: bool | None = None,
    shortcut: str | None = None,
    norm: str = "batch",
    pool: str = "mean",
    dtype: str | None = None,
    remat: bool = False,
    eps: float = 1e-5,
    stride_first: bool = False,
) -> Encoder:
    """A residual network on images [B, H, W, C], a stage per group of blocks; the stem belongs to stage 0.

    Depths 18 and 34 have 4 groups of basic blocks, 50 and 101 of bottlenecks, of widths 64, 128, 256 and 512 (four
    times that after bottlenecks). Depths 20, 32, 44, 56 and 110 are the paper's networks for CIFAR: 3 groups of
    basic blocks of widths 16, 32 and 64. Rounding apart, torchvision's weights give torchvision's features.

    Args:
      depth: one of the above.
      width: of the first group; None for 64, or 16 in the CIFAR family. Each group doubles it.
      small: the stem of small images, a 3x3 convolution without stride or pooling; None: in the CIFAR family only.
      shortcut: "project" (a 1x1 convolution, option B) or "pad" (option A, without parameters) where shapes change;
        None: "pad" in the CIFAR family, else "project".
      norm: "batch" or "group".
      pool: "mean" over positions, "flatten", or "none" for images as they are.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
      eps: of batch normalisation.
      stride_first: a bottleneck's stride is on its first 1x1 convolution, as in the paper and in Keras, in place of the
        3x3.
    """
    cifar = depth in CIFAR
    if not cifar and depth not in IMAGENET:
        raise ValueError(f"resnet: depth={depth!r} must be one of {', '.join(map(str, sorted({*IMAGENET, *CIFAR})))}")
    counts = ((depth - 2) // 6,) * 3 if cifar else IMAGENET[depth]
    width = (16 if cifar else 64) if width is None else width
    layers.check_sizes("resnet", width=width)
    small = cifar if small is None else small
    shortcut = ("pad" if cifar else "project") if shortcut is None else shortcut
    for argument, value, allowed in (("shortcut", shortcut, SHORTCUTS), ("norm", norm, NORMS)):
        if value not in allowed:
            raise parts.unknown(f"{argument} of resnet", value, allowed)
    stages = []
    for i, count in enumerate(counts):
        block = functools.partial(
            Block, width=width * 2**i, bottleneck=depth in BOTTLENECKS, shortcut=shortcut, norm=norm, dtype=dtype,
            eps=eps, stride_first=stride_first,
        )  # fmt: skip
        stages.append(Group(block, count, 2 if i else 1, None if i else Stem(width, small, norm, dtype, eps)))
    check = layers.ImageCheck("resnet")
    return base.assemble(stages, layers.image_pool(pool, "resnet"), remat)._replace(check=check)

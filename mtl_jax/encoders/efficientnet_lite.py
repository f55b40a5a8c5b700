"""EfficientNet-Lite (Tan and Le, ICML 2019, arXiv:1905.11946, in the variant without squeeze-and-excitation, ReLU6).

Blocks are MobileNet's inverted residuals (Sandler et al., CVPR 2018, arXiv:1801.04381): widen, filter each channel by
itself, narrow. Padding is TensorFlow's "SAME", so that its weights give its features.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv

# blocks, kernel, stride, expansion, width of each stage
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
VARIANTS = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260), 3: (1.2, 1.4, 280), 4: (1.4, 1.8, 300)}
NORMS = ("batch", "group")


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)


class Block(nn.Module):
    """An inverted residual: 1x1 to `expansion` times the width, a filter per channel, 1x1 to the new width.

    Its input is added where it has the output's shape.
    """

    width: int
    kernel: int
    stride: int
    expansion: int
    norm: str
    eps: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        def convolved(y: Array, name: str, width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Array:
            y = conv(width, kernel, strides=stride, groups=groups, bias=False, dtype=self.dtype, name=f"{name}_conv")(y)
            return layers.normalise(y, self.norm, train=train, dtype=self.dtype, name=f"{name}_norm", eps=self.eps)

        inner = self.expansion * x.shape[-1]
        y = x if self.expansion == 1 else relu6(convolved(x, "expand", inner))
        y = relu6(convolved(y, "depthwise", inner, self.kernel, self.stride, inner))
        y = convolved(y, "project", self.width)
        return x + y if x.shape == y.shape else y


class Blocks(nn.Module):
    """Blocks of one width, the first with the stride; a convolution in front of the first stage and behind the last."""

    count: int
    width: int
    kernel: int
    stride: int
    expansion: int
    norm: str
    eps: float
    stem: int | None = None
    last: int | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        def convolved(y: Array, name: str, width: int, kernel: int, stride: int) -> Array:
            y = conv(width, kernel, strides=stride, bias=False, dtype=self.dtype, name=f"{name}_conv")(y)
            y = layers.normalise(y, self.norm, train=train, dtype=self.dtype, name=f"{name}_norm", eps=self.eps)
            return relu6(y)

        x = x if self.stem is None else convolved(x, "stem", self.stem, 3, 2)
        for i in range(self.count):
            block = Block(self.width, self.kernel, 1 if i else self.stride, self.expansion, self.norm, self.eps,
                          self.dtype, name=f"block_{i}")  # fmt: skip
            x = block(x, train=train)
        return x if self.last is None else convolved(x, "last", self.last, 1, 1)


def scaled(width: int, by: float) -> int:
    """`width` times `by`, rounded to a multiple of 8, but to no less than nine tenths."""
    found = max(8, int(by * width + 4) // 8 * 8)
    return found + 8 if found < 0.9 * by * width else found


def sizes(variant: int) -> list[tuple[int, int]]:
    """(blocks, width) of each stage; the first and last keep their one block."""
    by_width, by_depth, _ = VARIANTS[variant]
    last = len(STAGES) - 1
    return [
        (count if i in (0, last) else math.ceil(by_depth * count), scaled(width, by_width))
        for i, (count, _, _, _, width) in enumerate(STAGES)
    ]


@parts.recorded(
    paper="Tan and Le, ICML 2019, arXiv:1905.11946; Lite as in its TPU repository",
    when="photographs with pretrained weights, on little hardware",
)
def efficientnet_lite(
    variant: int = 0,
    norm: str = "batch",
    pool: str = "mean",
    dtype: str | None = None,
    remat: bool = False,
    eps: float = 1e-3,
) -> Encoder:
    """An EfficientNet-Lite on images [B, H, W, C]: seven stages of inverted residuals; 1280 features.

    It was made for images of 224, 240, 260, 280 and 300 pixels (variants 0 to 4), and runs on others from 32 on.

    Args:
      variant: 0 to 4, of growing width and depth.
      norm: "batch" or "group".
      pool: "mean" over positions, "flatten", or "none" for images as they are.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
      eps: of batch normalisation.
    """
    if variant not in VARIANTS or isinstance(variant, bool):
        raise ValueError(f"efficientnet_lite: variant={variant!r} must be one of {', '.join(map(str, VARIANTS))}")
    if norm not in NORMS:
        raise parts.unknown("norm of efficientnet_lite", norm, NORMS)
    stages = []
    for i, ((_, kernel, stride, expansion, _), (count, wide)) in enumerate(zip(STAGES, sizes(variant), strict=True)):
        ends = None if i else 32, 1280 if i == len(STAGES) - 1 else None
        stages.append(Blocks(count, wide, kernel, stride, expansion, norm, eps, *ends, dtype))
    check = layers.ImageCheck("efficientnet_lite")
    return base.assemble(stages, layers.image_pool(pool, "efficientnet_lite"), remat)._replace(check=check)

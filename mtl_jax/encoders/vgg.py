"""VGG networks (Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556): 3x3 convolutions and max pooling."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.convolution import conv, max_pool

COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
NORMS = ("none", "batch", "group")


class Convolutions(nn.Module):
    """`count` 3x3 convolutions of one width, each with its ReLU, then max pooling by 2."""

    width: int
    count: int
    norm: str
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch h w width"]:
        if x.shape[1] < 2 or x.shape[2] < 2:
            raise ValueError("vgg: the image is too small to be halved five times; it needs 32 x 32 pixels")
        for i in range(self.count):
            x = conv(self.width, 3, bias=self.norm != "batch", dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.relu(layers.normalise(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{i}"))
        return max_pool(x, 2)


@parts.recorded(
    paper="Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556",
    when="images, where a plain stack of convolutions is to be compared",
)
def vgg(
    depth: int = 11,
    width: int = 64,
    norm: str = "none",
    pool: str = "flatten",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """The convolutions of a VGG network on images [B, H, W, C]: five stages, each ends by halving height and width.

    The paper's three dense layers are left to the heads, `Task(head="vector(hidden=(4096, 4096), dropout=0.5)")`.

    Args:
      depth: 11, 13, 16 or 19, as the paper counts with the dense layers.
      width: of the first stage; later ones have 2, 4, 8 and 8 times that.
      norm: "none", "batch" or "group", in front of each ReLU.
      pool: "flatten", "mean" over positions, or "none" for images as they are.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    if depth not in COUNTS:
        raise ValueError(f"vgg: depth={depth!r} must be one of {', '.join(map(str, COUNTS))}")
    layers.check_sizes("vgg", width=width)
    if norm not in NORMS:
        raise parts.unknown("norm of vgg", norm, NORMS)
    widths = [width * min(2**i, 8) for i in range(5)]
    stages = [Convolutions(w, n, norm, dtype) for w, n in zip(widths, COUNTS[depth], strict=True)]
    check = layers.ImageCheck("vgg")
    return base.assemble(stages, layers.image_pool(pool, "vgg"), remat)._replace(check=check)

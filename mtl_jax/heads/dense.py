"""Head on every pixel of an image: 1 x 1 convolutions (Long, Shelhamer and Darrell, CVPR 2015)."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax.encoders.positions import resampled
from mtl_jax.heads.base import Layers, check_layers
from mtl_jax.tasks import Task


class Dense(Layers):
    """The same layers at every pixel, then bilinear enlargement; outputs [B, H, W], or [B, H, W, size]."""

    enlarge: int = 1

    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Float[Array, "batch high wide ..."]:
        if isinstance(x, dict) or x.ndim != 4:
            found = "a sequence" if isinstance(x, dict) else x.shape
            raise ValueError(
                f"head dense reads images, features [B, H, W, channels], not {found}; its encoder must keep the "
                "positions (no pool to vectors)"
            )
        x = self.stack(x, train=train)
        if self.enlarge == 1:
            return x
        high, wide = (side * self.enlarge for side in x.shape[1:3])
        return resampled(x, (high, wide))


def dense(
    task: Task, hidden: tuple[int, ...] = (), dropout: float = 0.0, activation: str = "relu", enlarge: int = 1
) -> nn.Module:
    """A head on every pixel for `task`.

    Args:
      task: whose outputs it makes.
      hidden: channels of hidden 1 x 1 convolutions.
      dropout, activation: after each of them.
      enlarge: factor by which outputs are enlarged, where the encoder made its features smaller than the targets.

    Raises:
      ValueError: for an argument out of range; when called, if features are no images.
    """
    if not isinstance(enlarge, int) or enlarge < 1:
        raise ValueError(f"head dense: enlarge={enlarge!r} must be an integer of at least 1")
    return Dense(task.size, check_layers(hidden, dropout, activation, "head dense"), dropout, activation, enlarge)

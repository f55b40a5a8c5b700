"""Head on one vector per row."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders.base import values_of
from mtl_jax.encoders.layers import flat
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.heads.base import Layers, check_layers
from mtl_jax.tasks import Task

POOLS = {"mean": mean_over_positions, "flatten": lambda x: flat(values_of(x))}


class Vector(Layers):
    """Features as a vector, then the layers; outputs [B] for a task without size, else [B, size]."""

    pool: str = "mean"

    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Float[Array, "batch ..."]:
        return self.stack(POOLS[self.pool](x), train=train)


def vector(
    task: Task, hidden: tuple[int, ...] = (), dropout: float = 0.0, activation: str = "relu", pool: str = "mean"
) -> nn.Module:
    """A head on vectors for `task`.

    Args:
      task: whose outputs it makes.
      hidden: widths of hidden layers.
      dropout, activation: after each hidden layer.
      pool: how a sequence or an image becomes a vector: "mean" over positions (of a sequence, those of its mask), or
        "flatten", which keeps where things are, and reads a sequence's padding as it stands.

    Raises:
      ValueError: for an argument out of range.
    """
    parts.lookup(pool, POOLS, "pool of head vector")
    return Vector(task.size, check_layers(hidden, dropout, activation, "head vector"), dropout, activation, pool)

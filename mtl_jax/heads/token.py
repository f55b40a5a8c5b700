"""Head on every step of a sequence: tags of tokens, scores of the items of a list."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax.encoders.base import values_of
from mtl_jax.heads.base import Layers, check_layers
from mtl_jax.tasks import Task


class Token(Layers):
    """The same layers at every step; outputs [B, T] for a task without size, else [B, T, size]."""

    def __call__(self, x: Array | dict[str, Array], *, train: bool) -> Float[Array, "batch step ..."]:
        values = values_of(x)
        if values.ndim != 3:
            raise ValueError(
                f"head token reads a sequence, features [B, T, width], not {values.shape}; its encoder must keep the "
                "steps (no pool to vectors)"
            )
        return self.stack(values, train=train)


def token(task: Task, hidden: tuple[int, ...] = (), dropout: float = 0.0, activation: str = "relu") -> nn.Module:
    """A head on every step of a sequence for `task`.

    What it says of steps outside the sequence's mask means nothing; their labels are missing.

    Args:
      task: whose outputs it makes.
      hidden: widths of hidden layers, the same ones at every step.
      dropout, activation: after each hidden layer.

    Raises:
      ValueError: for an argument out of range; when called, if features are no sequence.
    """
    return Token(task.width, check_layers(hidden, dropout, activation, "head token"), dropout, activation)

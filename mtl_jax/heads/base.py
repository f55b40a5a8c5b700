"""What heads are made of: hidden layers, and the output layer."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax.encoders import layers


class Layers(nn.Module):
    """Hidden layers over the last axis, then a linear layer; outputs [...] for a task without size, else [..., size].

    Attributes:
      size: outputs per position; None for one without an axis of its own.
      hidden, dropout, activation: of the layers in front.
    """

    size: int | None
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    activation: str = "relu"

    @nn.compact
    def stack(self, x: Float[Array, "... width"], *, train: bool) -> Float[Array, "..."]:
        for i, width in enumerate(self.hidden):
            x = layers.ACTIVATIONS[self.activation](layers.by_rows(nn.Dense(width, name=f"hidden_{i}"), x))
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # Outputs, and so losses, are at least float32 whatever the encoder computes in.
        x = x.astype("float32") if x.dtype.itemsize < 4 else x
        x = layers.by_rows(nn.Dense(self.size or 1, name="out"), x)
        return x[..., 0] if self.size is None else x


def check_layers(hidden: tuple[int, ...], dropout: float, activation: str, kind: str) -> tuple[int, ...]:
    """The widths as a tuple, or an error that names the wrong argument of `kind`."""
    return layers.check(hidden, "none", activation, dropout, kind) if hidden else ()

"""Task heads: what turns a task's features into its outputs."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import layers
from mtl_jax.tasks import Task


class Vector(nn.Module):
    """Optional hidden layers, then a linear layer; outputs [B] for a task without size, else [B, size]."""

    size: int | None
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool) -> Float[Array, "batch ..."]:
        x = layers.flat(x)
        for i, width in enumerate(self.hidden):
            x = layers.ACTIVATIONS[self.activation](nn.Dense(width, name=f"hidden_{i}")(x))
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # Outputs, and so losses, are at least float32 whatever the encoder computes in.
        x = nn.Dense(self.size or 1, name="out")(x.astype("float32") if x.dtype.itemsize < 4 else x)
        return x[:, 0] if self.size is None else x


def vector(task: Task, hidden: tuple[int, ...] = (), dropout: float = 0.0, activation: str = "relu") -> nn.Module:
    """A head on vectors for `task`, with hidden layers of the given widths."""
    hidden = layers.check(hidden, "none", activation, dropout, "head vector") if hidden else ()
    return Vector(task.size, hidden, dropout, activation)


NAMES = {"vector": vector}


def build(task: Task) -> nn.Module:
    """The head that `task.head` names; a linear layer by default."""
    return parts.build(task.head or "vector", NAMES, f"head of task {task.name!r}:", task)

"""Pieces that stages are made of: activation, normalisation and dropout by name."""

import functools

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.parallel import data_axis

ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu, "gelu_exact": functools.partial(nn.gelu, approximate=False),
               "tanh": nn.tanh, "silu": nn.silu, "elu": nn.elu}  # fmt: skip
NORMS = ("none", "batch", "layer")


def check(features, norm: str, activation: str, dropout: float, kind: str) -> tuple[int, ...]:
    """The widths as a tuple, or an error that names the wrong argument of encoder `kind`."""
    widths = (features,) if isinstance(features, int) else tuple(features)
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"{kind}: features={features!r} must be positive integers, one per stage")
    if norm not in NORMS:
        raise parts.unknown(f"norm of {kind}", norm, NORMS)
    parts.lookup(activation, ACTIVATIONS, f"activation of {kind}")
    if not 0 <= dropout < 1:
        raise ValueError(f"{kind}: dropout={dropout!r} must lie in [0, 1)")
    return widths


def check_sizes(kind: str, **sizes: int) -> None:
    """An error that names the first argument of encoder `kind` that is no positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{kind}: {name}={size!r} must be a positive integer")


class Finish(nn.Module):
    """Normalisation, activation and dropout, which follow a stage's linear map."""

    norm: str = "none"
    activation: str = "relu"
    dropout: float = 0.0
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ... width"], *, train: bool) -> Float[Array, "batch ... width"]:
        if self.norm == "batch":
            # Under pmap, statistics are those of the whole batch; under jit they are so by themselves.
            axis = data_axis()
            x = nn.BatchNorm(
                use_running_average=not train, momentum=0.9, axis_name=axis, dtype=self.dtype, name="norm"
            )(x)
        elif self.norm == "layer":
            x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        x = ACTIVATIONS[self.activation](x)
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x


def flat(x: Float[Array, "batch ..."]) -> Float[Array, "batch width"]:
    """One vector per row."""
    return jax.numpy.reshape(x, (x.shape[0], -1))

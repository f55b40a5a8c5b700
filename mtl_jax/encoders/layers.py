"""Pieces that stages are made of: activation, normalisation and dropout by name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtl_jax import partition, parts
from mtl_jax.inputs import Place, check_finite
from mtl_jax.parallel import data_axis


def keeps_slope(function: Callable) -> Callable:
    """The same elementwise function; its backward pass reads the slope, made once, instead of all that led to it.

    A multi-task step pulls back once per task, so that what one pull reads counts as often.
    """

    @jax.custom_jvp
    def same(x: Array) -> Array:
        return function(x)

    @same.defjvp
    def _(point: tuple[Array], tangent: tuple[Array]) -> tuple[Array, Array]:
        # Of a point apart: what led to the value is else kept for the slope, three arrays of a gelu in place of one.
        apart = jax.lax.optimization_barrier(point[0])
        slope = jax.jvp(function, (apart,), (jnp.ones_like(apart),))[1]
        return function(point[0]), slope * tangent[0]

    return same


ACTIVATIONS = {"relu": nn.relu, "gelu": keeps_slope(nn.gelu), "tanh": nn.tanh, "silu": keeps_slope(nn.silu),
               "gelu_exact": keeps_slope(functools.partial(nn.gelu, approximate=False)), "elu": nn.elu}  # fmt: skip
NORMS = ("none", "batch", "layer", "group")
IMAGE_POOLS = ("flatten", "mean", "none")


def by_rows(layer: nn.Dense, x: Float[Array, "*rows width"]) -> Float[Array, "*rows out"]:
    """A dense layer over one axis of rows: for sequences and images its backward pass is much faster on a CPU.

    XLA writes the transposed cotangents that the kernel's gradient reads; over several axes that copy is slow.
    """
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], layer.features)


def check(features, norm: str, activation: str, dropout: float, kind: str, name: str = "features") -> tuple[int, ...]:
    """The widths, argument `name`, as a tuple, or an error that names the wrong argument of encoder `kind`."""
    widths = (features,) if isinstance(features, int) or not hasattr(features, "__iter__") else tuple(features)
    if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
        raise ValueError(f"{kind}: {name}={features!r} must be positive integers")
    if norm not in NORMS:
        raise parts.unknown(f"norm of {kind}", norm, NORMS)
    if not isinstance(activation, str):
        raise parts.no_such(f"activation of {kind}", activation, f"one of {', '.join(ACTIVATIONS)}, by name")
    parts.lookup(activation, ACTIVATIONS, f"activation of {kind}")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"{kind}: dropout={dropout!r} must lie in [0, 1)")
    return widths


def check_sizes(kind: str, **sizes: int) -> None:
    """An error that names the first argument of encoder `kind` that is no positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{kind}: {name}={size!r} must be a positive integer")


def normalise(
    x: Float[Array, "batch ... width"],
    norm: str,
    *,
    train: bool,
    dtype: str | None = None,
    name: str = "norm",
    mask: Bool[Array, "batch ..."] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "batch ... width"]:
    """Applies one of `NORMS` as a submodule of the caller, called `name`.

    Args:
      x: features.
      norm: "batch": by channel, over the batch and all positions (momentum 0.9, epsilon `eps`, as PyTorch's momentum
        0.1). "layer": at each position, over channels. "group": per row, over positions and groups of 16 channels (all
        channels, if 16 does not divide them), Wu and He, ECCV 2018, arXiv:1803.08494.
      train: use the batch's statistics and update the running ones.
      dtype: of the computation.
      name: of the submodule.
      mask: positions that statistics are taken over. Under pmap, each device's batch statistics count alike.
      eps: of batch normalisation.
    """
    if mask is not None and norm in ("batch", "group"):
        rows = tuple(range(mask.ndim)) if norm == "batch" else tuple(range(1, mask.ndim))
        # Where nothing counts, everything does: a mean over nothing is nan.
        mask = jnp.broadcast_to((mask | ~mask.any(rows, keepdims=True))[..., None], x.shape)
    if norm == "batch":
        # Under pmap, statistics are those of the whole batch; under jit they are so by themselves.
        axis = data_axis()
        module = nn.BatchNorm(not train, momentum=0.9, epsilon=eps, axis_name=axis, dtype=dtype, name=name)
        return module(x, mask=mask)
    if norm == "layer":
        return nn.LayerNorm(dtype=dtype, name=name)(x)
    if norm == "group":
        size = 16 if x.shape[-1] % 16 == 0 else x.shape[-1]
        return nn.GroupNorm(num_groups=None, group_size=size, dtype=dtype, name=name)(x, mask=mask)
    return x


class Finish(nn.Module):
    """Normalisation, activation and dropout, which follow a stage's linear map; `mask` says where values count."""

    norm: str = "none"
    activation: str = "relu"
    dropout: float = 0.0
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch ... width"], *, train: bool, mask: Bool[Array, "batch ..."] | None = None
    ) -> Float[Array, "batch ... width"]:
        x = normalise(x, self.norm, train=train, dtype=self.dtype, mask=mask)
        x = ACTIVATIONS[self.activation](x)
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x


class ImagePool(nn.Module):
    """Images to vectors: "mean" over positions, or "flatten", which keeps where things are."""

    how: str

    def __call__(self, x: Float[Array, "batch high wide channel"], *, train: bool) -> Float[Array, "batch width"]:
        if self.how == "mean" and getattr(x, "ndim", None) != 4:
            raise ValueError(f"pool 'mean' takes images [B, H, W, C], not {getattr(x, 'shape', type(x).__name__)}")
        return x.mean((1, 2)) if self.how == "mean" else flat(x)


class ImageCheck(NamedTuple):
    """`Encoder.check` of an encoder of images: four axes, finite."""

    kind: str

    def __call__(self, inputs: Any, where: Place) -> None:
        for path, leaf in partition.flatten(inputs).items():
            shape = np.shape(leaf)
            if len(shape) != 4:
                hint = "; of one channel make inputs[..., None]" if len(shape) == 3 else ""
                raise ValueError(f"{where(path)} have shape {shape}; {self.kind} takes images [B, H, W, C]{hint}")
        check_finite(inputs, where, self.kind)


def image_pool(how: str, kind: str) -> ImagePool | None:
    """The pool called `how`; None for "none", which leaves images for heads that read every pixel."""
    if how not in IMAGE_POOLS:
        raise parts.unknown(f"pool of {kind}", how, IMAGE_POOLS)
    return None if how == "none" else ImagePool(how)


def flat(x: Float[Array, "batch ..."]) -> Float[Array, "batch width"]:
    """One vector per row."""
    return jnp.reshape(x, (x.shape[0], -1))

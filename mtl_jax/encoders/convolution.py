"""Convolution and pooling that are quick on every platform, inside compiled loops too.

XLA's CPU convolutions run about ten times slower inside a `lax.scan` or `lax.map` than outside, and a step is both. On
a CPU a convolution is therefore written as one matrix product over shifted copies of the input; elsewhere it is XLA's.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def convolve(
    inputs: Float[Array, "batch high wide channel"],
    kernel: Float[Array, "kernel_high kernel_wide channel width"],
    window_strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **more: Any,
) -> Float[Array, "batch h w width"]:
    """Like `jax.lax.conv_general_dilated`, whose arguments it takes so that `flax.linen.Conv` can call it."""
    plain = (
        padding == "SAME"
        and feature_group_count == 1
        and all(s == 1 for d in (window_strides, lhs_dilation or (), rhs_dilation or ()) for s in d)
    )
    if not plain or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            inputs, kernel, window_strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers, feature_group_count=feature_group_count, precision=precision, **more,
        )  # fmt: skip
    rows, columns, channels, width = kernel.shape
    high, wide = inputs.shape[1:3]
    around = [((n - 1) // 2, n // 2) for n in (rows, columns)]
    padded = jnp.pad(inputs, ((0, 0), *around, (0, 0)))
    shifted = [padded[:, i : i + high, j : j + wide] for i in range(rows) for j in range(columns)]
    patches = jnp.concatenate(shifted, -1)
    return jnp.einsum("nhwp,po->nhwo", patches, kernel.reshape(rows * columns * channels, width), precision=precision)


def max_pool(x: Float[Array, "batch high wide channel"], window: int) -> Float[Array, "batch h w channel"]:
    """The maximum over squares of side `window`; rows and columns that fill no square are dropped."""
    if window == 1:
        return x
    high, wide = x.shape[1] // window, x.shape[2] // window
    x = x[:, : high * window, : wide * window]
    return x.reshape(len(x), high, window, wide, window, x.shape[-1]).max((2, 4))

"""Convolution and pooling that are quick on every platform, inside compiled loops too.

XLA's CPU convolutions run about ten times slower inside a `lax.scan` or `lax.map` than outside, and a step is both. On
a CPU a convolution is therefore written as one matrix product over shifted copies of the input; elsewhere it is XLA's.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al., ICCV 2015, arXiv:1502.01852


def shifted(
    x: Array, sides: Sequence[int], strides: Sequence[int], dilation: Sequence[int], pads: Pads, fill: float
) -> list[Array]:
    """For each place of a window, what the windows over the padded [B, ..., C] hold there: each is [B, ..., C]."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    spans = [
        [(i * d, i * d + (size - (side - 1) * d - 1) // s * s + 1, s) for i in range(side)]
        for size, side, s, d in zip(padded.shape[1:-1], sides, strides, dilation, strict=True)
    ]
    return [padded[(slice(None), *(slice(*span) for span in place))] for place in itertools.product(*spans)]


def convolve(
    inputs: Float[Array, "batch ... channel"],
    kernel: Float[Array, "... fan width"],
    window_strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **more: Any,
) -> Float[Array, "batch ... width"]:
    """Like `jax.lax.conv_general_dilated`, whose arguments it takes so that `flax.linen.Conv` can call it.

    Arrays are [B, H, W, C] or [B, T, C]. Depthwise convolutions are sums of shifted products on a CPU, which is several
    times quicker than XLA's. Other grouped, and transposed convolutions are XLA's everywhere.
    """
    depthwise = 1 < feature_group_count == inputs.shape[-1] == kernel.shape[-1]
    grouped = feature_group_count != 1 and not depthwise
    if jax.default_backend() != "cpu" or grouped or any(d != 1 for d in lhs_dilation or ()):
        return jax.lax.conv_general_dilated(
            inputs, kernel, window_strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers, feature_group_count=feature_group_count, precision=precision, **more,
        )  # fmt: skip
    sides = kernel.shape[:-2]
    dilation = rhs_dilation or (1,) * len(sides)
    if isinstance(padding, str):
        reach = [(n - 1) * d + 1 for n, d in zip(sides, dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(inputs.shape[1:-1], reach, window_strides, padding)
    places = shifted(inputs, sides, window_strides, dilation, padding, 0)
    if depthwise:
        weights = kernel.reshape(-1, kernel.shape[-1])
        return functools.reduce(jnp.add, (x * w for x, w in zip(places, weights, strict=True)))
    patches = jnp.concatenate(places, -1)
    return jnp.einsum("...p,po->...o", patches, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


def max_pool(
    x: Float[Array, "batch high wide channel"], window: int, stride: int | None = None, padding: int = 0
) -> Float[Array, "batch h w channel"]:
    """The maximum over squares of side `window`, `stride` apart (None: side by side), with `padding` on each side.

    Rows and columns that fill no square are dropped.
    """
    stride = window if stride is None else stride
    if window == stride == 1:
        return x
    if window == stride and not padding:
        high, wide = x.shape[1] // window, x.shape[2] // window
        x = x[:, : high * window, : wide * window]
        return x.reshape(len(x), high, window, wide, window, x.shape[-1]).max((2, 4))
    pads = ((padding, padding),) * 2
    return functools.reduce(jnp.maximum, shifted(x, (window,) * 2, (stride,) * 2, (1, 1), pads, -jnp.inf))


def conv(
    width: int,
    kernel: int | tuple[int, ...],
    *,
    strides: int = 1,
    padding: Any = "SAME",
    dilation: int = 1,
    bias: bool = True,
    init: nn.initializers.Initializer = HE,
    dtype: str | None = None,
    name: str = "conv",
    groups: int = 1,
) -> nn.Conv:
    """A Linen convolution that computes with `convolve`; `kernel` is (side,) for [B, T, C], or the side of a square."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv(
        width, sides, strides=strides, padding=padding, kernel_dilation=dilation, use_bias=bias, dtype=dtype,
        kernel_init=init, conv_general_dilated=convolve, feature_group_count=groups, name=name,
    )  # fmt: skip

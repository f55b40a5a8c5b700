"""Vectors for numbers: a column's number becomes several, so that one dense layer can bend and break along it.

Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS 2022,
arXiv:2203.05556. Numbers come standardised, and are first drawn in smoothly, x / sqrt(1 + (x / 3)^2), so that an
outlier is just far out (Holzmueller, Grinsztajn and Steinwart, "Better by default", NeurIPS 2024, arXiv:2407.04491).
"""

import statistics
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import parts

REACH = 3.0  # numbers end up in (-REACH, REACH)


def drawn_in(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x / sqrt(1 + (x / REACH)^2): nearly x within one standard deviation, and bounded."""
    return x * jax.lax.rsqrt(1 + jnp.square(x / REACH))


def edges(bins: int) -> np.ndarray:
    """[bins + 1]: quantiles of the standard normal distribution between the ends of what `drawn_in` gives."""
    inner = [statistics.NormalDist().inv_cdf(i / bins) for i in range(1, bins)]
    return np.array([-REACH, *inner, REACH], np.float32)


def piecewise_linear(x: Float[Array, "..."], edges: np.ndarray) -> Float[Array, "... bin"]:
    """How much of each bin lies below x, from 0 to 1 (equation 1 of the paper)."""
    low, high = edges[:-1].astype(x.dtype), edges[1:].astype(x.dtype)
    return jnp.clip((x[..., None] - low) / (high - low), 0, 1)


class PerColumn(nn.Module):
    """A linear map of its own for each column: x [B, n, d] to [B, n, width]."""

    width: int
    kernel_init: nn.initializers.Initializer
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch column entry"]) -> Float[Array, "batch column width"]:
        shape = x.shape[1:]
        kernel = self.param("kernel", self.kernel_init, (*shape, self.width)).astype(x.dtype)
        y = jnp.einsum("bnd,ndw->bnw", x, kernel)
        return y + self.param("bias", nn.initializers.zeros, (shape[0], self.width)).astype(x.dtype) if self.bias else y


class Piecewise(nn.Module):
    """a x + b + W (piecewise-linear encoding of x), column by column; W starts at 0.

    The paper's bins are quantiles of the training data. These are quantiles of the normal distribution, so that an
    encoder's text says all of it and data that arrives later, or another data set, changes no bin.
    """

    width: int
    bins: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch column"]) -> Float[Array, "batch column width"]:
        x = drawn_in(x)
        line = PerColumn(self.width, nn.initializers.normal(1.0), name="line")(x[..., None])
        bent = PerColumn(self.width, nn.initializers.zeros, bias=False, name="bent")
        return line + bent(piecewise_linear(x, edges(self.bins)))


class Periodic(nn.Module):
    """[x, W cos(2 pi f x + p) + b], column by column, with learned frequencies f drawn from normal(0, `sigma`).

    The paper has sines and cosines and a ReLU; phases, and x itself beside them, are Holzmueller et al.'s.
    """

    width: int
    bins: int  # number of frequencies
    sigma: float = 0.3

    @nn.compact
    def __call__(self, x: Float[Array, "batch column"]) -> Float[Array, "batch column width"]:
        x = drawn_in(x)
        shape = (x.shape[1], self.bins)
        frequency = self.param("frequency", nn.initializers.normal(self.sigma), shape).astype(x.dtype)
        phase = self.param("phase", _phases, shape).astype(x.dtype)
        waves = jnp.cos(2 * np.pi * frequency * x[..., None] + phase)
        start = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, batch_axis=0)
        waves = PerColumn(self.width - 1, start, name="waves")(waves)
        return jnp.concatenate([x[..., None], waves], -1)


def _phases(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -np.pi, np.pi)


NUMBERS: dict[str, Any] = {"plain": None, "piecewise": Piecewise, "periodic": Periodic}


def check(numbers: str, width: int, bins: int, kind: str) -> None:
    """An error that names the wrong argument of encoder `kind`."""
    parts.lookup(numbers, NUMBERS, f"numbers of {kind}")
    for name, value in {"width": width, "bins": bins}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise ValueError(f"{kind}: {name}={value!r} must be an integer of at least 2")

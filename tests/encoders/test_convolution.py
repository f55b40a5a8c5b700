"""Convolutions and pooling against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.encoders import convolution
from tests import tiny

# kernel, strides, padding, dilation
CONVOLUTIONS = [
    ((1, 1), (1, 1), "SAME", (1, 1)), ((2, 2), (1, 1), "SAME", (1, 1)), ((3, 3), (1, 1), "SAME", (1, 1)),
    ((5, 5), (1, 1), "SAME", (1, 1)), ((1, 1), (2, 2), "VALID", (1, 1)), ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)), ((3, 2), (2, 3), "SAME", (1, 2)), ((3, 3), (1, 1), "VALID", (2, 1)),
    ((3,), (1,), "SAME", (1,)), ((3,), (1,), ((4, 0),), (2,)), ((4,), (3,), "SAME", (1,)),
]  # fmt: skip

DEPTHWISE = [((3, 3), (1, 1), "SAME", (1, 1)), ((5, 5), (2, 2), "SAME", (1, 1)), ((3,), (1,), ((2, 0),), (1,))]


def test_convolutions_are_xlas():
    """Values and gradients against jax.lax.conv_general_dilated, depthwise ones too, in float64."""
    draw, every = np.random.default_rng(0), CONVOLUTIONS + DEPTHWISE

    def summed(function):
        def loss(x, w):
            return (function(x, w) ** 2).sum(), function(x, w)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)

    with jax.enable_x64(True):
        inputs = [jnp.asarray(draw.normal(size=(2, 7, 6, 3)[: 2 + len(k[0])][:-1] + (3,))) for k in every]
        kernels = [jnp.asarray(draw.normal(size=(*k[0], *((3, 4) if k in CONVOLUTIONS else (1, 3))))) for k in every]

        @jax.jit
        def both(inputs, kernels):
            found, expected = [], []
            for x, w, (_, strides, padding, dilation) in zip(inputs, kernels, every, strict=True):
                groups = 1 if w.shape[-2] == 3 else 3
                names = ("NHWC", "HWIO", "NHWC") if len(strides) == 2 else ("NWC", "WIO", "NWC")

                def own(x, w, s=strides, p=padding, d=dilation, g=groups):
                    return convolution.convolve(x, w, s, p, rhs_dilation=d, feature_group_count=g)

                def xla(x, w, s=strides, p=padding, d=dilation, n=names, g=groups):
                    return jax.lax.conv_general_dilated(
                        x, w, s, p, rhs_dilation=d, dimension_numbers=n, feature_group_count=g
                    )

                found.append(summed(own)(x, w))
                expected.append(summed(xla)(x, w))
            return found, expected

        found, expected = both(inputs, kernels)
    tiny.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window, stride, padding", [(2, None, 0), (3, 2, 1), (2, 1, 0), (1, None, 0)])
def test_pooling_is_xlas(window, stride, padding):
    """Values and gradients against jax.lax.reduce_window, in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 6, 3)))

        def own(x):
            return (convolution.max_pool(x, window, stride, padding) ** 2).sum()

        def xla(x):
            shape, steps = (1, window, window, 1), (1, *(stride or window,) * 2, 1)
            pads = ((0, 0), *((padding, padding),) * 2, (0, 0))
            return (jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, shape, steps, pads) ** 2).sum()

        found, expected = (jax.jit(jax.value_and_grad(f))(x) for f in (own, xla))
    tiny.assert_close(found, expected, rtol=1e-12)

"""Encoders: shapes, options, and convolutions against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import base, convolution
from tests import tiny


def run(encoder, x, train=False, seed=0):
    named = base.layers(encoder)

    def function(x):
        params, state, _ = base.init_layers(named, jax.random.key(0), x, "e")
        return base.apply_layers(named, params, state, x, train=train, key=jax.random.key(seed), prefix="e")

    return jax.jit(function)(x)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_convolution_and_pooling_are_xlas(kernel):
    """Values and gradients against jax.lax.conv_general_dilated and reduce_window, in float64."""
    with jax.enable_x64(True):
        draw = np.random.default_rng(kernel)
        x, w = jnp.asarray(draw.normal(size=(2, 7, 6, 3))), jnp.asarray(draw.normal(size=(kernel, kernel, 3, 4)))

        def own(x, w):
            y = convolution.convolve(x, w, (1, 1), "SAME", dimension_numbers=None)
            return (convolution.max_pool(y, 2) ** 2).sum()

        def xla(x, w):
            y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            return (y**2).sum()

        found, expected = (jax.jit(jax.value_and_grad(f, (0, 1)))(x, w) for f in (own, xla))
        tiny.assert_close(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "text, shape, width",
    [("linear(features=3)", (4, 2, 5), 3), ("mlp(features=(7, 3), norm='layer')", (4, 5), 3),
     ("cnn(features=(2, 3))", (4, 9, 8, 1), 12), ("cnn(features=(2, 3), pool='mean', norm='batch')", (4, 8, 8, 1), 3)],
)  # fmt: skip
def test_output_shapes(text, shape, width):
    x, _ = run(mtl.encoders.build(text), jnp.ones(shape))
    assert x.shape == (shape[0], width) and x.dtype == jnp.float32


def test_computation_in_bfloat16_keeps_float32_parameters():
    encoder = mtl.encoders.mlp(features=(4,), dtype="bfloat16")
    x, _ = run(encoder, jnp.ones((2, 3)))
    assert x.dtype == jnp.bfloat16
    model = mtl.sharing.hard(encoder, [mtl.Task("a", "regression")])
    variables = tiny.init(model, mtl.Batch(jnp.ones((2, 3)), {}, {}))
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs, _, _ = mtl.sharing.forward(model, variables, mtl.Batch(jnp.ones((2, 3)), {}, {}))
    assert outputs["a"].dtype == jnp.float32


def test_dropout_and_statistics_only_while_training():
    encoder, x = mtl.encoders.mlp(features=(50,), dropout=0.5, norm="batch"), jnp.arange(12.0).reshape(4, 3)
    still, changed = run(encoder, x)
    again, _ = run(encoder, x, seed=1)
    np.testing.assert_array_equal(still, again)
    assert not changed
    first, changed = run(encoder, x, train=True)
    second, _ = run(encoder, x, train=True, seed=1)
    assert (np.asarray(first) != np.asarray(second)).any() and "stage_0" in changed


def test_errors():
    with pytest.raises(ValueError, match="mlp: features=.* must be positive integers"):
        mtl.encoders.mlp(features=(8, 0))
    with pytest.raises(ValueError, match=r"unknown norm of mlp 'bach'; did you mean 'batch'\? \(none, batch, layer\)"):
        mtl.encoders.mlp(norm="bach")
    with pytest.raises(ValueError, match="unknown activation of cnn 'rellu'; did you mean 'relu'"):
        mtl.encoders.cnn(activation="rellu")
    with pytest.raises(ValueError, match=r"mlp: dropout=1.5 must lie in \[0, 1\)"):
        mtl.encoders.mlp(dropout=1.5)
    with pytest.raises(ValueError, match="an image of 1 x 1 is too small to pool by 2"):
        run(mtl.encoders.cnn(features=(2, 2)), jnp.ones((1, 2, 2, 1)))

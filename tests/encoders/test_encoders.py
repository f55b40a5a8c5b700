"""A table of encoders x properties: shapes, options, rows, padding."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.encoders import base, layers
from tests import tiny
from tests.encoders.drawing import features, run, variables


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


IMAGE, TABLE, SERIES = draw(4, 8, 8, 2), draw(4, 5), draw(4, 6, 3)
IDS = np.array([[5, 3, 8, 2, 0, 0], [4, 7, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [2, 3, 4, 5, 6, 7]])
SERIES = {"values": SERIES, "mask": IDS != 0}
MIXED = {"numbers": np.where(TABLE > 1, np.nan, TABLE), "categories": np.array([[0, 1], [-1, 2], [1, 0], [1, -1]])}
SOME = {"text": IDS, "table": TABLE, "table_present": np.array([True, False, True, True])}
TEXT = "transformer(width=4, depth=1, heads=2, vocabulary=9, length=9, pool={!r})"
# What to build, inputs of four rows, and the shape of a row of what comes out.
TABLE_OF_ENCODERS = [
    ("linear(features=3)", TABLE, (3,)),
    ("linear(features=3)", IMAGE, (3,)),
    ("mlp(features=(7, 3), norm='batch', dropout=0.1)", TABLE, (3,)),
    ("tabular(features=(6, 3), cardinalities=(2, 3), embedding=2)", MIXED, (3,)),
    ("tabm(features=(6, 3), cardinalities=(2, 3), members=2, embedding=2, width=3, bins=4)", MIXED, (2, 3)),
    ("cnn(features=(2, 3))", IMAGE, (12,)),
    ("cnn(features=(2, 16), pool='mean', norm='group')", IMAGE, (16,)),
    ("cnn(features=(2, 3), window=1, pool='none')", IMAGE, (8, 8, 3)),
    ("resnet(depth=20, width=2, norm='group')", IMAGE, (8,)),
    ("augmented('cnn(features=(2, 3))', flip=True)", IMAGE, (12,)),
    ("efficientnet_lite(norm='group')", draw(4, 32, 32, 3), (1280,)),
    ("vgg(depth=11, width=2, norm='group')", draw(4, 32, 32, 1), (16,)),
    ("vit(width=4, depth=1, heads=2, patch=4)", IMAGE, (4,)),
    ("unet(features=(2, 3, 4), norm='group')", IMAGE, (8, 8, 2)),
    ("rnn(features=(3,), cell='gru', vocabulary=9, embedding=2)", IDS, (3,)),
    ("rnn(features=(3, 2), bidirectional=True, dropout=0.1, pool='mean')", SERIES, (4,)),
    ("conv1d(features=(3, 2), dilation=2, window=2, norm='group')", SERIES, (2,)),
    ("conv1d(features=(4,), vocabulary=9, embedding=2, pool='none')", IDS, (6, 4)),
    (TEXT.format("mean"), IDS, (4,)),
    ("transformer(width=4, depth=1, heads=2, positions='rotary', norm='post', causal=True, pool='last')", SERIES, (4,)),
    (f"multimodal({{'text': {TEXT.format('last')!r}, 'table': 'mlp(features=(3,))'}}, 'concat')", SOME, (7,)),
    (f"multimodal({{'text': {TEXT.format('mean')!r}, 'table': 'mlp(features=(3,))'}}, 'gate', 6)", SOME, (6,)),
    (f"multimodal({{'text': {TEXT.format('none')!r}, 'table': 'mlp(features=(3,))'}}, 'attention', 6, 2, (5,), "
     "activation='tanh')", SOME, (5,)),
]  # fmt: skip
NAMES_IN_TABLE = [f"{text.split('(')[0]}-{i}" for i, (text, _, _) in enumerate(TABLE_OF_ENCODERS)]


OPTIONS = ("mlp(features=(7", "features=(2, 16)", "bidirectional", "positions='rotary'", "'attention'")


def with_option(text, option):
    return mtl.encoders.build(f"{text[:-1]}, {option})")


def test_the_table_lists_every_encoder():
    assert {text.split("(")[0] for text, _, _ in TABLE_OF_ENCODERS} == set(mtl.encoders.NAMES)


@pytest.mark.parametrize("text, x, shape", [
    # Sixteen blocks take long to compile; one is compared with XLA's convolutions in test_images.py.
    pytest.param(*row, id=name, marks=pytest.mark.slow if "efficientnet" in name else ())
    for row, name in zip(TABLE_OF_ENCODERS, NAMES_IN_TABLE, strict=True)
])  # fmt: skip
def test_what_every_encoder_does(text, x, shape):
    """Shape and dtype; rows do not meet; two rows draw the variables of all; with dtype='bfloat16' features are so and
    parameters are float32; rematerialised, it has the same paths.
    """
    encoder, options = mtl.encoders.build(text), [with_option(text, o) for o in ("dtype='bfloat16'", "remat=True")]
    assert mtl.encoders.build(encoder.spec).spec == encoder.spec
    x, swap = jax.tree.map(jnp.asarray, x), jnp.array([1, 0, 3, 2])
    params, state = variables(encoder, x)

    def outputs(x, encoder=encoder):
        return features(encoder, params, state, x)[0]

    compiled = jax.jit(outputs)
    y, swapped = compiled(x), compiled(jax.tree.map(lambda v: v[swap], x))
    assert y.shape == (4, *shape) and y.dtype == jnp.float32 and np.isfinite(y).all()
    np.testing.assert_allclose(swapped, y[swap], rtol=1e-5, atol=1e-6)
    assert np.abs(y - y[swap]).max() > 1e-4
    assert [jax.eval_shape(functools.partial(outputs, encoder=e), x).dtype for e in options] == ["bfloat16", "float32"]
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), params)
    for e in (encoder, *options):
        init = functools.partial(base.init_layers, base.layers(e), jax.random.key(0), prefix="e")
        assert jax.eval_shape(lambda x, init=init: init(x=x)[0], x) == shapes


@pytest.mark.parametrize("text, x", [row[:2] for row in TABLE_OF_ENCODERS if any(o in row[0] for o in OPTIONS)])
def test_options_change_no_value(text, x):
    """Rematerialised in training: the same loss, gradients, batch statistics and dropout. In bfloat16: nearly the same
    features. Every leaf has a gradient.
    """
    encoder, x = mtl.encoders.build(text), jax.tree.map(jnp.asarray, x)
    params, state = variables(encoder, x)

    def loss(params, encoder):
        y, new = features(encoder, params, state, x, train=True)
        return (y.astype(jnp.float32) ** 2).sum(), (y, new)

    @jax.jit
    def everything(params):
        both = [jax.value_and_grad(loss, has_aux=True)(params, e) for e in (encoder, with_option(text, "remat=True"))]
        return *both, loss(params, with_option(text, "dtype='bfloat16'"))[1][0]

    kept, anew, low = everything(params)
    tiny.assert_close(anew, kept, rtol=1e-5, atol=1e-6)
    for path, gradient in partition.flatten(kept[1]).items():
        # Weights are a softmax of products with keys: what all keys have in common changes none.
        assert np.abs(gradient).max() > 1e-7 or "key/bias" in path, path
    y = np.asarray(kept[0][1][0])
    assert low.dtype == jnp.bfloat16 and (np.asarray(low, np.float32) != y).any()
    np.testing.assert_allclose(low.astype(jnp.float32), y, atol=0.1 * np.abs(y).max())


@pytest.mark.parametrize(
    "text", ["rnn(features=(3, 2), bidirectional=True, pool={!r})", "conv1d(features=(3, 2), window=2, pool={!r})",
             "conv1d(features=(3, 16), kernel=4, dilation=2, norm='group', causal=True, pool={!r})",
             "transformer(width=4, depth=1, heads=2, pool={!r})",
             "transformer(width=4, depth=1, heads=2, norm='post', positions='rotary', pool={!r})"])  # fmt: skip
def test_more_padding_changes_nothing(text):
    """By every pool, though padding holds nan; and in training, with gradients."""
    longer = {"values": np.pad(SERIES["values"], ((0, 0), (0, 5), (0, 0)), constant_values=np.nan),
              "mask": np.pad(1 * SERIES["mask"], ((0, 0), (0, 5)))}  # fmt: skip
    encoders = [mtl.encoders.build(text.format(how)) for how in ("mean", "max", "first", "last")]
    named, (params, _) = base.layers(encoders[0])[:-1], variables(encoders[0], SERIES)

    def pooled(params, x):
        steps, _ = base.apply_layers(named, params, {}, x, train=True, key=jax.random.key(1), prefix="e")
        found = jnp.stack([e.pool.apply({}, steps, train=False) for e in encoders])
        return (found**2).sum(), found

    both = jax.jit(lambda params: [jax.value_and_grad(pooled, has_aux=True)(params, x) for x in (SERIES, longer)])
    short, long = both(params)
    tiny.assert_close(long, short, rtol=1e-5, atol=1e-5)


def test_computation_in_bfloat16_keeps_float32_parameters():
    encoder = mtl.encoders.mlp(features=(4,), dtype="bfloat16")
    x, _ = run(encoder, jnp.ones((2, 3)))
    assert x.dtype == jnp.bfloat16
    model = mtl.sharing.hard(encoder, [mtl.Task("a", "regression")])
    first = tiny.init(model, mtl.Batch(jnp.ones((2, 3)), {}, {}))
    assert {v.dtype for v in jax.tree.leaves(first)} == {jnp.dtype("float32")}
    outputs, _, _ = mtl.sharing.forward(model, first, mtl.Batch(jnp.ones((2, 3)), {}, {}))
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


def test_sequences_go_through_a_run(tmp_path):
    """Two tasks on token ids, trained, saved and loaded: same predictions."""
    tokens = np.tile(IDS, (20, 1))
    data = mtl.data.from_arrays(tokens, {"longs": (tokens != 0).sum(1) * 1.0, "five": (tokens == 5).any(1) * 1.0})
    fitted = tiny.fit(mtl.sharing.hard(mtl.encoders.build(TEXT.format("mean")), data.tasks), data)
    fitted.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run").predict(data.test.inputs)
    tiny.assert_same(loaded, fitted.predict(data.test.inputs))


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_that_keep_their_slope_are_flaxs(name):
    """Value, first and second derivative against flax's function."""
    own = {"gelu_exact": functools.partial(nn.gelu, approximate=False)}.get(name) or getattr(nn, name)
    x = jnp.linspace(-3.1, 3.2, 40)
    for both in zip(*([f, jax.grad(f), jax.grad(jax.grad(f))] for f in (own, layers.ACTIVATIONS[name])), strict=True):
        np.testing.assert_allclose(*(jax.vmap(f)(x) for f in both), rtol=1e-5, atol=1e-6)


def test_of_a_gelu_no_more_is_kept_than_of_relu():
    """By XLA's account of a backward pass: with the pieces that the slope is made of it was twice as much."""

    def temporaries(act):
        def loss(thin, kernels, x):
            for a, (w, v) in zip(thin, kernels, strict=True):
                x = act(x @ w + (x @ a) @ a.T @ w) @ v + x
            return (x**2).mean()

        thin, kernels = [jnp.ones((16, 2))] * 3, [(jnp.ones((16, 256)), jnp.ones((256, 16)))] * 3
        program = jax.jit(jax.grad(loss)).lower(thin, kernels, jnp.ones((128, 16))).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(layers.ACTIVATIONS["gelu_exact"]) < 1.1 * temporaries(nn.relu)


def test_errors():
    with pytest.raises(ValueError, match="mlp: features=.* must be positive integers"):
        mtl.encoders.mlp(features=(8, 0))
    with pytest.raises(
        ValueError, match=r"unknown norm of mlp 'bach'; did you mean 'batch'\? \(none, batch, layer, gr"
    ):
        mtl.encoders.mlp(norm="bach")
    with pytest.raises(ValueError, match="unknown activation of cnn 'rellu'; did you mean 'relu'"):
        mtl.encoders.cnn(activation="rellu")
    with pytest.raises(ValueError, match=r"mlp: dropout=1.5 must lie in \[0, 1\)"):
        mtl.encoders.mlp(dropout=1.5)
    for text, size, message in (
        ("cnn(features=(2, 2))", 2, "cnn: an image of 1 x 1 is too small to pool by 2"),
        ("vgg(width=2)", 16, "vgg: the image is too small to be halved five times; it needs 32 x 32 pixels"),
        ("unet(features=(2, 2, 2))", 3, "unet: an image of 1 x 1 is too small to be halved"),
        ("vit(width=4, patch=4)", 6, "vit: an image of 6 x 6 cannot be cut into patches of side 4"),
    ):
        with pytest.raises(ValueError, match=message):
            variables(mtl.encoders.build(text), jnp.ones((2, size, size, 1)))
    for text, message in (
        ("resnet(depth=19)", "resnet: depth=19 must be one of 18, 20, 32, 34, 44, 50, 56, 101, 110"),
        ("resnet(shortcut='a')", r"unknown shortcut of resnet 'a'; .*\(pad, project\)"),
        ("resnet(norm='layer')", r"unknown norm of resnet 'layer'; .*\(batch, group\)"),
        ("vgg(depth=12)", "vgg: depth=12 must be one of 11, 13, 16, 19"),
        ("unet(features=(8,))", r"unet: features=\(8,\) must have at least two entries"),
        ("vit(pool='first')", r"unknown pool of vit 'first'; .*\(class, mean, none\)"),
        ("conv1d(window=0)", "conv1d: window=0 must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            mtl.encoders.build(text)

"""A table of encoders x properties: shapes, options, rows, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.encoders import base
from tests import tiny


def run(encoder, x, train=False, seed=0):
    named = base.layers(encoder)

    def function(x):
        params, state, _ = base.init_layers(named, jax.random.key(0), x, "e")
        return base.apply_layers(named, params, state, x, train=train, key=jax.random.key(seed), prefix="e")

    return jax.jit(function)(x)


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
    ("cnn(features=(2, 3))", IMAGE, (12,)),
    ("cnn(features=(2, 16), pool='mean', norm='group')", IMAGE, (16,)),
    ("cnn(features=(2, 3), window=1, pool='none')", IMAGE, (8, 8, 3)),
    ("resnet(depth=20, width=2, norm='group')", IMAGE, (8,)),
    ("vgg(depth=11, width=2, norm='group')", draw(4, 32, 32, 1), (16,)),
    ("vit(width=4, depth=1, heads=2, patch=4)", IMAGE, (4,)),
    ("unet(features=(2, 3, 4), norm='group')", IMAGE, (8, 8, 2)),
    ("rnn(features=(3,), cell='gru', vocabulary=9, embedding=2)", IDS, (3,)),
    ("rnn(features=(3, 2), bidirectional=True, dropout=0.1, pool='mean')", SERIES, (4,)),
    ("conv1d(features=(3, 2), dilation=2, window=2, norm='group')", SERIES, (2,)),
    ("conv1d(features=(4,), vocabulary=9, embedding=2, pool='none')", IDS, (6, 4)),
    (TEXT.format("mean"), IDS, (4,)),
    ("transformer(width=4, depth=1, heads=2, positions='rotary', norm='post', causal=True, pool='last')", SERIES, (4,)),
    (f"multimodal({{'text': {TEXT.format('last')!r}, 'table': 'mlp(features=(3,))'}})", SOME, (7,)),
    (f"multimodal({{'text': {TEXT.format('mean')!r}, 'table': 'mlp(features=(3,))'}}, 'gate', 6)", SOME, (6,)),
    (f"multimodal({{'text': {TEXT.format('none')!r}, 'table': 'mlp(features=(3,))'}}, 'attention', 6, 2, (5,))",
     SOME, (5,)),
]  # fmt: skip
NAMES_IN_TABLE = [f"{text.split('(')[0]}-{i}" for i, (text, _, _) in enumerate(TABLE_OF_ENCODERS)]


OPTIONS = (
    "mlp",
    "cnn(features=(2, 16)",
    "rnn(features=(3, 2)",
    "transformer(width=4, depth=1, heads=2, pos",
    "multimodal",
)


def with_option(text, option):
    return mtl.encoders.build(f"{text[:-1]}, {option})")


def test_the_table_lists_every_encoder():
    assert {text.split("(")[0] for text, _, _ in TABLE_OF_ENCODERS} == set(mtl.encoders.NAMES)


@pytest.mark.parametrize("text, x, shape", TABLE_OF_ENCODERS, ids=NAMES_IN_TABLE)
def test_what_every_encoder_does(text, x, shape):
    """Shape and dtype; rows do not meet; two rows draw the variables of all; with dtype='bfloat16' features are so and
    parameters are float32; rematerialised, it has the same paths.
    """
    encoder, low, again = (
        mtl.encoders.build(text),
        with_option(text, "dtype='bfloat16'"),
        with_option(text, "remat=True"),
    )
    assert mtl.encoders.build(encoder.spec).spec == encoder.spec
    x, swap = jax.tree.map(jnp.asarray, x), jnp.array([1, 0, 3, 2])

    def outputs(x, encoder=encoder):
        named = base.layers(encoder)
        params, state, _ = base.init_layers(named, jax.random.key(0), jax.tree.map(lambda v: v[:2], x), "e")
        y, _ = base.apply_layers(named, params, state, x, train=False, key=None, prefix="e")
        return base.values_of(y), params

    compiled = jax.jit(outputs)
    (y, params), (swapped, _) = compiled(x), compiled(jax.tree.map(lambda v: v[swap], x))
    assert y.shape == (4, *shape) and y.dtype == jnp.float32 and np.isfinite(y).all()
    np.testing.assert_allclose(swapped, y[swap], rtol=1e-5, atol=1e-6)
    assert np.abs(y - y[swap]).max() > 1e-4
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), params)
    half, same = (jax.eval_shape(functools.partial(outputs, encoder=e), x) for e in (low, again))
    assert half[0].dtype == jnp.bfloat16 and half[1] == same[1] == shapes


@pytest.mark.parametrize("text, x", [row[:2] for row in TABLE_OF_ENCODERS if row[0].startswith(OPTIONS)])
def test_options_change_no_value(text, x):
    """Rematerialised in training: the same loss, gradients, batch statistics and dropout. In bfloat16: nearly the same
    features. Every leaf has a gradient.
    """
    named, again = base.layers(mtl.encoders.build(text)), base.layers(with_option(text, "remat=True"))
    half, x = base.layers(with_option(text, "dtype='bfloat16'")), jax.tree.map(jnp.asarray, x)

    @jax.jit
    def everything(x):
        params, state, _ = base.init_layers(named, jax.random.key(0), x, "e")

        def loss(params, named):
            y, new = base.apply_layers(named, params, state, x, train=True, key=jax.random.key(1), prefix="e")
            return (base.values_of(y).astype(jnp.float32) ** 2).sum(), (base.values_of(y), new)

        return [jax.value_and_grad(loss, has_aux=True)(params, n) for n in (named, again)], loss(params, half)[1][0]

    (kept, anew), low = everything(x)
    tiny.assert_close(anew, kept, rtol=1e-5, atol=1e-6)
    for path, gradient in partition.flatten(kept[1]).items():
        # Weights are a softmax of products with keys: what all keys have in common changes none.
        assert np.abs(gradient).max() > 1e-7 or "key/bias" in path, path
    features = np.asarray(kept[0][1][0])
    assert low.dtype == jnp.bfloat16 and (np.asarray(low, np.float32) != features).any()
    np.testing.assert_allclose(low.astype(jnp.float32), features, atol=0.1 * np.abs(features).max())


@pytest.mark.parametrize(
    "text", ["rnn(features=(3, 2), bidirectional=True, pool={!r})", "conv1d(features=(3, 2), window=2, pool={!r})",
             "conv1d(features=(3, 16), kernel=4, dilation=2, norm='group', causal=True, pool={!r})",
             "transformer(width=4, depth=1, heads=2, pool={!r})",
             "transformer(width=4, depth=1, heads=2, norm='post', positions='rotary', pool={!r})"])  # fmt: skip
def test_more_padding_changes_nothing(text):
    """By every pool, though padding holds nan; and in training, with gradients."""
    longer = {"values": np.pad(SERIES["values"], ((0, 0), (0, 5), (0, 0)), constant_values=np.nan),
              "mask": np.pad(SERIES["mask"], ((0, 0), (0, 5)))}  # fmt: skip
    encoders = [mtl.encoders.build(text.format(how)) for how in ("mean", "max", "first", "last")]
    named = base.layers(encoders[0])[:-1]

    def pooled(params, x):
        steps, _ = base.apply_layers(named, params, {}, x, train=True, key=jax.random.key(1), prefix="e")
        found = jnp.stack([e.pool.apply({}, steps, train=False) for e in encoders])
        return (found**2).sum(), found

    params = jax.jit(lambda: base.init_layers(named, jax.random.key(0), SERIES, "e")[0])()
    both = jax.jit(lambda params: [jax.value_and_grad(pooled, has_aux=True)(params, x) for x in (SERIES, longer)])
    short, long = both(params)
    tiny.assert_close(long, short, rtol=1e-5, atol=1e-6)


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


def test_sequences_go_through_a_run(tmp_path):
    """Two tasks on token ids, trained, saved and loaded: same predictions."""
    tokens = np.tile(IDS, (20, 1))
    data = mtl.data.from_arrays(tokens, {"longs": (tokens != 0).sum(1) * 1.0, "five": (tokens == 5).any(1) * 1.0})
    fitted = tiny.fit(mtl.sharing.hard(mtl.encoders.build(TEXT.format("mean")), data.tasks, shared_stages=1), data)
    fitted.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run").predict(data.test.inputs)
    tiny.assert_same(loaded, fitted.predict(data.test.inputs))


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

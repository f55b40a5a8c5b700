"""Vectors for numbers, against the papers' formulas written out in NumPy."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import numbers
from tests.encoders.drawing import run, variables

X = np.array([[-5.0, 0.2, 1e6], [0.0, np.nan, -0.7], [2.5, 1.3, 0.1]], np.float32)


def drawn_in(x):
    return x / np.sqrt(1 + (x / 3) ** 2)


def columns(encoder, x):
    """(parameters of the columns, what they give): the first stage's dense layer is the identity."""
    params, state = variables(encoder, jnp.asarray(x))
    stage = params["stage_0"]
    wide = stage["layer"]["dense"]["kernel"].shape[0]
    stage["layer"]["dense"] = {"kernel": np.eye(wide, dtype=np.float32), "bias": np.zeros(wide, np.float32)}
    columns = encoder.stages[0].columns
    return stage["columns"], np.asarray(columns.apply({"params": stage["columns"]}, jnp.asarray(x)))


def test_piecewise_linear_encoding():
    """Source: equation 1 of Gorishniy et al. 2022, bin by bin; bins are equally likely for normal numbers."""
    edges = numbers.edges(4)
    inner = [statistics.NormalDist().inv_cdf(p) for p in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(edges, [-3, *inner, 3], rtol=1e-6)
    x = np.array([-3.0, -1.0, 0.0, 0.3, 2.9], np.float32)
    expected = np.zeros((5, 4))
    for i, value in enumerate(x):
        for t in range(4):
            low, high = edges[t], edges[t + 1]
            expected[i, t] = 0 if value < low else 1 if value >= high else (value - low) / (high - low)
    np.testing.assert_allclose(numbers.piecewise_linear(jnp.asarray(x), edges), expected, rtol=1e-5, atol=1e-6)


def test_piecewise_by_hand():
    """a x + b + W e(x) of the number drawn in; where it is missing, the column's vector for that."""
    encoder = mtl.encoders.tabular(features=(6,), numbers="piecewise", width=2, bins=4)
    params, found = columns(encoder, X)
    x, expected = drawn_in(X), np.zeros((3, 3, 2))
    for row in range(3):
        for c in range(3):
            if np.isnan(X[row, c]):
                expected[row, c] = params["missing"][c]
                continue
            encoded = np.asarray(numbers.piecewise_linear(jnp.float32(x[row, c]), numbers.edges(4)))
            line = x[row, c] * params["numbers"]["line"]["kernel"][c, 0] + params["numbers"]["line"]["bias"][c]
            expected[row, c] = line + encoded @ params["numbers"]["bent"]["kernel"][c]
    np.testing.assert_allclose(found, expected.reshape(3, 6), rtol=1e-4, atol=1e-5)


def test_periodic_by_hand():
    """[x, W cos(2 pi f x + p) + b], as Holzmueller et al. 2024 have it."""
    encoder = mtl.encoders.tabular(features=(9,), numbers="periodic", width=3, bins=5)
    params, found = columns(encoder, X)
    x, waves = drawn_in(np.nan_to_num(X)), params["numbers"]["waves"]
    angle = 2 * np.pi * params["numbers"]["frequency"] * x[..., None] + params["numbers"]["phase"]
    expected = np.einsum("rcf,cfw->rcw", np.cos(angle), waves["kernel"]) + waves["bias"]
    expected = np.concatenate([x[..., None], expected], -1)
    expected[1, 1] = params["missing"][1]
    np.testing.assert_allclose(found, expected.reshape(3, 9), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["piecewise", "periodic"])
def test_outliers_and_missing_numbers(kind):
    """A number of 1e6 is one of 1e9; what is missing reaches neither features nor gradients."""
    encoder = mtl.encoders.tabular(features=(4,), numbers=kind, width=3, bins=4)
    near, far = (run(encoder, np.where(X > 1e3, big, X))[0] for big in (1e6, 1e9))
    np.testing.assert_allclose(near, far, rtol=1e-3, atol=1e-5)
    params, state = variables(encoder, jnp.asarray(X))

    def total(x, params):
        return encoder.stages[0].apply({"params": params["stage_0"]}, x, train=False).sum()

    by_x, by_params = jax.jit(jax.grad(total, (0, 1)))(jnp.asarray(X), params)
    assert np.isfinite(by_x).all() and by_x[1, 1] == 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(by_params))
    assert (np.asarray(by_params["stage_0"]["columns"]["missing"]) != 0).any(1).tolist() == [False, True, False]


def test_categories_that_training_lacks_say_nothing():
    """The row of missing and unseen categories starts at 0, and 0 it stays where no row needs it."""
    encoder = mtl.encoders.tabular(features=(4,), cardinalities=(3,), embedding=2)
    params = encoder.stages[0].init(jax.random.key(0), {"categories": jnp.zeros((2, 1), int)}, train=False)["params"]
    table = np.asarray(params["columns"]["category_0"]["embedding"])
    assert (table[0] == 0).all() and (table[1:] != 0).all()


def test_residual_stages_by_hand():
    """x + W2 relu(W1 x + b1) + b2, with a map of x where the width changes."""
    encoder = mtl.encoders.tabular(features=(4, 4, 3), block="residual", indicators=False)
    x = np.nan_to_num(X)
    params, _ = variables(encoder, jnp.asarray(x))

    def dense(at, y):
        return y @ at["kernel"] + at["bias"]

    y = np.maximum(dense(params["stage_0"]["layer"]["dense"], x / 1e3), 0)
    for stage in ("stage_1", "stage_2"):
        p = params[stage]
        kept = dense(p["skip"], y) if "skip" in p else y
        y = kept + dense(p["outer"], np.maximum(dense(p["inner"], y), 0))
    np.testing.assert_allclose(run(encoder, x / 1e3)[0], y, rtol=1e-4, atol=1e-5)
    assert "skip" in params["stage_2"] and "skip" not in params["stage_1"]


def test_errors():
    for text, message in {
        "tabular(numbers='fourier')": "unknown numbers of tabular 'fourier'; .*plain, piecewise, periodic",
        "tabular(numbers='periodic', width=1)": "tabular: width=1 must be an integer of at least 2",
        "tabm(bins=0)": "tabm: bins=0 must be an integer of at least 2",
        "tabular(block='resnet')": "unknown block of tabular 'resnet'",
    }.items():
        with pytest.raises(ValueError, match=message):
            mtl.encoders.build(text)

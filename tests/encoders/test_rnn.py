"""LSTM and GRU against loops over steps in NumPy, with gaps, padding and both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import base
from tests.encoders.drawing import features, run, variables


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(x, p):
    return x @ p.get("kernel") + p.get("bias", 0)


def lstm(x, state, p):
    h, c = state
    i, f, g, o = (dense(x, p["i" + n]) + dense(h, p["h" + n]) for n in "ifgo")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x, state, p):
    h, _ = state
    r, z = (sigmoid(dense(x, p["i" + n]) + dense(h, p["h" + n])) for n in "rz")
    new = np.tanh(dense(x, p["in"]) + r * dense(h, p["hn"]))
    return (1 - z) * new + z * h, None


def loop(cell, x, mask, p, steps):
    """Outputs per step, 0 where masked, and the final state; a masked step is skipped."""
    width = next(iter(p.values()))["kernel"].shape[-1]
    state, out = (np.zeros(width), np.zeros(width)), np.zeros((len(x), width))
    for t in steps:
        if mask[t]:
            state = cell(x[t], state, p)
            out[t] = state[0]
    return out, state[0]


@pytest.mark.parametrize("name, cell", [("lstm", lstm), ("gru", gru)])
def test_it_is_the_loop(name, cell):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, 6, 2))
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0]], bool)
    x[~mask] = np.nan
    encoder = mtl.encoders.rnn(features=(4, 3), cell=name, bidirectional=True, pool="final")
    named = base.layers(encoder)
    with jax.enable_x64(True):
        inputs = {"values": jnp.asarray(x), "mask": jnp.asarray(mask)}

        def outputs(params):
            steps, _ = base.apply_layers(named[:-1], params, {}, inputs, train=False, key=None, prefix="e")
            return steps, named[-1][1].apply({}, steps, train=False)

        params, _ = variables(encoder, inputs, np.float64)
        steps, final = jax.jit(outputs)(params)
    for row in range(3):
        y = x[row]
        for stage in ("stage_0", "stage_1"):
            p = params[stage]
            ahead, last = loop(cell, y, mask[row], p["forward"][name], range(6))
            back, first = loop(cell, y, mask[row], p["backward"][name], range(5, -1, -1))
            y = np.concatenate([ahead, back], -1)
        np.testing.assert_allclose(steps["values"][row], y, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(final[row], np.concatenate([last, first]), rtol=1e-10)


@pytest.mark.parametrize("text", [
    "rnn(features=(3,), vocabulary=9, embedding=5, affixes=7)",
    "conv1d(features=(3,), vocabulary=9, embedding=5, affixes=7)",
    "transformer(width=4, depth=1, heads=1, vocabulary=9, length=8, affixes=7)",
])  # fmt: skip
def test_affixes_are_added_to_words(text):
    """A word's vector is replaced by itself plus its affixes' vectors: the same outputs without affixes. By hand."""
    encoder = mtl.encoders.build(text)
    draw = np.random.default_rng(0)
    tokens, affixes = jnp.asarray(draw.integers(1, 9, (2, 4))), draw.integers(0, 7, (2, 4, 3))
    inputs = {"tokens": tokens, "affixes": jnp.asarray(affixes)}
    params, state = variables(encoder, inputs)
    first = params["stage_0"]
    table = np.concatenate([np.zeros((1, first["affix"]["embedding"].shape[1])), first["affix"]["embedding"][1:]])
    each = np.asarray(first["word"]["embedding"])[np.asarray(tokens)] + table[affixes].sum(2)
    plain = mtl.encoders.build(text.replace(", affixes=7", "").replace("vocabulary=9", "vocabulary=8"))
    numbered = jnp.arange(8).reshape(2, 4)
    there = {"tokens": numbered, "mask": jnp.ones((2, 4), bool)}
    rest = {k: v for k, v in first.items() if k != "affix"}
    swapped = rest | {"word": {"embedding": jnp.asarray(each.reshape(8, -1))}}
    found, _ = features(encoder, params, state, inputs)
    same, _ = features(plain, {**params, "stage_0": swapped}, state, there)
    np.testing.assert_allclose(found, same, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="affixes=7, and the inputs have none"):
        run(encoder, tokens)
    with pytest.raises(ValueError, match="got 'affixes' but has none; give it as many as the data have"):
        run(plain, inputs)
    with pytest.raises(ValueError, match="affixes=7 are of words; give vocabulary="):
        mtl.encoders.build(text.replace("vocabulary=9, ", ""))


def test_errors():
    with pytest.raises(ValueError, match=r"unknown cell of rnn 'lstn'; did you mean 'lstm'\? \(lstm, gru\)"):
        mtl.encoders.rnn(cell="lstn")
    with pytest.raises(ValueError, match=r"unknown pool of rnn 'finale'; did you mean 'final'"):
        mtl.encoders.rnn(pool="finale")
    with pytest.raises(ValueError, match=r"rnn got float32 \(2, 3\); it takes series, .* or with a vocabulary token"):
        run(mtl.encoders.rnn(), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"rnn got float32 \(2, 3, 4\); it takes token ids"):
        run(mtl.encoders.rnn(vocabulary=9), jnp.ones((2, 3, 4)))

"""Attention and transformers: against NumPy in float64, rotations, causality, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import attention, base, sequences
from tests.encoders.drawing import run, variables

IDS = jnp.asarray([[5, 3, 8, 2, 9], [4, 7, 0, 0, 0]])


def layer_norm(x, p, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def block(x, mask, p, *, heads, norm, causal, eps):
    """One row [T, width] through a block, loops over heads and steps; exact gelu."""

    def attend(y):
        width = y.shape[-1] // heads
        query, key, value = (dense(y, p["attention"][n]) for n in ("query", "key", "value"))
        out = np.zeros_like(y)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            for t in range(len(y)):
                seen = [s for s in range(len(y)) if mask[s] and (s <= t or not causal)]
                scores = np.array([query[t, part] @ key[s, part] / np.sqrt(width) for s in seen])
                weights = np.exp(scores - scores.max())
                out[t, part] = (weights / weights.sum()) @ value[seen, part]
        return dense(out, p["attention"]["out"])

    def feed(y):
        hidden = dense(y, p["hidden"])
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
        return dense(hidden, p["out"])

    for part, name in ((attend, "attention_norm"), (feed, "out_norm")):
        if norm == "pre":
            x = x + part(layer_norm(x, p[name], eps))
        else:
            x = layer_norm(x + part(x), p[name], eps)
    return layer_norm(x, p["last_norm"], eps) if "last_norm" in p else x


@pytest.mark.parametrize("norm, causal", [("post", False), ("pre", True)])
def test_it_is_the_formula(norm, causal):
    """Embeddings and two blocks in float64, each row by itself in NumPy; parameters drawn at random."""
    encoder = mtl.encoders.transformer(width=6, depth=2, heads=3, hidden=7, vocabulary=10, length=8, types=2, norm=norm,
                                       causal=causal, pool="none", activation="gelu_exact", eps=1e-5)  # fmt: skip
    inputs = {"tokens": IDS, "types": jnp.asarray([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]])}
    with jax.enable_x64(True):
        params, _ = variables(encoder, inputs, np.float64)
        named = base.layers(encoder)
        found, _ = jax.jit(lambda p: base.apply_layers(named, p, {}, inputs, train=False, key=None, prefix="e"))(params)
    p, mask = params, np.asarray(IDS != 0)
    np.testing.assert_array_equal(found["mask"], mask)
    for row in range(2):
        types = np.asarray(inputs["types"][row])
        x = p["stage_0"]["word"]["embedding"][IDS[row]] + p["stage_0"]["position"]["embedding"][:5]
        x = x + p["stage_0"]["type"]["embedding"][types]
        x = layer_norm(x, p["stage_0"]["norm"], 1e-5) if norm == "post" else x
        for stage in ("stage_1", "stage_2"):
            x = block(x, mask[row], p[stage], heads=3, norm=norm, causal=causal, eps=1e-5)
        # jax.nn.dot_product_attention has its softmax in float32, whatever its inputs are.
        np.testing.assert_allclose(found["values"][row][mask[row]], x[mask[row]], rtol=0, atol=1e-6)


def test_rotary_positions_rotate_and_are_relative():
    """Pairs as complex numbers times exp(i t speed); products depend on the distance alone."""
    draw = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(draw.normal(size=(1, 9, 1, 6)))
        found = np.asarray(attention.rotate(x))[0, :, 0]
        steps, speeds = np.arange(9)[:, None], 10_000.0 ** (-2 * np.arange(3) / 6)
        turned = (np.asarray(x)[0, :, 0, :3] + 1j * np.asarray(x)[0, :, 0, 3:]) * np.exp(1j * steps * speeds)
        np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], -1), rtol=1e-12)
        same = jnp.broadcast_to(x[:, :1], x.shape), jnp.broadcast_to(x[:, 1:2], x.shape)
        query, key = (np.asarray(attention.rotate(v))[0, :, 0] for v in same)
        product = query @ key.T
        for distance in (-2, 0, 3):
            np.testing.assert_allclose(np.ptp(np.diagonal(product, distance)), 0, atol=1e-12)
        assert np.abs(product[0] - product[0, 0]).max() > 0.1


@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_a_later_token_changes_no_earlier_output(positions):
    """And it does without `causal`; without positions or causality, order means nothing."""

    rows = jnp.stack([IDS[0], IDS[0].at[3].set(1), IDS[0, ::-1]])
    text = f"transformer(width=8, depth=1, heads=2, vocabulary=10, length=6, pool='none', positions={positions!r}, "
    for causal in (True, False):
        first, changed, swapped = np.asarray(run(mtl.encoders.build(text + f"causal={causal})"), rows)[0])
        change = np.abs(first - changed).max(-1)
        assert (change[3:] > 1e-4).all() and ((change[:3] == 0).all() if causal else (change[:3] > 1e-5).all())
    turned = np.abs(first - swapped[::-1]).max()
    assert turned < 1e-5 if positions == "none" else turned > 1e-3


def test_pools_of_sequences():
    """Against NumPy, with padding in between and a row without a valid step."""
    draw = np.random.default_rng(0)
    values, mask = draw.normal(size=(3, 4, 2)).astype(np.float32), np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0] * 4], bool)
    values[~mask] = np.nan
    expected = {
        "mean": [values[0].mean(0), values[1][[0, 2]].mean(0)],
        "max": [values[0].max(0), values[1][[0, 2]].max(0)],
        "first": [values[0, 0], values[1, 0]],
        "last": [values[0, 3], values[1, 2]],
    }
    for how, rows in expected.items():
        pool = sequences.pool(how, "transformer")
        found = pool.apply({}, {"values": jnp.asarray(values), "mask": jnp.asarray(mask)}, train=False)
        np.testing.assert_allclose(found, [*rows, np.zeros(2)], rtol=1e-6, err_msg=how)


def test_errors():
    for arguments, message in (
        ("width=10, heads=4", "transformer: width=10 must be a multiple of heads=4"),
        ("width=12, heads=4, positions='rotary'", "rotary positions turn pairs; width=12 / heads=4 must be even"),
        ("positions='rotery'", "unknown positions of transformer 'rotery'; did you mean 'rotary'"),
        ("norm='batch'", r"unknown norm of transformer 'batch'; \(pre, post\)"),
        ("pool='flatten'", r"unknown pool of transformer 'flatten'; .*\(mean, max, first, last, none\)"),
        ("depth=0", "transformer: depth=0 must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            mtl.encoders.build(f"transformer({arguments})")
    small = {"width": 4, "depth": 1, "heads": 1, "length": 3}
    texts, series = mtl.encoders.transformer(vocabulary=10, **small), mtl.encoders.transformer(**small)
    for encoder, x, message in (
        (texts, jnp.ones((2, 3)), r"transformer got float32 \(2, 3\); it takes token ids, an int array \[B, T\]"),
        (
            texts,
            {"tokens": IDS, "mask": IDS[:, 1:]},
            r"got {'mask': int32 \(2, 4\), 'tokens': int32 \(2, 5\)}; it takes",
        ),
        (texts, IDS, "sequences of 5 steps; length=3 positions are learned"),
        (texts, {"tokens": IDS[:, :3], "types": IDS[:, :3]}, "transformer got 'types' but has none; give types=2"),
        (series, IDS, r"transformer got int32 \(2, 5\); it takes series, .* or with a vocabulary token ids"),
    ):
        with pytest.raises(ValueError, match=message):
            run(encoder, x)

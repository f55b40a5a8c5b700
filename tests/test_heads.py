"""Heads: what they make of vectors, sequences and images, and that padding never reaches an output or a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import heads
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.tasks import Task

DRAW = np.random.default_rng(0)
VALUES = jnp.asarray(DRAW.normal(size=(3, 4, 5)), jnp.float32)
MASK = jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
IMAGE = jnp.asarray(DRAW.normal(size=(2, 4, 6, 5)), jnp.float32)


def apply(task, x):
    """(params, outputs) of a task's head."""
    module = heads.build(task)
    outputs, variables = module.init_with_output(jax.random.key(0), x, train=False)
    return variables["params"], outputs


def affine(params, x):
    return x @ params["out"]["kernel"] + params["out"]["bias"]


def test_vector_head_reads_vectors_sequences_and_images():
    """Source: NumPy's means; a sequence's over its mask, 0 where there is none; and "flatten" keeps positions."""
    task = Task("a", "classification", 3)
    for x, vector in [
        (VALUES[:, 0], VALUES[:, 0]),
        ({"values": VALUES, "mask": MASK}, jnp.stack([VALUES[0, :2].mean(0), VALUES[1].mean(0), jnp.zeros(5)])),
        (VALUES, VALUES.mean(1)),
        (IMAGE, IMAGE.mean((1, 2))),
    ]:
        params, outputs = apply(task, x)
        np.testing.assert_allclose(outputs, affine(params, vector), rtol=1e-5, atol=1e-6)
    params, outputs = apply(Task("a", "binary", head="vector(pool='flatten')"), IMAGE)
    assert params["out"]["kernel"].shape == (120, 1)
    np.testing.assert_allclose(outputs, affine(params, IMAGE.reshape(2, -1))[:, 0], rtol=1e-5, atol=1e-5)


def test_padding_reaches_no_output_and_no_gradient():
    """Source: the contract; padding that is nan changes no bit of a vector head, and its gradient there is 0."""
    broken = jnp.where(MASK[..., None], VALUES, np.nan)
    np.testing.assert_array_equal(
        mean_over_positions({"values": VALUES, "mask": MASK}), mean_over_positions({"values": broken, "mask": MASK})
    )
    gradient = jax.grad(lambda v: (mean_over_positions({"values": v, "mask": MASK}) ** 2).sum())(broken)
    assert np.isfinite(gradient).all() and (np.asarray(gradient).any(-1) == MASK).all()


def test_token_and_dense_heads_are_the_same_layers_at_every_position():
    """Source: one matrix product per position."""
    sequence = {"values": VALUES, "mask": MASK}
    params, outputs = apply(Task("a", "tagging", 3), sequence)
    np.testing.assert_allclose(outputs, affine(params, VALUES), rtol=1e-5, atol=1e-6)
    assert apply(Task("a", "ranking"), VALUES)[1].shape == (3, 4)
    assert apply(Task("a", "ranking", size=4), VALUES)[1].shape == (3, 4)
    assert apply(Task("a", "ranking", size=4, head="vector"), VALUES)[1].shape == (3, 4)
    params, outputs = apply(Task("a", "segmentation", 2, head="dense(hidden=(7,), activation='tanh')"), IMAGE)
    hidden = np.tanh(IMAGE @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"])
    np.testing.assert_allclose(outputs, affine(params, hidden), rtol=1e-5, atol=1e-5)
    assert apply(Task("a", "normals"), IMAGE)[1].shape == (2, 4, 6, 3)
    assert apply(Task("a", "depth"), IMAGE)[1].shape == (2, 4, 6)
    assert apply(Task("a", "depth"), IMAGE.astype(jnp.bfloat16))[1].dtype == jnp.float32


def test_dense_head_enlarges():
    """Source: jax.image.resize of the small outputs; a constant stays one, also at the border."""
    task = Task("a", "normals", head="dense(enlarge=2)")
    params, outputs = apply(task, IMAGE)
    small = affine(params, IMAGE)
    assert outputs.shape == (2, 8, 12, 3)
    np.testing.assert_allclose(outputs, jax.image.resize(small, outputs.shape, "bilinear"), rtol=1e-5, atol=1e-5)
    assert np.ptp(apply(task, jnp.ones_like(IMAGE))[1], axis=(1, 2)).max() < 1e-6


def test_errors():
    with pytest.raises(ValueError, match=r"head token reads a sequence, .* not \(2, 4, 6, 5\); its encoder must keep"):
        apply(Task("a", "tagging", 3), IMAGE)
    for x, found in [(VALUES, r"\(3, 4, 5\)"), ({"values": VALUES, "mask": MASK}, "a sequence")]:
        with pytest.raises(ValueError, match=f"head dense reads images, .* not {found}; its encoder must keep"):
            apply(Task("a", "depth"), x)
    for head, message in {
        "vector(pool='max')": r"unknown pool of head vector 'max'; .*\(mean, flatten\)",
        "dense(enlarge=0)": "head dense: enlarge=0 must be an integer of at least 1",
        "token(hidden=(0,))": "head token: features=.* must be positive integers",
        "tokens": "unknown head of task 'a': 'tokens'; did you mean 'token'",
    }.items():
        with pytest.raises(ValueError, match=message):
            heads.build(Task("a", "binary", head=head))

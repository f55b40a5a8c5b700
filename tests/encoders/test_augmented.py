"""Random changes of images: each against what it says it does, exact resume, and predictions that know none of it."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import preparation
from mtl_jax.encoders.preparation import Preparation
from tests import tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 7, 3), dtype=np.uint8)
KEY = jax.random.key(0)
FLOATS = IMAGES.astype(np.float32) / 255


def test_in_inference_bytes_become_numbers_cut_at_the_centre():
    x = Preparation(flip=True, shift=2, colour=0.5)(IMAGES, None)
    np.testing.assert_allclose(x, FLOATS, rtol=1e-6)
    cut = Preparation(size=(4, 3), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))(IMAGES, None)
    np.testing.assert_allclose(cut, (FLOATS[:, 1:5, 2:5] - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3], rtol=1e-4, atol=1e-5)


def test_flip_and_shift_move_pixels_and_change_none():
    """Each row is one of the images that a flip, or a shift by at most 1, can make; not all rows are alike."""
    flipped = np.asarray(Preparation(flip=True)(IMAGES, KEY))
    same = [np.allclose(y, x) for y, x in zip(flipped, FLOATS, strict=True)]
    turned = [np.allclose(y, x[:, ::-1]) for y, x in zip(flipped, FLOATS, strict=True)]
    assert all(a != b for a, b in zip(same, turned, strict=True)) and 0 < sum(same) < len(same)
    moved = np.asarray(Preparation(shift=1)(IMAGES, KEY))
    padded, places = np.pad(FLOATS, ((0, 0), (1, 1), (1, 1), (0, 0))), []
    for y, x in zip(moved, padded, strict=True):
        places += [(i, j) for i in range(3) for j in range(3) if np.allclose(y, x[i : i + 6, j : j + 7])]
    assert len(places) == len(moved) and len(set(places)) > 3


def test_zoom_shows_a_part():
    """Of an image whose values are its coordinates: a part of the wanted area, scaled to the whole."""
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij"), -1)[None].repeat(50, 0) / 40
    y = np.asarray(Preparation(zoom=(0.25, 0.5), size=(20, 20))(grid.astype(np.float32), KEY))
    assert y.shape == (50, 20, 20, 2)
    # The first and last pixel's centres are a part's side less one new pixel apart.
    sides = np.stack([y[:, -1, 10, 0] - y[:, 0, 10, 0], y[:, 10, -1, 1] - y[:, 10, 0, 1]], -1) * 20 / 19
    area, ratio = sides.prod(-1), sides[:, 1] / sides[:, 0]
    assert 0.22 < area.min() < 0.3 and 0.42 < area.max() < 0.53
    assert 0.7 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.4
    assert y.min() >= 0 and y.max() <= 1
    whole = Preparation(zoom=(1.0, 1.0))(FLOATS, KEY)
    assert whole.shape == FLOATS.shape


def test_colour_changes_brightness_contrast_and_saturation():
    """Without a share nothing; the hue of colours within 0..1 stays (by Python's colorsys)."""
    middle = 0.45 + 0.1 * FLOATS
    y = np.asarray(jax.vmap(lambda x, k: preparation.coloured(x, k, 0.3))(middle, jax.random.split(KEY, 12)))
    hues = [[colorsys.rgb_to_hsv(*map(float, p))[0] for p in x.reshape(-1, 3)] for x in (y, middle)]
    off = np.abs(np.subtract(*hues))
    assert np.minimum(off, 1 - off).max() < 0.02
    brightness = y.mean((1, 2, 3)) / middle.mean((1, 2, 3))
    assert 0.68 < brightness.min() < 0.9 and 1.1 < brightness.max() < 1.32
    grey = preparation.coloured(jnp.asarray(middle[0, ..., :1]), KEY, 0.3)
    assert grey.shape == (6, 7, 1)


@functools.cache
def data():
    """Is the left half brighter, and how bright is the image: two tasks on bytes."""
    draw = np.random.default_rng(1)
    x = draw.integers(0, 256, (80, 6, 6, 3), dtype=np.uint8)
    targets = {"left": (x[:, :, :3].mean((1, 2, 3)) > x[:, :, 3:].mean((1, 2, 3))) * 1.0, "bright": x.mean((1, 2, 3))}
    return mtl.data.from_arrays(x, targets, val=0.2, test=0.2)


AUGMENTED = "augmented('cnn(features=(2,))', flip=True, shift=1, colour=0.1, mean=0.5, std=0.25)"


def test_a_run_on_changed_images_resumes_with_the_same_bits_and_is_saved(tmp_path):
    """Predictions change nothing; a frozen trunk is shown changed images too."""
    model = mtl.sharing.hard(mtl.encoders.build(AUGMENTED), data().tasks)
    assert model.encoder.spec == mtl.encoders.build(model.encoder.spec).spec
    settings = {"steps_per_dispatch": 5, "eval_every": 5, "batch_size": 8, "source": data()}
    whole = tiny.fit(model, num_steps=10, **settings)
    for steps in (5, 10):
        again = tiny.fit(model, num_steps=steps, workdir=tmp_path / "w", **settings)
    assert again.resumed_from == 5
    tiny.assert_same(again.variables, whole.variables)
    whole.save(tmp_path / "run")
    loaded, test = mtl.load_run(tmp_path / "run"), data().test
    tiny.assert_same(loaded.predict(test.inputs), whole.predict(test.inputs))
    swap = np.arange(len(test.inputs))[::-1]
    for name, values in whole.predict(test.inputs[swap]).items():
        np.testing.assert_allclose(values[::-1], whole.predict(test.inputs)[name], rtol=1e-5)
    rows = tiny.batch(8, data())
    shown = [model.encode(whole.variables, rows, train=on, rng=KEY)[0] for on in (lambda path: False, False)]
    assert (np.asarray(shown[0]) != np.asarray(shown[1])).any()
    with pytest.raises(ValueError, match=r"inputs are float32; the model was trained on whole numbers, uint8"):
        whole.predict(test.inputs.astype(np.float32))
    with pytest.raises(ValueError, match=r"inputs are int32 from .*; augmented takes bytes"):
        whole.predict(test.inputs.astype(np.int32))


def test_tasks_with_inputs_of_their_own():
    """The changed images are those of each task's key, alone and in a group of alike tasks."""
    own = {t: IMAGES[i::2] for i, t in enumerate("ab")}
    inputs = mtl.PerTask(own)
    tasks = [mtl.Task(t, "regression") for t in "ab"]
    model = mtl.sharing.hard(mtl.encoders.build("augmented('cnn(features=(2,))', shift=2)"), tasks)
    batch = mtl.Batch(inputs, {}, {})
    variables = model.init(KEY, batch)
    found, _, _ = model.encode(variables, batch, train=True, rng=KEY)
    still, _, _ = model.encode(variables, batch, train=False)
    alone, _, _ = model.encode(variables, batch, train=True, rng=KEY, tasks=("b",))
    assert (np.asarray(found["a"]) != np.asarray(still["a"])).any()
    np.testing.assert_array_equal(found["b"], alone["b"])
    same = mtl.PerTask({"a": own["a"], "b": own["a"]})
    both, _, _ = model.encode(variables, mtl.Batch(same, {}, {}), train=True, rng=KEY)
    assert (np.asarray(both["a"]) != np.asarray(both["b"])).any()
    targets = {t: jnp.arange(6.0) for t in "ab"}
    given = mtl.Batch(inputs, targets, {t: jnp.ones(6, bool) for t in "ab"})
    data = mtl.data.Dataset("own", tuple(tasks), given)
    steps = [tiny.training("equal", data, model=m) for m in (model, model._replace(alike=None))]
    as_one, apart = (jax.jit(step)(first, given)[0] for step, first in steps)
    tiny.assert_close(as_one.params, apart.params, rtol=1e-4, atol=1e-6)


def test_arguments_that_cannot_be_had():
    for text, message in (
        ("augmented('cnn', shift=1, zoom=(0.5, 1.0))", "shift and zoom both say where an image is cut"),
        ("augmented('cnn', colour=1.0)", r"colour=1.0 must lie in \[0, 1\)"),
        ("augmented('cnn', zoom=(0.5, 2.0))", r"zoom=\(0.5, 2.0\) must be two shares of the area"),
        ("augmented('cnn', mean=(0.5, 0.5))", "must be as many numbers, and std above 0"),
        ("augmented('cnn', mean='cifar')", "mean='cifar' must be numbers, or 'imagenet'"),
        ("augmented('cnn', shift=-1)", "shift=-1 must be a whole number of at least 0"),
        ("augmented('augmented(\\'cnn\\')')", "the encoder is augmented already"),
        ("augmented('cmn')", "unknown encoder 'cmn'; did you mean 'cnn'"),
    ):
        with pytest.raises(ValueError, match=message):
            mtl.encoders.build(text)
    model = mtl.sharing.hard(mtl.encoders.build("augmented('cnn', size=9)"), data().tasks)
    with pytest.raises(ValueError, match=r"inputs of train have shape .*, and are too small to cut \(9, 9\) from"):
        mtl.describe(model, data())

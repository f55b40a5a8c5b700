"""Images that stay in their files: the same pixels as decoded at once, errors as early as can be, never all at once."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import mtl_jax as mtl
from mtl_jax.data.fingerprint import fingerprint
from mtl_jax.data.images import decoding

HOW = {"size": 6, "resize": "cover", "val": 0.2, "test": 0.2}
DRAW = np.random.default_rng(0)


def put(path, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAW.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(path, **more)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 40 images each, 108 bytes at size 6."""
    for kind in ("ants", "bees"):
        for i in range(40):
            put(tmp_path / "set" / kind / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture
def decodings(monkeypatch):
    """The names of files that were decoded so far."""
    seen, decode = [], decoding.decode

    def counted(file, name, rule):
        seen.append(name)
        return decode(file, name, rule)

    monkeypatch.setattr(decoding, "decode", counted)
    return seen


def test_the_same_set_as_decoded_at_once(folder, decodings):
    lazy = mtl.data.from_image_folder(folder, lazy=True, **HOW)
    assert decodings == []
    whole = mtl.data.from_image_folder(folder, **HOW)
    del decodings[:]
    assert lazy.tasks == whole.tasks and repr(lazy) == repr(whole)
    for key in ("train", "val", "test"):
        held, wanted = getattr(lazy, key), getattr(whole, key)
        np.testing.assert_array_equal(held.targets["class"], wanted.targets["class"])
        np.testing.assert_array_equal(held.inputs[3:5], wanted.inputs[3:5])
        np.testing.assert_array_equal(held.inputs[-1], wanted.inputs[-1])
        np.testing.assert_array_equal(held.inputs[np.array([7, 2, 2])], wanted.inputs[[7, 2, 2]])
    assert len(decodings) == 3 * 6 and lazy.train.inputs.shape == (48, 6, 6, 3)
    np.testing.assert_array_equal(lazy.train.inputs, whole.train.inputs)
    few = lazy.take(5, seed=1)
    np.testing.assert_array_equal(few.train.inputs[:], whole.take(5, seed=1).train.inputs)
    again = mtl.data.load(lazy.spec)
    assert lazy.spec.endswith("lazy=True)") and fingerprint(again) == fingerprint(lazy) != fingerprint(whole)
    other = mtl.data.from_image_folder(folder, lazy=True, **{**HOW, "resize": "stretch"})
    assert fingerprint(other)["train"]["inputs"] != fingerprint(lazy)["train"]["inputs"]


def test_more_images_than_may_lie_in_memory_train_evaluate_and_predict(folder, decodings):
    limit = 20 * 108  # of 80
    with pytest.raises(ValueError, match=r"more than max_bytes=2,160 .* from_image_folder\(..., lazy=True\) decodes"):
        mtl.data.from_image_folder(folder, max_bytes=limit, **HOW)
    data = mtl.data.from_image_folder(folder, lazy=True, max_bytes=limit, **HOW)
    small = mtl.data.from_image_folder(folder, lazy=True, max_bytes=15 * 108, **HOW)
    with pytest.raises(ValueError, match="48 rows that lie on disk are asked for at once, .*: ask for fewer"):
        np.asarray(data.train.inputs)
    model = mtl.sharing.hard(mtl.encoders.build("augmented('mlp(features=(4,))', flip=True)"), data.tasks)
    with pytest.raises(ValueError, match="16 rows that lie on disk are read whole for validation, .*: hold out fewer"):
        mtl.fit(model, small, num_steps=4)
    del decodings[:]
    run = mtl.fit(model, data, num_steps=4, batch_size=8, steps_per_dispatch=2, eval_every=4)
    trained = len(decodings)
    assert 4 * 8 <= trained <= 4 * 8 + 16 + 2  # all steps, validation, and two rows for shapes
    found = run.evaluate(data.train, batch_size=16)
    assert len(decodings) == trained + 48
    whole = mtl.data.from_image_folder(folder, **HOW)
    assert found == run.evaluate(whole.train, batch_size=16)
    predicted = run.predict(data.test.inputs, batch_size=8)["class"]
    np.testing.assert_array_equal(predicted, run.predict(whole.test.inputs, batch_size=8)["class"])


def test_what_headers_show_is_said_at_once(folder):
    (folder / "bees" / "2.png").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"bees/2.png is no image that can be read: it is none that Pillow knows"):
        mtl.data.from_image_folder(folder, lazy=True)
    Image.fromarray(np.zeros((8, 9), np.uint16)).save(folder / "bees" / "2.png")
    with pytest.raises(ValueError, match=r"bees/2.png has pixels of more than 8 bits"):
        mtl.data.from_image_folder(folder, lazy=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / "bees" / "2.png")
    with pytest.raises(ValueError, match=r"bees/2.png has 8 x 10 pixels and not 8 x 9; give a size"):
        mtl.data.from_image_folder(folder, lazy=True)
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / "bees" / "2.png")
    with pytest.warns(UserWarning, match="images: 1 of 80 are grey, which is repeated in three channels"):
        mtl.data.from_image_folder(folder, lazy=True)


def test_files_that_break_off_change_or_vanish_are_named(folder):
    broken = folder / "bees" / "2.png"
    held = broken.read_bytes()
    broken.write_bytes(held[: len(held) // 2])
    data = mtl.data.from_image_folder(folder, lazy=True, **{**HOW, "val": 0, "test": 0})
    with pytest.raises(ValueError, match=r"bees/2.png is no image that can be read: "):
        data.train.inputs.read(np.arange(80))
    model = mtl.sharing.hard(mtl.encoders.build("augmented('mlp(features=(4,))')"), data.tasks)
    options = {"num_steps": 10, "batch_size": 8, "steps_per_dispatch": 2}
    with pytest.raises(ValueError, match=r"bees/2.png is no image that can be read: "):
        mtl.fit(model, data, **options)  # one epoch
    put(broken)
    with pytest.raises(ValueError, match=r"bees/2.png has changed since the data set was made of it"):
        data.train.inputs.read(np.arange(80))
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no image .*bees/2.png"):
        data.train.inputs.read(np.arange(80))


def test_a_resumed_run_sees_that_a_file_is_another(folder, tmp_path):
    data = mtl.data.from_image_folder(folder, lazy=True, **HOW)
    model = mtl.sharing.hard(mtl.encoders.build("augmented('mlp(features=(4,))', flip=True)"), data.tasks)
    options = {"batch_size": 8, "steps_per_dispatch": 2, "workdir": tmp_path / "run"}
    mtl.fit(model, data, num_steps=2, **options)
    changed = data.train.inputs.files[0]
    put(changed)
    again = mtl.data.from_image_folder(folder, lazy=True, **HOW)
    with pytest.raises(ValueError, match="data: inputs of train differ"):
        mtl.fit(model, again, num_steps=4, **options)
    assert dataclasses.replace(again, train=data.train).train.inputs.fingerprint != again.train.inputs.fingerprint

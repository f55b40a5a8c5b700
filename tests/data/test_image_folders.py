"""Image files: pixels as Pillow itself gives them, rules that are said, errors that name files; three sets by name."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

import mtl_jax as mtl
from mtl_jax.batch import num_rows

needs_data = pytest.mark.skipif(not os.environ.get("MTL_JAX_DATA"), reason="MTL_JAX_DATA is not set")
DRAW = np.random.default_rng(0)


def pixels(high=6, wide=8, channels=3):
    shape = (high, wide) if channels == 1 else (high, wide, channels)
    return DRAW.integers(0, 256, shape, dtype=np.uint8)


def put(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **more)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes of four images each."""
    for kind in ("ants", "bees"):
        for i in range(4):
            put(tmp_path / "set" / kind / f"{i}.png", pixels())
    return tmp_path / "set"


def test_a_folder_is_a_class(folder):
    data = mtl.data.from_image_folder(folder, val=0.25, test=0.25)
    (task,) = data.tasks
    assert (task.name, task.kind, task.classes) == ("class", "classification", ("ants", "bees"))
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [4, 2, 2]
    assert data.train.inputs.dtype == np.uint8 and data.train.inputs.shape == (4, 6, 8, 3)
    files = sorted(folder.rglob("*.png"))
    for key in ("train", "val", "test"):
        split = getattr(data, key)
        for row, image, label in zip(data.rows[key], split.inputs, split.targets["class"], strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(files[row])))
            assert task.classes[label] == files[row].parent.name
    again = mtl.data.load(data.spec)
    np.testing.assert_array_equal(again.train.inputs, data.train.inputs)


def test_folders_of_splits(folder):
    for part in ("train", "test"):
        for kind in ("a", "b"):
            for i in range(3):
                put(folder.parent / "parts" / part / kind / f"{part}{i}.png", pixels())
    root = folder.parent / "parts"
    data = mtl.data.from_image_folder(root, val=0.34, task="letter")
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [4, 2, 6]
    os.rename(root / "test", root / "valid")
    with pytest.raises(ValueError, match=r"'valid' is none \(train, val, test\); call it 'val'"):
        mtl.data.from_image_folder(root)
    os.rename(root / "valid", root / "val")
    os.rename(root / "val" / "b", root / "val" / "c")
    with pytest.raises(ValueError, match=r"has a class 'c' that .*train lacks"):
        mtl.data.from_image_folder(root)


def test_a_table_of_labels(folder):
    """Several tasks by columns, one with a gap; a file that is not there is named with its line."""
    files = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*.png"))]
    rows = [f"{f},{'young' if i % 2 else 'old'},{i + 0.5 if i else ''}" for i, f in enumerate(files)]
    table = folder / "labels.csv"
    table.write_text("\n".join(["file,age,length", *rows]))
    chosen = {"labels": "labels.csv", "targets": ("age", "length"), "val": 0.0, "test": 0.0}
    data = mtl.data.from_image_folder(folder, **chosen)
    assert [(t.name, t.kind) for t in data.tasks] == [("age", "binary"), ("length", "regression")]
    np.testing.assert_array_equal(data.train.masks["length"], np.arange(8) > 0)
    np.testing.assert_array_equal(data.train.targets["length"][1:], np.arange(1, 8) + 0.5)
    np.testing.assert_array_equal(data.train.targets["age"], np.arange(8) % 2)
    with pytest.raises(ValueError, match=r"no column 'size'; columns are file, age, length"):
        mtl.data.from_image_folder(folder, **{**chosen, "targets": ("size",)})
    table.write_text("\n".join(["file,age,length", *rows[:-1]]))
    with pytest.warns(UserWarning, match="1 images are not in .*labels.csv and are left out: bees/3.png"):
        mtl.data.from_image_folder(folder, **chosen)
    table.write_text("\n".join(["file,age,length", *rows[:-1], "bees/9.png,old,3"]))
    with pytest.raises(FileNotFoundError, match="labels.csv, line 9: there is no image .*bees/9.png"):
        mtl.data.from_image_folder(folder, **chosen)


def test_sizes_are_reached_as_is_said(tmp_path):
    """By Pillow's own functions; "exact" is an error that names the file."""
    files = [put(tmp_path / "a.png", pixels(6, 8)), put(tmp_path / "b.png", pixels(10, 4))]
    images, lanczos = [Image.open(f) for f in files], Image.Resampling.LANCZOS
    for resize, wanted in (
        ("stretch", [i.resize((4, 5), lanczos) for i in images]),
        ("cover", [ImageOps.fit(i, (4, 5), lanczos) for i in images]),
        ("pad", [ImageOps.pad(i, (4, 5), lanczos) for i in images]),
    ):
        found = mtl.data.read_images(files, (5, 4), resize=resize)
        np.testing.assert_array_equal(found, np.stack([np.asarray(i) for i in wanted]))
    with pytest.raises(
        ValueError, match=r"b.png has 10 x 4 pixels and not 6 x 8; give a size and say how it is reached"
    ):
        mtl.data.read_images(files)
    with pytest.raises(ValueError, match="take 0.00 GiB, more than max_bytes=100 .*: give a smaller size"):
        mtl.data.read_images(files[:1], max_bytes=100)
    with pytest.raises(ValueError, match="unknown resize of images 'crop'"):
        mtl.data.read_images(files, 4, resize="crop")
    with pytest.raises(ValueError, match="resize='pad' needs a size"):
        mtl.data.read_images(files, resize="pad")


def test_pixels_that_change_are_said(tmp_path):
    grey = put(tmp_path / "grey.png", pixels(channels=1))
    colour = put(tmp_path / "colour.png", pixels())
    clear = pixels(channels=4)
    clear[..., 3] = 128
    alpha = put(tmp_path / "alpha.png", clear)
    with pytest.warns(UserWarning, match="images: 1 of 3 are grey, which is repeated in three channels; 1 of 3 have an "
                                         "alpha channel, and lie on a background of 0"):  # fmt: skip
        found = mtl.data.read_images([grey, colour, alpha], background=0)
    np.testing.assert_array_equal(found[0], np.repeat(np.asarray(Image.open(grey))[..., None], 3, -1))
    np.testing.assert_array_equal(found[1], np.asarray(Image.open(colour)))
    np.testing.assert_allclose(found[2], clear[..., :3] * (128 / 255), atol=1)
    with pytest.warns(UserWarning, match="1 of 2 have colours, which become grey"):
        found = mtl.data.read_images([grey, colour], channels=1)
    np.testing.assert_array_equal(found[1, ..., 0], np.asarray(Image.open(colour).convert("L")))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = tmp_path / "turned.png"
    Image.open(colour).save(turned, exif=exif)
    assert mtl.data.read_images([turned]).shape == (1, 8, 6, 3)


def test_files_that_are_no_images_are_named(folder):
    good = (folder / "ants" / "0.png").read_bytes()
    for content, message in (
        (b"no image at all", r"bees/2.png is no image that can be read: it is none that Pillow knows"),
        (good[: len(good) // 2], r"bees/2.png is no image that can be read: "),
        (b"", r"bees/2.png is no image that can be read"),
    ):
        (folder / "bees" / "2.png").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            mtl.data.from_image_folder(folder)
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(folder / "bees" / "2.png")
    with pytest.raises(ValueError, match=r"bees/2.png has pixels of more than 8 bits \(I;16\)"):
        mtl.data.from_image_folder(folder)
    (folder / "bees" / "2.png").rename(folder / "bees" / "notes.txt")
    with pytest.warns(UserWarning, match="1 files have no ending of an image and are left out: bees/notes.txt"):
        mtl.data.from_image_folder(folder)
    (folder / "wasps").mkdir()
    with pytest.raises(ValueError, match=r"wasps is the folder of a class, and holds no image"):
        mtl.data.from_image_folder(folder)
    with pytest.raises(FileNotFoundError, match="there is no folder of images .*nowhere"):
        mtl.data.from_image_folder(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no image .*gone.png"):
        mtl.data.read_images([folder / "gone.png"])
    stream = io.BytesIO()
    Image.fromarray(pixels()).save(stream, "png")
    assert mtl.data.read_images([stream.getvalue()]).shape == (1, 6, 8, 3)


@needs_data
def test_omniglot():
    """Source: README of the files (136 and 156 characters, 20 drawings of each), and an image of the archive."""
    data = mtl.data.load("omniglot")
    names = ["Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"]
    assert [t.name for t in data.tasks] == names and sum(t.size for t in data.tasks) == 136
    for split, drawings in ((data.train, 13), (data.val, 2), (data.test, 5)):
        for task in data.tasks:
            counts = np.bincount(split.targets[task.name])
            assert (counts == drawings).all() and len(counts) == task.size
            assert split.inputs[task.name].shape == (drawings * task.size, 28, 28, 1)
    assert 10 < data.train.inputs["Greek"].mean() < 40  # little ink, and it is bright
    few = mtl.data.load("omniglot(part='small2', alphabets=('Tagalog',), drawings=1)")
    assert num_rows(few.train) == 17 and num_rows(few.test) == 85
    common = mtl.data.load("omniglot(drawings=2, own_inputs=False, size=14)")
    assert num_rows(common.train) == 2 * 136 == sum(m.sum() for m in common.train.masks.values())
    assert common.spec == "omniglot(size=14, drawings=2, own_inputs=False)"
    with pytest.raises(ValueError, match=r"drawings=14 must lie in 1..13"):
        mtl.data.load("omniglot(drawings=14)")
    with pytest.raises(ValueError, match="unknown alphabet of omniglot's small1 'Latn'; did you mean 'Latin'"):
        mtl.data.load("omniglot(alphabets=('Latn',))")


@needs_data
def test_cifar10_and_hymenoptera():
    """Source: READMEs of the files; labels of the first images, the classes' files."""
    data = mtl.data.load("cifar10")
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [1800, 200, 1000]
    train = dict(zip(data.rows["train"].tolist(), data.train.targets["object"].tolist(), strict=True))
    first = [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # frog, truck, truck, deer, ...
    assert all(train.get(i, y) == y for i, y in enumerate(first))
    assert np.bincount(data.test.targets["object"]).sum() == 1000 and data.test.inputs.shape == (1000, 32, 32, 3)
    data = mtl.data.load("hymenoptera(size=16)")
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [194, 49, 153]
    assert np.bincount(data.test.targets["insect"]).tolist() == [70, 83] and data.tasks[0].classes == ("ants", "bees")
    with pytest.raises(FileNotFoundError, match="data set 'hymenoptera': there is no .*SHA256SUMS"):
        mtl.data.load("hymenoptera", data_dir="/nowhere")

"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015): characters of many alphabets, drawn by 20 people."""

import collections
import io
import pathlib
import re
import zipfile

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.images.decoding import MISSING
from mtl_jax.data.sources import find
from mtl_jax.data.text import check_counts
from mtl_jax.tasks import Task

PARTS = ("small1", "small2")
SOURCE = "the folder python of github.com/brendenlake/omniglot (images_background_small1.zip and _small2.zip)"
TRAINS, VALIDATES, DRAWINGS = 13, 15, 20  # drawings up to 13 train, 14 and 15 validate, the others test


def omniglot(
    part: str = "small1",
    alphabets: tuple[str, ...] = (),
    size: int = 28,
    drawings: int = TRAINS,
    own_inputs: bool = True,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """A task per alphabet: which of its characters is drawn. Inputs are uint8 [N, size, size, 1], ink 255 on 0.

    Of each character's 20 drawings, by different people, 1 to 13 train, 14 and 15 validate and 16 to 20 test, so that
    no more than 15 are seen before the test. Of the 13 the first `drawings` are taken: 1, 5 and 10 make few-shot
    sets with the same validation and test rows.

    Args:
      part: "small1" (Balinese, Early_Aramaic, Greek, Korean, Latin) or "small2" (Greek, Japanese_(katakana), Latin,
        Sanskrit, Tagalog).
      alphabets: among those; () for all.
      size: side; drawings have 105 pixels and are scaled by the mean over the area.
      drawings: of each character, that train; 1 to 13.
      own_inputs: each task has its alphabet's drawings for inputs (`PerTask`); else all tasks have all drawings, and
        labels of their own alphabet's only.
      data_dir: where ``omniglot/images_background_small1.zip`` lies; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming the file, and the drawing in it.
    """
    if part not in PARTS:
        raise parts.unknown("part of data set 'omniglot'", part, PARTS)
    check_counts("omniglot", size=size, drawings=drawings)
    if drawings > TRAINS:
        raise ValueError(
            f"omniglot: drawings={drawings} must lie in 1..{TRAINS}; the others of the 20 validate and test"
        )
    path = find(f"omniglot/images_background_{part}.zip", data_dir, "omniglot", SOURCE)
    images = read_drawings(path, size)
    known = tuple(images)
    alphabets = (alphabets,) if isinstance(alphabets, str) else tuple(alphabets)
    for name in alphabets:
        if name not in known:
            raise parts.unknown(f"alphabet of omniglot's {part}", name, known)
    chosen = alphabets or known
    spans = {"train": range(1, drawings + 1), "val": range(TRAINS + 1, VALIDATES + 1),
             "test": range(VALIDATES + 1, DRAWINGS + 1)}  # fmt: skip
    raw = {key: rows_of({a: images[a] for a in chosen}, span, own_inputs) for key, span in spans.items()}
    tasks = {a: Task(a, "classification", classes=tuple(sorted({c for c, _ in images[a]}))) for a in chosen}
    given = {"part": part, "alphabets": alphabets, "size": size, "drawings": drawings, "own_inputs": own_inputs}
    defaults = {"part": "small1", "alphabets": (), "size": 28, "drawings": TRAINS, "own_inputs": True}
    spec = parts.call("omniglot", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, chosen, tasks, "omniglot", spec=spec)


Drawings = dict[tuple[str, int], np.ndarray]  # {(character, which drawing of it): pixels}


def rows_of(images: dict[str, Drawings], span: range, own_inputs: bool) -> Batch:
    """The drawings with numbers in `span`, by alphabet or all together."""
    kept = {a: {k: v for k, v in own.items() if k[1] in span} for a, own in images.items()}
    codes = {a: {c: i for i, c in enumerate(sorted({c for c, _ in own}))} for a, own in images.items()}
    labels = {a: np.array([codes[a][c] for c, _ in own], np.int32) for a, own in kept.items()}
    inputs = {a: np.stack(list(own.values())) for a, own in kept.items()}
    if own_inputs:
        return Batch(PerTask(inputs), labels, {a: np.ones(len(y), bool) for a, y in labels.items()})
    owners = np.concatenate([np.full(len(y), i) for i, y in enumerate(labels.values())])
    targets, masks = {}, {}
    for i, (a, y) in enumerate(labels.items()):
        masks[a] = owners == i
        targets[a] = np.zeros(len(owners), np.int32)
        targets[a][masks[a]] = y
    return Batch(np.concatenate(list(inputs.values())), targets, masks)


def read_drawings(path: pathlib.Path, size: int) -> dict[str, Drawings]:
    """{alphabet: {(character, 1 to 20): uint8 [size, size, 1]}}, in order.

    Raises:
      ValueError: for a damaged archive, a drawing that is no image of 105 x 105, or a character without its 20.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(MISSING) from error
    found: dict[str, Drawings] = collections.defaultdict(dict)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                match = re.fullmatch(r"[^/]+/([^/]+)/(character\d+)/\d+_(\d+)\.png", name)
                if not match:
                    continue
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    if image.size != (105, 105):
                        raise ValueError(f"{path}: {name} has {image.size} pixels, not 105 x 105")
                    small = image.convert("L").resize((size, size), Image.Resampling.BOX)
                found[match[1]][match[2], int(match[3])] = 255 - np.asarray(small)[..., None]
    except (zipfile.BadZipFile, EOFError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    for alphabet, own in found.items():
        counts = collections.Counter(c for c, _ in own)
        short = [c for c, n in counts.items() if n != DRAWINGS]
        if short:
            raise ValueError(f"{path}: {alphabet}/{short[0]} has {counts[short[0]]} drawings, not {DRAWINGS}")
    if not found:
        raise ValueError(f"{path} holds no drawings ALPHABET/characterNN/NNNN_NN.png")
    return dict(found)

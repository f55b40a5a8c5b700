"""Folders of image files as data sets: a folder a class, or a table of labels beside the files."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax import parts, paths
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import divide, finish, read
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.data.images.decoding import MOST_BYTES, read_images
from mtl_jax.data.images.lazily import look_through
from mtl_jax.data.tables import types as column_types
from mtl_jax.data.tables.reading import read_table
from mtl_jax.data.tables.targets import as_whole, labels_of
from mtl_jax.reporting.many import some
from mtl_jax.tasks import Task

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
OTHER_NAMES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


class Found(NamedTuple):
    """Image files, and {task: label of each}."""

    files: list[pathlib.Path]
    labels: dict[str, Any]


def from_image_folder(
    folder: str | pathlib.Path,
    size: int | tuple[int, int] | None = None,
    *,
    resize: str = "exact",
    channels: int = 3,
    background: int = 255,
    labels: str | pathlib.Path | None = None,
    file_column: str = "file",
    targets: Sequence[str] = (),
    kinds: Mapping[str, str | Task] | None = None,
    task: str = "class",
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    split: Any = None,
    lazy: bool = False,
    max_bytes: int = MOST_BYTES,
    name: str | None = None,
) -> Dataset:
    """A data set of image files; inputs are bytes, uint8 [N, H, W, channels], decoded in parallel.

    Without `labels`, each subfolder is a class of the one task, called by its name, and holds that class's files; where
    there is a subfolder ``train``, the splits are the subfolders ``train``, ``val`` and ``test``, as far as they are
    there, and classes are inside them. With `labels`, a table beside the files has a row per file.

    Images are decoded when the set is made, lie in memory as bytes, and on the device while training; more than
    `max_bytes` is refused. With `lazy` they stay in their files (`images.ImageFiles`), each of which is read once when
    the set is made, for its header and a digest, and decoded whenever a step asks for it, ahead of its turn. `fit`
    takes the same rows and ends with the same bits. Validation, which is measured whole, has to fit into `max_bytes`;
    so have the images of one dispatch (`steps_per_dispatch`). Evaluation, prediction and cached features take some
    images at a time.

    An encoder `encoders.augmented` scales bytes to numbers and changes them at random, on the device, in every step.

    Args:
      folder: with the files.
      size, resize, channels, background: how every image is made alike, see `images.read_images`.
      labels: a CSV or Parquet file, relative to the folder or not.
      file_column: of `labels`: the path of each file, relative to the folder.
      targets: columns of `labels` that are tasks.
      kinds: {task: kind, or a whole `Task`}; a task of folders is "classification".
      task: what the task of folders is called.
      val, test: shares of the rows to hold out; where there is a folder ``val`` or ``test``, that is held out instead.
      seed, split: of the rows that are held out, as of `from_arrays`.
      lazy: whether images stay in their files.
      max_bytes: that the images in memory may take.
      name: for tables and messages; by default the folder's.

    Raises:
      FileNotFoundError, ValueError: naming the folder, the file that is none or no image, or the row of the table.
      ImportError: without Pillow or Grain.

    A UserWarning says how many files have no label or no image's ending, and what `read_images` did to pixels.
    """
    if not isinstance(lazy, bool):
        raise ValueError(f"lazy={lazy!r} must be True or False")
    root = paths.local_folder(folder, "the folder of images")
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder of images {root}")
    if labels is None and targets:
        raise ValueError("targets= names columns of a table; give it: labels='labels.csv'")
    if labels is None:
        found = by_folders(root, task)
        kinds = {task: "classification"} | dict(kinds or {})
    else:
        found = {"train": by_table(root, labels, file_column, targets, dict(kinds or {}))}
    names = tuple(found["train"].labels)
    shares = {"val": val, "test": test}
    how: Any = look_through if lazy else read_images
    raw = {
        key: labelled(
            of, how(of.files, size, resize=resize, channels=channels, background=background, max_bytes=max_bytes)
        )
        for key, of in found.items()
    }
    check_one_size(raw, found)
    raw, rows, groups = divide(raw, {k: v for k, v in shares.items() if k not in raw}, seed, split)
    given = {
        "folder": str(folder), "size": size, "resize": resize, "channels": channels, "background": background,
        "labels": None if labels is None else str(labels), "file_column": file_column, "targets": tuple(targets),
        "kinds": kinds, "task": task, "val": val, "test": test, "seed": seed, "split": split, "lazy": lazy,
    }  # fmt: skip
    return finish(
        raw, names, kinds or {}, name or root.name, rows=rows, groups=groups, spec=spec_of(given, labels is None)
    )


def spec_of(given: dict[str, Any], by_folder: bool) -> str | None:
    """The call that makes the data set again, if text can say it."""
    defaults = {"size": None, "resize": "exact", "channels": 3, "background": 255, "labels": None, "targets": (),
                "file_column": "file", "task": "class", "val": 0.15, "test": 0.15, "seed": 0,
                "split": None, "lazy": False}  # fmt: skip
    plain = {k: v for k, v in given.items() if k not in defaults or v != defaults[k]}
    if not plain["kinds"] or (by_folder and plain["kinds"] == {given["task"]: "classification"}):
        del plain["kinds"]
    return parts.call("from_image_folder", plain) if all(map(parts.is_literal, plain.values())) else None


def labelled(found: Found, images: Any) -> Batch:
    """One split as `finish` takes it."""
    values, masks = as_whole(found.labels)
    return read(images, values, masks=masks)


def check_one_size(raw: dict[str, Batch], found: dict[str, Found]) -> None:
    """An error where splits have images of different sizes, none being given."""
    shapes = {key: split.inputs.shape[1:] for key, split in raw.items()}
    for key, shape in shapes.items():
        if shape != shapes["train"]:
            raise ValueError(
                f"{found[key].files[0]} has {shape[0]} x {shape[1]} pixels, and images of train {shapes['train'][0]} x "
                f"{shapes['train'][1]}; give a size and say how it is reached: resize='cover', 'pad' or 'stretch'"
            )


def by_folders(root: pathlib.Path, task: str) -> dict[str, Found]:
    """{split: files with the name of their folder for a label}; only "train" where folders are classes at once."""
    inside = {p.name: p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    if "train" not in inside:
        return {"train": classes_in(root, task)}
    for name in inside:
        if name not in SPLITS:
            hint = f"; call it {OTHER_NAMES[name]!r}" if name in OTHER_NAMES else ""
            raise ValueError(f"{root} has a folder 'train', so that its folders are splits, and {name!r} is none "
                             f"({', '.join(SPLITS)}){hint}")  # fmt: skip
    found = {key: classes_in(inside[key], task) for key in SPLITS if key in inside}
    known = set(found["train"].labels[task].tolist())
    for key, of in found.items():
        if new := sorted(set(of.labels[task].tolist()) - known):
            raise ValueError(f"{inside[key]} has a class {new[0]!r} that {inside['train']} lacks")
    return found


def classes_in(folder: pathlib.Path, task: str) -> Found:
    """The files of each class's folder."""
    files, labels, left = [], [], []
    for kind in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        own = [p for p in sorted(kind.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        images = [p for p in own if p.suffix.lower() in ENDINGS]
        if not images:
            raise ValueError(f"{kind} is the folder of a class, and holds no image ({', '.join(ENDINGS)})")
        left += [p for p in own if p.suffix.lower() not in ENDINGS]
        files += images
        labels += [kind.name] * len(images)
    if not files:
        raise ValueError(f"{folder} holds no folder for each class, with its images inside; labels= names a table")
    if left:
        warnings.warn(f"{folder}: {len(left)} files have no ending of an image and are left out: "
                      f"{some([str(p.relative_to(folder)) for p in left], 3)}", UserWarning, stacklevel=5)  # fmt: skip
    if len(set(labels)) < 2:
        raise ValueError(f"{folder} has one class only, {labels[0]!r}; there must be a folder for each of several")
    return Found(files, {task: np.array(labels, object)})


def by_table(
    root: pathlib.Path,
    labels: str | pathlib.Path,
    file_column: str,
    targets: Sequence[str],
    kinds: Mapping[str, str | Task],
) -> Found:
    """The files and labels of a table's rows."""
    path = paths.local(labels, "labels")
    path = path if path.exists() else root / path
    table = read_table(path)
    if isinstance(targets, str) or not targets:
        raise ValueError(f"targets={targets!r} must name columns of {path}, as targets=('age', 'species'); columns are "
                         f"{', '.join(table.columns)}")  # fmt: skip
    for column in (file_column, *targets):
        if column not in table.columns:
            raise ValueError(f"{path}: no column {column!r}; columns are {', '.join(table.columns)}")
    names = [str(v) if v is not None else "" for v in table.columns[file_column].to_list()]
    files, seen = [root / n for n in names], {}
    for row, (file, text) in enumerate(zip(files, names, strict=True)):
        if not text or not file.is_file():
            raise FileNotFoundError(f"{path}, {table.place(row)}: there is no image {file if text else '(empty cell)'}")
        if file in seen:
            raise ValueError(f"{path}: {text!r} is in {table.place(seen[file])} and in {table.place(row)}")
        seen[file] = row
    others = [p for p in root.rglob("*") if p.suffix.lower() in ENDINGS and p not in seen]
    if others:
        warnings.warn(f"{root}: {len(others)} images are not in {path} and are left out: "
                      f"{some([str(p.relative_to(root)) for p in sorted(others)], 3)}",
                      UserWarning, stacklevel=3)  # fmt: skip
    columns = column_types.read_columns(
        table._replace(columns={t: table.columns[t] for t in targets}), column_types.Options()
    )
    return Found(files, {t: labels_of(table, columns[t], kinds.get(t)) for t in targets})

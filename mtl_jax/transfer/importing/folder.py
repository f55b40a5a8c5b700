"""A folder of Hugging Face, or a single file: weights, config, and what is said of inputs and classes."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mtl_jax import files, paths
from mtl_jax.data.tokenizing import Texts, read_texts
from mtl_jax.transfer.importing.family import Found
from mtl_jax.transfer.preparing import FILTERS, Images
from mtl_jax.transfer.sources import PICKLED, model_files

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of Pillow's filters
POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "pooling_mode_max_tokens": "max"}


class Folder(NamedTuple):
    """Where weights are, and what lies beside them.

    Attributes:
      weights: the file, or index of several.
      config: of config.json; empty for a single file.
      beside: the folder; None for a single file.
    """

    weights: pathlib.Path
    config: dict[str, Any]
    beside: pathlib.Path | None

    def options(self, family: str | None, given: dict[str, Any]) -> dict[str, Any]:
        """The family's options: a sentence encoder's folder says how texts become vectors."""
        path = None if self.beside is None else self.beside / "1_Pooling" / "config.json"
        if path is None or not path.exists() or "pool" in given:
            return given
        said = files.read_object(path, {})
        on = [k for k, v in said.items() if k.startswith("pooling_mode_") and v is True]
        if len(on) != 1 or on[0] not in POOLING:
            raise ValueError(f"{path}: pooling by {', '.join(on) or 'nothing'} is not known; give pool=")
        return {**given, "pool": POOLING[on[0]]}

    def classes(self, outputs: int) -> tuple[str, ...]:
        """Names of the head's outputs, of Hugging Face's id2label or timm's label_names; () where they are numbers."""
        labels = self.config.get("id2label")
        names = self.config.get("label_names") or []
        if isinstance(labels, Mapping):
            try:
                names = [labels[str(i)] for i in range(len(labels))]
            except KeyError as error:
                raise ValueError(f"{self.beside}/config.json: id2label has no {error}") from error
        if not all(isinstance(n, str) for n in names) or (names and len(names) != outputs):
            raise ValueError(f"{self.beside}/config.json names {len(names)} classes; the head has {outputs} outputs")
        return () if names == [f"LABEL_{i}" for i in range(outputs)] else tuple(names)

    def prepared(self, found: Found) -> tuple[Images | Texts | None, tuple[str, ...]]:
        """(how inputs are prepared, what was assumed)."""
        if found.images is None:
            return self._texts(found), ()
        if self.beside is not None and (self.beside / "preprocessor_config.json").exists():
            return hugging_face(self.beside / "preprocessor_config.json", found.images), ()
        if isinstance(of := self.config.get("pretrained_cfg"), Mapping):
            return timm(of, found.images), ()
        return found.images, ("images are prepared as is usual in this family; the files do not say how",)

    def _texts(self, found: Found) -> Texts | None:
        assert self.beside is not None  # a family of texts is recognised by its config
        if not any((self.beside / n).exists() for n in ("tokenizer.json", "vocab.txt")):
            return None
        from mtl_jax import parts

        _, _, given = parts.parse(found.encoder)
        length, limits = given["length"], self.beside / "sentence_bert_config.json"
        if limits.exists():
            length = min(length, files.read_object(limits, {"max_seq_length": int})["max_seq_length"])
        return read_texts(self.beside, length, given.get("padding", 0), given["types"], given["vocabulary"])


def read(path: str | os.PathLike) -> Folder:
    """What lies at a path.

    Raises:
      FileNotFoundError: if there is nothing, or no weights.
      ValueError: for weights in another format, or several models in one folder.
    """
    found = paths.local(path, "the path of a pretrained model")
    if not found.exists():
        raise FileNotFoundError(f"there is no {found}; a pretrained model is a folder or file that is here already")
    if not found.is_dir():
        return Folder(found, {}, None)
    weights = model_files(found)
    if len(weights) != 1:
        pickled = sorted(p.name for p in found.iterdir() if p.suffix in PICKLED)
        hint = f" ({pickled[0]} is not read, since it may run code; see scripts/convert_weights.py)" if pickled else ""
        names = ", ".join(p.name for p in weights)
        if weights:
            raise ValueError(f"{found} holds several models, {names}; name the file, or leave one there")
        raise FileNotFoundError(f"{found} holds no model.safetensors{hint}")
    config = files.read_object(found / "config.json", {}) if (found / "config.json").exists() else {}
    return Folder(weights[0], config, found)


def hugging_face(path: pathlib.Path, usual: Images) -> Images:
    """How images are prepared, by a preprocessor_config.json; what it leaves out is as `usual`."""
    said = files.read_object(path, {})
    scale = 1 / said.get("rescale_factor", 1 / 255)
    mean, std = said.get("image_mean"), said.get("image_std")
    size = _size(said.get("size"), path)
    shorter, crop = None, said.get("crop_size") if said.get("do_center_crop") else None
    if isinstance(size, int):  # the shorter side
        crop = _size(crop, path) if crop is not None else (size, size)
        shorter = round(size / said["crop_pct"]) if "crop_pct" in said else size
        size = (crop, crop) if isinstance(crop, int) else crop
    kind = said.get("resample", FILTERS.index(usual.filter))
    if kind not in RESAMPLE:
        raise ValueError(f"{path}: resample {kind!r} is not known")
    return Images(
        size or usual.size, tuple(scale * m for m in mean) if mean else usual.mean,
        tuple(scale * s for s in std) if std else usual.std, shorter, RESAMPLE[kind] if "resample" in said else
        usual.filter,
    )  # fmt: skip


def _size(said: Any, path: pathlib.Path) -> Any:
    """(high, wide), the length of the shorter side, or None."""
    if said is None or isinstance(said, int):
        return (said, said) if isinstance(said, int) else None
    if isinstance(said, Mapping) and {"height", "width"} <= set(said):
        return said["height"], said["width"]
    if isinstance(said, Mapping) and "shortest_edge" in said:
        return said["shortest_edge"]
    raise ValueError(f"{path}: a size of {said!r} is not known")


def timm(said: Mapping[str, Any], usual: Images) -> Images:
    """How images are prepared, by the pretrained_cfg of timm's config.json."""
    _, high, wide = said.get("input_size", (3, *usual.size))
    mean, std = said.get("mean"), said.get("std")
    share = said.get("crop_pct", 0.875)
    return Images(
        (high, wide), tuple(255 * m for m in mean) if mean else usual.mean,
        tuple(255 * s for s in std) if std else usual.std, int(min(high, wide) / share),
        said.get("interpolation", usual.filter),
    )  # fmt: skip

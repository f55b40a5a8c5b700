"""Images and texts as a pretrained model was trained to read them."""

import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE = (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
LIBRARY = "mtl_jax[{extra}] (pip install 'mtl_jax[{extra}]')"


class Images(NamedTuple):
    """How images become a model's inputs: resized, the middle cut out, and (pixel - mean) / std.

    Attributes:
      size: (high, wide) of the inputs.
      mean, std: per channel, for pixels of 0 to 255.
      shorter: what the shorter side is resized to before the middle is cut out; None: the image is resized to `size`,
        whatever its proportions.
      filter: of resizing, one of `FILTERS`, as Pillow has them.
      bgr: whether channels are blue, green, red.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    shorter: int | None = None
    filter: str = "bilinear"
    bgr: bool = False

    def prepare(self, images: Any) -> Float[np.ndarray, "image high wide 3"]:
        """Inputs from images: uint8 [N, H, W, 3], or a list of arrays, Pillow images or paths, of any size.

        Raises:
          ValueError: for what is no image, naming it.
        """
        given = [images] if hasattr(images, "convert") or isinstance(images, str | os.PathLike) else list(images)
        if not given:
            raise ValueError("there are no images to prepare")
        pixels = np.stack([self._one(x, i) for i, x in enumerate(given)]).astype(np.float32)
        pixels = pixels[..., ::-1] if self.bgr else pixels
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def _one(self, given: Any, number: int) -> np.ndarray:
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError as error:
            raise ImportError(
                f"images are read with Pillow, which comes with {LIBRARY.format(extra='images')}"
            ) from error
        if isinstance(given, str | os.PathLike):
            try:
                with Image.open(given) as file:
                    image = file.convert("RGB")
            except FileNotFoundError as error:
                raise FileNotFoundError(f"there is no image {os.fspath(given)}") from error
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise ValueError(f"image {os.fspath(given)} cannot be read: {error}") from error
        elif hasattr(given, "convert"):
            image = given.convert("RGB")
        else:
            array = np.asarray(given)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
                raise ValueError(f"image {number} is {array.dtype} {array.shape}; it must be uint8 [H, W, 3], of "
                                 "0 to 255")  # fmt: skip
            image = Image.fromarray(array)
        high, wide = self.size
        how = Image.Resampling[self.filter.upper()]
        if self.shorter is None:
            return np.asarray(image if image.size == (wide, high) else image.resize((wide, high), how))
        by = self.shorter / min(image.size)
        longer = int(self.shorter * max(image.size) / min(image.size))  # cut off, not rounded, as torchvision does
        size = (self.shorter, longer) if image.size[0] <= image.size[1] else (longer, self.shorter)
        image = image if by == 1 else image.resize(size, how)
        left, top = round((image.size[0] - wide) / 2), round((image.size[1] - high) / 2)
        return np.asarray(image.crop((left, top, left + wide, top + high)))


class Texts(NamedTuple):
    """How texts become token ids, with the tokenizer of a pretrained folder.

    Attributes:
      tokenizer: of the package `tokenizers`.
      length: tokens that the model reads at most.
      padding: the id that fills up shorter texts.
      types: how many kinds of segments the model tells apart.
    """

    tokenizer: Any
    length: int
    padding: int
    types: int

    def prepare(self, texts: Sequence[Any], length: int | None = None) -> dict[str, np.ndarray]:
        """{"tokens": int32 [N, T], "mask": bool [N, T]} of texts, or with "types" of pairs of texts.

        Args:
          texts: texts, or pairs of texts.
          length: T; None for the longest text's, at most `self.length`. A warning says how many texts are cut.

        Raises:
          ValueError: for what is no text.
        """
        texts = list(texts) if not isinstance(texts, str) else [texts]
        pairs = [isinstance(t, tuple | list) for t in texts]
        for i, text in enumerate(texts):
            pieces = text if pairs[i] else (text,)
            if pairs[i] != pairs[0] or len(pieces) != (2 if pairs[i] else 1) or not all(
                isinstance(t, str) for t in pieces
            ):  # fmt: skip
                raise ValueError(f"text {i} is {text!r}; all must be texts, or all pairs of texts")
        if not texts:
            raise ValueError("there are no texts to prepare")
        if length is not None and not 2 < length <= self.length:
            raise ValueError(f"length={length!r} must lie in 3..{self.length}, the tokens that the model reads at most")
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        whole = [len(e.ids) for e in self.tokenizer.encode_batch([tuple(t) if pairs[0] else t for t in texts])]
        most = self.length if length is None else length
        if cut := sum(n > most for n in whole):
            warnings.warn(f"{cut} of {len(texts)} texts are longer than {most} tokens, and are cut (the longest has "
                          f"{max(whole)})", UserWarning, stacklevel=2)  # fmt: skip
        self.tokenizer.enable_truncation(most)
        found = self.tokenizer.encode_batch([tuple(t) if pairs[0] else t for t in texts])
        steps = length or max(len(e.ids) for e in found)
        tokens = np.full((len(texts), steps), self.padding, np.int32)
        kinds = np.zeros((len(texts), steps), np.int32)
        mask = np.zeros((len(texts), steps), bool)
        for i, each in enumerate(found):
            tokens[i, : len(each.ids)], mask[i, : len(each.ids)] = each.ids, True
            kinds[i, : len(each.ids)] = each.type_ids
        return {"tokens": tokens, "mask": mask, **({"types": kinds} if pairs[0] and self.types > 1 else {})}


def read_texts(folder: pathlib.Path, length: int, padding: int, types: int, vocabulary: int) -> Texts:
    """The tokenizer of a folder: its tokenizer.json, or the WordPieces of its vocab.txt.

    Raises:
      FileNotFoundError: if it has neither.
      ValueError: if its vocabulary is larger than the model's.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(f"texts are cut into tokens by tokenizers, in {LIBRARY.format(extra='text')}"
                          ) from error  # fmt: skip
    from mtl_jax import files

    said = folder / "tokenizer_config.json"
    settings = files.read_object(said, {}) if said.exists() else {}
    if (folder / "tokenizer.json").exists():
        path = folder / "tokenizer.json"
        try:
            made = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # what the package raises has no type of its own
            raise ValueError(f"{path} is damaged, or no tokenizer: {error}") from error
    elif (folder / "vocab.txt").exists():
        made = word_pieces(folder / "vocab.txt", bool(settings.get("do_lower_case", True)))
    else:
        raise FileNotFoundError(f"{folder} holds neither tokenizer.json nor vocab.txt")
    if made.get_vocab_size() > vocabulary:
        raise ValueError(f"{folder}: the tokenizer has {made.get_vocab_size():,} tokens, and the model {vocabulary:,}")
    return Texts(made, length, padding, types)


def word_pieces(path: pathlib.Path, lowercase: bool) -> Any:
    """BERT's tokenizer from its list of WordPieces, one a line (Devlin et al., NAACL 2019, arXiv:1810.04805)."""
    import tokenizers

    lines = path.read_text(encoding="utf-8").splitlines()
    vocabulary = {piece: i for i, piece in enumerate(lines)}
    lost = [t for t in ("[UNK]", "[CLS]", "[SEP]") if t not in vocabulary]
    if lost or len(vocabulary) < len(lines):
        raise ValueError(f"{path} is no list of WordPieces: " + (f"it has no {lost[0]}" if lost else "a line is twice"))
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return made

"""Texts as the tokens of a pretrained model: by its tokenizer, which a folder of Hugging Face holds."""

import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax import files, paths

MISSING = "texts are cut into tokens by tokenizers, in mtl_jax[text] (pip install 'mtl_jax[text]')"
FILES = ("tokenizer.json", "vocab.txt")
PADDINGS = ("[PAD]", "<pad>")
LONGEST = 2**16  # tokens of a row, where no model sets a bound


class Texts(NamedTuple):
    """How texts become token ids, with the tokenizer of a pretrained folder.

    Attributes:
      tokenizer: of the package `tokenizers`.
      length: tokens that the model reads at most.
      padding: the id that fills up shorter texts.
      types: how many kinds of segments the model tells apart.
      digest: of the tokenizer's file, so that ids of another one are told.
    """

    tokenizer: Any
    length: int
    padding: int
    types: int
    digest: str

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

    def check_vocabulary(self, of_data: Any, source: str) -> None:
        """`check_vocabulary` of this tokenizer."""
        check_vocabulary(self.digest, of_data, source)


def check_vocabulary(digest: str, of_data: Any, source: str) -> None:
    """An error for token ids of another vocabulary than a model's, which is `source`; None is one not known.

    Args:
      digest: of the tokenizer that the model was trained with.
      of_data: a data set's vocabulary.
      source: the model, in words.
    """
    if of_data is not None and getattr(of_data, "digest", "") != digest:
        raise ValueError(
            f"the data's token ids are those of {of_data}, and {source} was trained with another tokenizer, which lies "
            "beside it; load the data with that one, tokenizer=FOLDER"
        )


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, as a data set's vocabulary. ``len(tokenizer)`` is the number of ids, as an embedding needs it.

    Attributes:
      texts: what cuts texts into tokens.
      source: the file that it was read from.
    """

    texts: Texts
    source: str

    def __len__(self) -> int:
        return self.texts.tokenizer.get_vocab_size()

    @property
    def digest(self) -> str:
        """Of its file."""
        return self.texts.digest

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} ids, {self.source})"

    def encode(self, texts: Sequence[Any], max_length: int) -> dict[str, np.ndarray]:
        """A model's inputs, {"tokens": int32 [N, max_length], "mask": bool}, of texts; see `Texts.prepare`.

        Raises:
          ValueError: for pairs of texts, whose kinds of segments a tokenizer alone does not tell.
        """
        if not isinstance(texts, str) and any(isinstance(t, tuple | list) for t in texts):
            raise ValueError("these are pairs of texts, and a tokenizer alone does not say whether its model tells the "
                             "two apart; mtl.transfer.from_pretrained(folder).prepare(pairs) does")  # fmt: skip
        return self.texts.prepare(texts, max_length)


def read_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a folder, or of its tokenizer.json or vocab.txt.

    Shorter texts are filled up with the id that it pads with (of the token [PAD] or <pad>; 0 if it knows none): their
    mask says how long they are.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is damaged.
    """
    made, source, digest = _opened(paths.local(path, "the path of a tokenizer"))
    known = made.padding["pad_id"] if made.padding else next((n for t in PADDINGS if (n := made.token_to_id(t))), 0)
    return Tokenizer(Texts(made, LONGEST, known, 0, digest), str(source))


def read_texts(folder: pathlib.Path, length: int, padding: int, types: int, vocabulary: int) -> Texts:
    """The tokenizer of a model's folder: its tokenizer.json, or the WordPieces of its vocab.txt.

    Raises:
      FileNotFoundError: if it has neither.
      ValueError: if its vocabulary is larger than the model's.
    """
    made, _, digest = _opened(folder)
    if made.get_vocab_size() > vocabulary:
        raise ValueError(f"{folder}: the tokenizer has {made.get_vocab_size():,} tokens, and the model {vocabulary:,}")
    return Texts(made, length, padding, types, digest)


def _opened(path: pathlib.Path) -> tuple[Any, pathlib.Path, str]:
    """(the tokenizer, its file, a digest of all that decides what it does)."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(MISSING) from error
    if path.is_dir():
        found = next((path / n for n in FILES if (path / n).exists()), None)
        if found is None:
            raise FileNotFoundError(f"{path} holds neither tokenizer.json nor vocab.txt")
    elif path.exists():
        found = path
    else:
        raise FileNotFoundError(f"there is no {path}; name a folder, tokenizer.json or vocab.txt")
    digest = hashlib.blake2b(found.read_bytes(), digest_size=16)
    if found.suffix == ".txt":
        said = found.parent / "tokenizer_config.json"
        settings = files.read_object(said, {}) if said.exists() else {}
        lowercase = bool(settings.get("do_lower_case", True))
        digest.update(b"lowercase" if lowercase else b"")
        return word_pieces(found, lowercase), found, digest.hexdigest()
    try:
        return tokenizers.Tokenizer.from_file(str(found)), found, digest.hexdigest()
    except Exception as error:  # what the package raises has no type of its own
        raise ValueError(f"{found} is damaged, or no tokenizer: {error}") from error


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

"""Sentences as numbers: a vocabulary of the training words, and rows padded to one length with their masks."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

PADDING, UNKNOWN = 0, 1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their ids. ``len(vocabulary)`` is the number of ids, as an encoder's embedding needs it.

    Attributes:
      words: by id; id 0 is padding, id 1 stands for every word that is not here.
      lowercase: whether words are looked up in lower case.
    """

    words: tuple[str, ...]
    lowercase: bool = False

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids)"

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """{word: id}."""
        return {w: i for i, w in enumerate(self.words) if i not in (PADDING, UNKNOWN)}

    def encode(self, sentences: Iterable[Sequence[str]], max_length: int) -> dict[str, np.ndarray]:
        """A model's inputs: {"tokens": int32 [N, max_length], "mask": bool, True where there is a word}.

        Args:
          sentences: sequences of words; what is behind the first `max_length` is cut off.
          max_length: length of the rows.
        """
        rows = [[self.ids.get(w.lower() if self.lowercase else w, UNKNOWN) for w in s] for s in sentences]
        tokens, mask = padded(rows, max_length)
        return {"tokens": tokens, "mask": mask}


def vocabulary_of(sentences: Iterable[Sequence[str]], min_count: int, lowercase: bool = False) -> Vocabulary:
    """The vocabulary of words that occur at least `min_count` times, most frequent first, then alphabetical."""
    counts = Counter(w.lower() if lowercase else w for s in sentences for w in s)
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    return Vocabulary(("<padding>", "<unknown>", *kept), lowercase)


def padded(rows: Sequence[Sequence[int]], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [N, max_length] filled up with 0, bool mask); longer rows are cut off."""
    values = np.zeros((len(rows), max_length), np.int32)
    mask = np.zeros(values.shape, bool)
    for i, row in enumerate(rows):
        count = min(len(row), max_length)
        values[i, :count], mask[i, :count] = row[:count], True
    return values, mask


def check_counts(name: str, **counts: int | None) -> None:
    """An error for a count that is no positive integer; None is let through."""
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"data set {name!r}: {key}={value!r} must be an integer of at least 1")

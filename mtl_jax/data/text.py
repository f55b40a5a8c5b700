"""Sentences as numbers: a vocabulary of the training words, and rows padded to one length with their masks."""

import dataclasses
import functools
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

PADDING, UNKNOWN = 0, 1
AFFIX = 4  # letters of the longest prefix and suffix


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and their ids. ``len(vocabulary)`` is the number of ids, as an encoder's embedding needs it.

    Attributes:
      words: by id; id 0 is padding, id 1 stands for every word that is not here.
      lowercase: whether words are looked up in lower case.
      affixes: number of buckets of `affixes_of`; 0 for none.
    """

    words: tuple[str, ...]
    lowercase: bool = False
    affixes: int = 0

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

        With affixes, also {"affixes": int32 [N, max_length, 2 AFFIX + 1]}.

        Args:
          sentences: sequences of words; what comes after the first `max_length` is cut off.
          max_length: length of the rows.
        """
        sentences = list(sentences)
        rows = [[self.ids.get(w.lower() if self.lowercase else w, UNKNOWN) for w in s] for s in sentences]
        tokens, mask = padded(rows, max_length)
        found = {"tokens": tokens, "mask": mask}
        if self.affixes:
            found["affixes"] = np.zeros((*mask.shape, 2 * AFFIX + 1), np.int32)
            for i, sentence in enumerate(sentences):
                for j, word in enumerate(sentence[:max_length]):
                    found["affixes"][i, j] = affixes_of(word, self.affixes)
        return found


@functools.lru_cache(maxsize=1 << 16)
def affixes_of(word: str, buckets: int) -> tuple[int, ...]:
    """Buckets in 1..buckets - 1 of a word's prefixes and suffixes of 1 to `AFFIX` letters and of its shape.

    They tell of words that training lacks what their letters tell: an ending, a capital, digits (as the n-grams of
    Bojanowski et al., TACL 2017). Shape is the word with runs of capitals, small letters and digits as X, x and d.
    """
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    shape = "".join(kind for kind, _ in itertools.groupby(kinds))
    texts = [f"<{word[:n]}" for n in range(1, AFFIX + 1)] + [f"{word[-n:]}>" for n in range(1, AFFIX + 1)]
    return tuple(1 + zlib.crc32(t.encode()) % (buckets - 1) for t in (*texts, f"={shape}"))


def vocabulary_of(
    sentences: Iterable[Sequence[str]], min_count: int, lowercase: bool = False, affixes: int | None = None
) -> Vocabulary:
    """The vocabulary of words that occur at least `min_count` times, most frequent first, then alphabetical."""
    counts = Counter(w.lower() if lowercase else w for s in sentences for w in s)
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    return Vocabulary(("<padding>", "<unknown>", *kept), lowercase, affixes or 0)


def padded(rows: Sequence[Sequence[int]], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [N, max_length] filled up with 0, bool mask); longer rows are cut off."""
    values = np.zeros((len(rows), max_length), np.int32)
    mask = np.zeros(values.shape, bool)
    for i, row in enumerate(rows):
        count = min(len(row), max_length)
        values[i, :count], mask[i, :count] = row[:count], True
    return values, mask


def check_counts(name: str, least: int = 1, **counts: int | None) -> None:
    """An error for a count that is no integer of at least `least`; None is let through."""
    for key, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"data set {name!r}: {key}={value!r} must be an integer of at least {least}")

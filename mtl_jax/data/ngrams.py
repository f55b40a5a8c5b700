"""Texts as counts of their character n-grams, hashed into buckets: what strings of molecules (SMILES) are read as."""

import zlib
from collections.abc import Collection

import numpy as np
from jaxtyping import Float


def hashed_ngrams(texts: Collection[str], features: int, longest: int) -> Float[np.ndarray, "text feature"]:
    """float32 [N, features]: log(1 + count) of the n-grams of 1 to `longest` characters that fall into each bucket.

    A text counts with "^" before and "$" after it, so that its beginning and end are seen. An n-gram's bucket is the
    CRC-32 of its UTF-8 bytes, modulo `features`. Every different n-gram is hashed once: 24,000 molecules take a second.
    """
    framed = [f"^{text}$" for text in texts]
    lengths = np.array([len(text) for text in framed], int)
    joined, row = "".join(framed), np.repeat(np.arange(len(framed)), lengths)
    left = np.cumsum(lengths)[row] - np.arange(len(joined))  # characters from here to the end of the text
    characters = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    letters, letter = np.unique(characters, return_inverse=True)
    counts, gram = np.zeros((len(framed), features), np.float32), np.zeros(len(joined), int)
    for length in range(1, longest + 1):
        at = np.flatnonzero(left >= length)
        # The n-gram at a place is the shorter one there and one more letter.
        longer = gram[at] * len(letters) + letter[at + length - 1]
        _, first, gram[at] = np.unique(longer, return_index=True, return_inverse=True)
        starts = at[first].tolist()
        bucket = np.array([zlib.crc32(joined[i : i + length].encode()) % features for i in starts], int)
        np.add.at(counts, (row[at], bucket[gram[at]]), 1)
    return np.log1p(counts)

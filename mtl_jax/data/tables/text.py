"""Text as counts of hashed words and character trigrams, a fixed number of columns whatever is written."""

import itertools
import zlib
from typing import Any

import numpy as np

CHUNK = 1 << 22  # counts of words that are spread out at once


def hashed_text(cells: Any, width: int) -> np.ndarray:
    """float32 [N, width]: log(1 + count) of words, and of trigrams of ``^word$``, each hashed by CRC-32.

    Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009; trigrams as in Bojanowski et
    al., TACL 2017. A null is no word at all. Letters are taken in lower case.
    """
    import polars as pl

    cells = cells.cast(pl.String).str.to_lowercase().fill_null("")
    frame = pl.DataFrame(
        {"row": np.arange(len(cells), dtype=np.int64), "word": cells.str.extract_all(r"[\w]+|[^\w\s]")}
    )
    frame = frame.explode("word").drop_nulls()
    words = frame["word"].unique()
    buckets = [_buckets(w, width) for w in words]
    sizes = np.array([len(b) for b in buckets], np.int64)
    flat = np.fromiter(itertools.chain.from_iterable(buckets), np.int32, int(sizes.sum()))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = pl.DataFrame({"word": words, "place": np.arange(len(words), dtype=np.int64)})
    frame = frame.join(places, on="word", how="left", maintain_order="left")
    rows, place = frame["row"].to_numpy(), frame["place"].to_numpy()
    found = np.zeros((len(cells), width), np.float32)
    ends = np.cumsum(sizes[place]) if len(place) else np.zeros(0, np.int64)
    first = 0
    while first < len(place):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK, "right")))
        part = place[first:last]
        counts = sizes[part]
        inner = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        which = flat[np.repeat(starts[part], counts) + inner]
        low, high = rows[first], rows[last - 1] + 1
        index = (np.repeat(rows[first:last], counts) - low) * width + which
        found[low:high] += np.bincount(index, minlength=(high - low) * width).reshape(-1, width)
        first = last
    return np.log1p(found)


def _buckets(word: str, width: int) -> list[int]:
    """Where a word and its trigrams are counted."""
    marked = f"^{word}$"
    grams = [word, *(marked[i : i + 3] for i in range(len(marked) - 2))]
    return [zlib.crc32(g.encode()) % width for g in grams]

"""Image files that are decoded as they are needed: all are looked through once, and none is kept."""

import collections
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_jax.data.images import decoding
from mtl_jax.on_disk import OnDisk

DIGEST = 16  # bytes of a file's BLAKE2b


class ImageFiles(OnDisk):
    """Images uint8 [N, H, W, channels] of files, decoded in parallel when they are asked for.

    A file that is gone, or holds anything else than when the set was made, is an error that names it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[pathlib.Path], digests: np.ndarray, rule: decoding.Rule, max_bytes: int):
        assert rule.size is not None  # `look_through` has found it
        self.files, self.digests, self.rule, self.max_bytes = list(files), digests, rule, max_bytes
        self.shape = (len(self.files), *rule.size, rule.channels)

    @property
    def fingerprint(self) -> str:
        """Of the files' contents and the rule by which they are decoded; names and places do not count."""
        return hashlib.blake2b(self.digests.tobytes() + repr(self.rule).encode(), digest_size=DIGEST).hexdigest()

    def take(self, rows: np.ndarray) -> "ImageFiles":
        rows = np.arange(len(self))[rows]
        return ImageFiles([self.files[i] for i in rows], self.digests[rows], self.rule, self.max_bytes)

    def in_order(self, order: Sequence[int], ahead: int) -> Iterator[np.ndarray]:
        return decoding.ahead_of_turn(self.row, order, ahead)

    def row(self, number: int) -> np.ndarray:
        """One image."""
        file = self.files[number]
        held = decoding.content(file, str(file))
        if digest(held) != self.digests[number].tobytes():
            raise ValueError(f"{file} has changed since the data set was made of it; make the data set anew")
        return decoding.decode(held, str(file), self.rule).pixels


def look_through(
    files: Sequence[pathlib.Path],
    size: int | tuple[int, int] | None = None,
    *,
    resize: str = "exact",
    channels: int = 3,
    background: int = 255,
    max_bytes: int = decoding.MOST_BYTES,
) -> ImageFiles:
    """What `read_images` reads, to be decoded later; every file is read once, for its header and its digest.

    Raises:
      FileNotFoundError, ValueError: as `read_images`, but for what a header does not say: a file that breaks off is
        found when it is decoded.
      ImportError: naming the extra.
    """
    rule = decoding.read_rule(size, resize, channels, background)
    if not files:
        raise ValueError("there are no images to read")
    if rule.size is None:
        rule = rule._replace(size=decoding.decode(files[0], str(files[0]), rule).pixels.shape[:2])

    def look(number: int) -> tuple[bytes, tuple[str, ...]]:
        name = str(files[number])
        held = decoding.content(files[number], name)
        return digest(held), decoding.check_header(held, name, rule)

    digests, done = bytearray(), collections.Counter[str]()
    for found, what in decoding.ahead_of_turn(look, range(len(files)), 64):
        digests += found
        done.update(what)
    decoding.warn_of(done, len(files), stacklevel=3)
    return ImageFiles(files, np.frombuffer(bytes(digests), np.uint8).reshape(-1, DIGEST), rule, max_bytes)


def digest(held: Any) -> bytes:
    """Of a file's bytes."""
    return hashlib.blake2b(held, digest_size=DIGEST).digest()

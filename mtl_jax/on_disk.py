"""Rows that lie on disk and are read as they are needed: an array to whatever asks for some of its rows."""

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class OnDisk(abc.ABC):
    """Inputs [N, ...] that do not lie in memory.

    ``x[rows]`` reads those rows, `take` chooses rows without reading, `in_order` reads many ahead of their turn.
    ``np.asarray(x)`` reads all of them where they fit into `max_bytes`, and else refuses: what knows nothing of rows on
    disk is right or says so. Training, evaluation, prediction and cached features read some rows at a time.

    Attributes:
      shape, dtype: of the whole.
      max_bytes: that may be read at once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    max_bytes: int

    @abc.abstractmethod
    def take(self, rows: np.ndarray) -> "OnDisk":
        """Those rows, of which none is read."""

    @abc.abstractmethod
    def in_order(self, order: Sequence[int], ahead: int) -> Iterator[np.ndarray]:
        """The rows that ``order`` numbers, one after the other; at most `ahead` of them are read before their turn."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Of what the rows hold, in their order; another one where any of them differs."""

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Numbers in all."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype} {self.shape}, read as needed)"

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            raise ValueError("rows on disk are read by row: x[rows], then what is wanted of them")
        numbers = np.arange(len(self))[rows]
        found = self.read(np.atleast_1d(numbers))
        return found if numbers.ndim else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk are not in memory; reading them copies")
        found = self.read(np.arange(len(self)))
        return found if dtype is None else found.astype(dtype)

    def astype(self, dtype: Any) -> np.ndarray:
        """All rows, of another dtype."""
        return self.__array__(dtype)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows), ...] of rows by number.

        Raises:
          ValueError: where they take more than `max_bytes`.
        """
        self.check_fits(len(rows), "are asked for at once", "ask for fewer")
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in zip(found, self.in_order(rows.tolist(), 64), strict=True):
            place[...] = row
        return found

    def check_fits(self, rows: int, why: str, way_out: str) -> None:
        """An error where so many rows take more than `max_bytes`."""
        needed = rows * int(np.prod(self.shape[1:])) * self.dtype.itemsize
        if needed > self.max_bytes:
            raise ValueError(
                f"{rows:,} rows that lie on disk {why}, which take {needed / 2**30:.2f} GiB, more than max_bytes="
                f"{self.max_bytes:,} ({self.max_bytes / 2**30:.2f} GiB): {way_out}, or give a larger max_bytes"
            )


def rows_of(x: Any, rows: Any) -> np.ndarray:
    """Rows of an array, wherever it lies; no others are read."""
    return x[rows] if isinstance(x, OnDisk) else np.asarray(x)[rows]

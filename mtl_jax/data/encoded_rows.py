"""Rows that remember how they were encoded, so that a model is not shown rows in other units."""

from typing import Any

from mtl_jax.batch import Batch


class EncodedRows(Batch):
    """A split whose inputs were encoded by `columns` (an `Encoding`); programs see a plain `Batch`."""

    columns: Any = None


def encoded_by(split: Batch | None, columns: Any) -> Batch | None:
    """The split with a note of its encoding; as it is, without one."""
    if split is None or columns is None:
        return split
    noted = EncodedRows(*split)
    noted.columns = columns
    return noted


def encoding_of(split: Any) -> Any:
    """What encoded a split's inputs; None if that is not known."""
    return getattr(split, "columns", None)

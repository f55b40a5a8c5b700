"""A table's inputs as trees and linear models take them: numbers with nan, and categories as codes."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtl_jax.data.tables.encoding import Encoding


class Apart(NamedTuple):
    """Columns of rows.

    Attributes:
      numbers: float64 [N, n], nan where missing; standardised or not, which trees do not see.
      categories: int32 [N, c], -1 where missing, or where training rows did not have the value.
      cardinalities: numbers of codes of the category columns.
    """

    numbers: Float[np.ndarray, "row number"]
    categories: Int[np.ndarray, "row category"]
    cardinalities: tuple[int, ...]


def apart(inputs: Any, encoding: Encoding | None = None) -> Apart:
    """The columns behind a table's encoded inputs.

    Of a matrix that `encoding` made, columns of one value of a category become its code again, and numbers whose
    neighbour says that they are missing nan. Without an encoding a matrix is numbers, and a dict holds numbers and
    codes.

    Args:
      inputs: float [N, n], or {"numbers": float [N, n], "categories": int [N, c]} of what there is.
      encoding: of the data set, if it has one.

    Raises:
      ValueError: for inputs that are no table.
    """
    known = inputs if isinstance(inputs, dict) else {"numbers": inputs}
    if not known or not known.keys() <= {"numbers", "categories"} or any(np.ndim(x) != 2 for x in known.values()):
        shapes = {k: np.shape(x) for k, x in known.items()}
        raise ValueError(f"inputs are no table: {shapes}; a table is numbers [N, n], or a dict of numbers and "
                         "categories [N, c]")  # fmt: skip
    rows = len(next(iter(known.values())))
    numbers = np.asarray(known.get("numbers", np.zeros((rows, 0))), np.float64)
    if encoding is not None and encoding.form == "onehot" and not isinstance(inputs, dict):
        return _of_matrix(numbers, encoding)
    codes = np.asarray(known.get("categories", np.zeros((rows, 0))), np.int32)
    sizes = getattr(encoding, "cardinalities", None) or tuple(int(c) + 1 for c in codes.max(0, initial=-1))
    return Apart(numbers, codes, tuple(max(1, s) for s in sizes))


def _of_matrix(matrix: Float[np.ndarray, "row column"], encoding: Encoding) -> Apart:
    numbers, codes, at = [], [], 0
    for column in encoding.columns:
        if column.scales:
            width = len(column.scales)
            values = matrix[:, at : at + width]
            at += width
            if column.indicated:
                values = np.where(matrix[:, at : at + 1] > 0, np.nan, values)
                at += 1
            numbers.append(values)
    for column in encoding.columns:
        if column.type == "text":
            numbers.append(matrix[:, at : at + column.buckets])
            at += column.buckets
    categories = encoding.categories
    for values in categories.values():
        block = matrix[:, at : at + len(values)]
        codes.append(np.where(block.any(1), block.argmax(1) if len(values) else 0, -1))
        at += len(values)
    none = np.zeros((len(matrix), 0))
    return Apart(
        np.concatenate([none, *numbers], 1), np.stack(codes, 1).astype(np.int32) if codes else none.astype(np.int32),
        tuple(max(1, len(v)) for v in categories.values()),
    )  # fmt: skip

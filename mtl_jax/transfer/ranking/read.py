"""What every score reads: features, labels and probabilities as float64 arrays, checked once."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

Features = Shaped[Any, "row width"]
Labels = Shaped[Any, " row"]
Probabilities = Shaped[Any, "row source"]
ROUNDING = 1e-12  # a column whose spread is below this share of its size is constant


def read_features(given: Any) -> Features:
    """Features [N, D] as float64.

    Raises:
      ValueError: for another number of axes, no row, or a number that is not finite.
    """
    found = np.asarray(given, np.float64)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"features have shape {found.shape}; they must be a matrix, a row per example")
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0]
        raise ValueError(f"features hold {found[row, column]} in row {row}, column {column}; they must be finite")
    return found


def read_labels(given: Any, rows: int) -> tuple[Labels, int]:
    """(class numbers 0..C-1 without gaps [N], C).

    Raises:
      ValueError: for a wrong number of labels, labels that are no whole numbers, or one class only.
    """
    found = np.asarray(given)
    if found.ndim != 1 or len(found) != rows:
        raise ValueError(f"labels have shape {found.shape} for {rows} rows of features; give one class number a row")
    if found.dtype.kind == "f" and (np.asarray(found, np.int64) == found).all():
        found = found.astype(np.int64)
    if found.dtype.kind not in "iub":
        raise ValueError(f"labels are {found.dtype}; this score reads class numbers (LogME, the ridge probe and k-NN "
                         "read numbers too)")  # fmt: skip
    classes, codes = np.unique(found, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"every label is {classes[0]}; a score needs two classes at least")
    return codes.astype(np.int64), len(classes)


def read_probabilities(given: Any, rows: int) -> Probabilities:
    """Source class probabilities [N, Z] as float64.

    Raises:
      ValueError: for rows that are no probabilities of two classes at least.
    """
    found = np.asarray(given, np.float64)
    if found.ndim != 2 or len(found) != rows or found.shape[1] < 2:
        raise ValueError(f"source probabilities have shape {found.shape}; they must be [{rows}, classes]")
    wrong = ~np.isfinite(found).all(1) | (found < 0).any(1) | (np.abs(found.sum(1) - 1) > 1e-3)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"source probabilities of row {row} are {found[row]}; they must be at least 0 and sum to 1")
    return found


def read_targets(given: Any, rows: int) -> Float[np.ndarray, "row target"]:
    """Numbers [N] or [N, K] as a float64 matrix; class numbers are to be made `one_hot` before."""
    found = np.asarray(given, np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != rows:
        raise ValueError(f"targets have shape {np.shape(given)} for {rows} rows of features")
    if not np.isfinite(found).all():
        raise ValueError(f"targets hold a value that is not finite in row {np.argwhere(~np.isfinite(found))[0][0]}; "
                         "leave rows without a label out")  # fmt: skip
    return found


def one_hot(labels: Labels, classes: int) -> Float[np.ndarray, "row class"]:
    """A column of 0 and 1 per class."""
    return np.eye(classes)[labels]


def without_constants(features: Features) -> Float[np.ndarray, "row kept"]:
    """The columns that differ between rows; what is said of a zero column then is nothing.

    Raises:
      ValueError: if all rows are the same.
    """
    spread = features.std(0)
    kept = spread > ROUNDING * np.maximum(np.abs(features).max(0), np.finfo(np.float64).tiny)
    if not kept.any():
        raise ValueError("the features of all rows are the same")
    return features[:, kept]

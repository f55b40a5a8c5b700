"""Numbers among the inputs that are far from unit scale, which networks learn badly from."""

import warnings
from typing import Any

import numpy as np

from mtl_jax import partition
from mtl_jax.inputs import Place, are_bytes_on_disk

LARGE, SMALL, OFFSET = 1e3, 1e-3, 100.0
ROWS = 10_000  # that are looked at, evenly spread


def far_from_unit(x: np.ndarray) -> tuple[int, float, float] | None:
    """(column, mean, standard deviation) of the first column that is far from unit scale; None if there is none.

    A column, along the last axis (of images a channel), is far if its root mean square is above 1e3; if its largest
    magnitude is above 0 and below 1e-3; or if its mean is above 10 and above 100 standard deviations, unless it is
    constant. Images of bytes, one-hot columns however rare, counts and years in the hundreds are near enough.
    """
    x = np.asarray(x[:: max(1, len(x) // ROWS)], np.float64)
    x = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    there = ~np.isnan(x)
    count = np.maximum(there.sum(0), 1)
    x = np.where(there, x, 0)
    mean = x.sum(0) / count
    deviation = np.sqrt((np.where(there, x - mean, 0) ** 2).sum(0) / count)
    most = np.abs(x).max(0, initial=0)
    far = (np.hypot(mean, deviation) > LARGE) | ((most > 0) & (most < SMALL))
    far |= (deviation > 0) & (np.abs(mean) > np.maximum(OFFSET * deviation, 10))
    if not far.any():
        return None
    column = int(np.argmax(far))
    return column, float(mean[column]), float(deviation[column])


def warn_of_scale(inputs: Any, codes: bool, where: Place, stacklevel: int) -> None:
    """One warning for the first leaf and column that is far from unit scale, with the way out.

    Args:
      inputs: of the training split.
      codes: whether whole numbers among them are codes, which the encoder embeds; then only floats are looked at.
      where: names a leaf.
      stacklevel: of `warnings.warn`.
    """
    for path, leaf in partition.flatten(inputs).items():
        if are_bytes_on_disk(leaf):
            continue  # near enough
        leaf = np.asarray(leaf)
        numbers = np.issubdtype(leaf.dtype, np.floating) or (leaf.dtype.kind in "iu" and not codes)
        found = far_from_unit(leaf) if numbers and leaf.size else None
        if found is not None:
            column, mean, deviation = found
            which = f"column {column} of {where(path)}" if leaf.ndim > 1 else where(path)
            warnings.warn(
                f"{which} has mean {mean:.3g} and standard deviation {deviation:.3g}; networks learn badly from "
                "numbers far from unit scale. Standardise them, (x - mean) / std of the training rows, as "
                "mtl.data.from_csv and from_dataframe do",
                UserWarning, stacklevel=stacklevel,
            )  # fmt: skip
            return

"""PARC: are rows that the features hold alike of one class?"""

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.read import (
    Features,
    Labels,
    read_features,
    read_labels,
    without_constants,
)


def parc(features: Features, labels: Labels) -> float:
    """100 times the rank correlation of the distances between rows, 1 - correlation, in features and in labels.

    Bolya, Mittapalli and Hoffman, "Scalable diverse model selection for accessible transfer learning", NeurIPS 2021,
    arXiv:2111.06977. Rows are correlated across their columns, each of mean 0 and deviation 1, so that a rotation
    changes it; it needs two columns at least. Labels of one class are at distance 0, of two at one and the same: the
    authors' code computes these distances in floating point, and rounding of 1e-16 that differs between classes then
    breaks ties, which moves the score by up to some points (iris: 61.22 for 58.68).

    Args:
      features: [N, D]; constant columns are left out.
      labels: classes [N].
    """
    from scipy.stats import spearmanr

    found = without_constants(read_features(features))
    codes, _ = read_labels(labels, len(found))
    if found.shape[1] < 2:
        raise ValueError("parc correlates rows across columns, and only one column of the features varies")
    pairs = np.tril_indices(len(found), -1)
    scaled = (found - found.mean(0)) / found.std(0)
    apart, of_labels = distances(scaled)[pairs], (codes[:, None] != codes[None, :])[pairs]
    return float(100 * spearmanr(apart, of_labels).statistic)


def distances(rows: Float[np.ndarray, "row width"]) -> Float[np.ndarray, "row row"]:
    """1 - the correlation of every two rows; a row that is constant has none, and counts as uncorrelated."""
    centred = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    scaled = centred / np.where(length > 0, length, 1)
    return 1 - scaled @ scaled.T

"""TransRate: the coding rate that classes save."""

import numpy as np

from mtl_jax.transfer.ranking.read import Features, Labels, read_features, read_labels


def trans_rate(features: Features, labels: Labels, *, epsilon: float = 1e-4, unit: bool = False) -> float:
    """R(f) - sum_c n_c / n R(f of class c), with R(f) = 1/2 log det(I + f'f / (n epsilon)) of centred features.

    Huang, Huang, Rong, Yang and Wei, "Frustratingly easy transferability estimation", ICML 2022, arXiv:2106.09362.
    Classes count by their rows, as in the definition (the Transfer Learning Library divides by their number).

    Args:
      features: [N, D].
      labels: classes [N].
      epsilon: the distortion.
      unit: divide by the root of the features' total variance first. The rate grows with their scale, so that without
        it encoders of different scale cannot be compared.
    """
    found = read_features(features)
    codes, classes = read_labels(labels, len(found))
    centred = found - found.mean(0)
    if unit:
        total = (centred**2).sum() / len(centred)
        if not total > 0:
            raise ValueError("the features of all rows are the same")
        centred = centred / np.sqrt(total)
    parts = [centred[codes == c] for c in range(classes)]
    return rate(centred, epsilon) - sum(len(p) / len(centred) * rate(p, epsilon) for p in parts)


def rate(rows: Features, epsilon: float) -> float:
    """1/2 log det(I + f'f / (n epsilon))."""
    spread = np.linalg.svd(rows, compute_uv=False)
    return float(0.5 * np.log1p(spread**2 / (len(rows) * epsilon)).sum())

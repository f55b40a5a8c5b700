"""H-score: how far classes lie apart, in units of the features' spread."""

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.read import Features, Labels, one_hot, read_features, read_labels, without_constants

CUTOFF = 1e-10  # eigenvalues below this share of the largest are rounding


def h_score(features: Features, labels: Labels, *, shrunk: bool = False) -> float:
    """tr(cov(f)^+ cov(E[f | y])), between 0 and C - 1.

    Bao et al., "An information-theoretic approach to transferability in task transfer learning", ICIP 2019. Shrunk:
    Ibrahim, Ponomareva and Mazumder, "Newer is not always better: rethinking transferability metrics", ECML-PKDD 2022,
    arXiv:2110.06893: the covariance of Ledoit and Wolf (2004), and (1 - its shrinkage) times that between classes;
    for fewer rows than features, where the plain one is C - 1 whatever they are. As in the code of the Transfer
    Learning Library, the shrunk one takes the covariance between classes over N - 1.

    Args:
      features: [N, D]; constant columns are left out.
      labels: classes [N].
      shrunk: the shrunk one.
    """
    found = without_constants(read_features(features))
    codes, classes = read_labels(labels, len(found))
    centred = found - found.mean(0)
    chosen = one_hot(codes, classes)
    between = chosen @ ((chosen.T @ centred) / chosen.sum(0)[:, None])
    covariance = centred.T @ centred / len(centred)
    amount = shrinkage(centred) if shrunk else 0.0
    if shrunk:
        covariance = (1 - amount) * covariance + amount * np.trace(covariance) / len(covariance) * np.eye(
            len(covariance)
        )
    of_classes = between.T @ between / (len(between) - shrunk)
    return float((1 - amount) * np.trace(np.linalg.pinv(covariance, rcond=CUTOFF, hermitian=True) @ of_classes))


def shrinkage(centred: Features) -> float:
    """The share of (tr S / D) I in the covariance estimate of Ledoit and Wolf, "A well-conditioned estimator for
    large-dimensional covariance matrices", Journal of Multivariate Analysis 2004.

    Args:
      centred: rows with mean 0.
    """
    rows, width = centred.shape
    covariance = centred.T @ centred / rows
    mean = np.trace(covariance) / width
    squares: Float[np.ndarray, "width width"] = (centred**2).T @ (centred**2)
    beta = (squares.sum() / rows - (covariance**2).sum()) / (width * rows)
    delta = ((covariance**2).sum() - width * mean**2) / width
    return float(min(max(beta, 0.0), delta) / delta) if delta > 0 else 0.0

"""NLEEP: LEEP for encoders without a classifier; a mixture of Gaussians over their features stands for the source."""

import warnings

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.leep import leep
from mtl_jax.transfer.ranking.read import Features, Labels, Probabilities, read_features, read_labels

ENERGY = 0.8  # share of the variance that the principal components keep
PER_CLASS = 5  # Gaussians for each target class


def nleep(features: Features, labels: Labels, *, seed: int = 0) -> float:
    """`leep` of the posterior of a mixture of Gaussians, 5 for each class, over the first principal components.

    Li et al., "Ranking neural checkpoints", CVPR 2021, arXiv:2011.11200.

    Args:
      features: [N, D].
      labels: target classes [N].
      seed: of where the mixture starts.

    Raises:
      ImportError: without scikit-learn, whose mixture it is.
      ValueError: for fewer rows than Gaussians.
    """
    found = read_features(features)
    codes, classes = read_labels(labels, len(found))
    return leep(posterior(found, PER_CLASS * classes, seed), codes)


def posterior(features: Features, components: int, seed: int = 0) -> Probabilities:
    """Which Gaussian of a mixture, fitted to the features' principal components, each row comes from."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError("nleep needs scikit-learn: pip install 'mtl_jax[ranking]'") from error
    if len(features) < 2 * components:
        raise ValueError(f"nleep: {len(features)} rows are too few for {components} Gaussians; give 2 for each")
    reduced = principal_components(features, ENERGY)
    mixture = GaussianMixture(components, random_state=seed, reg_covar=1e-6 * float(reduced.var(0).mean()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture close to its optimum ranks as well
        return mixture.fit(reduced).predict_proba(reduced)


def principal_components(features: Features, energy: float) -> Float[np.ndarray, "row component"]:
    """The centred rows on the fewest principal axes that hold a share `energy` of the variance."""
    centred = features - features.mean(0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    if not spread[0] > 0:
        raise ValueError("the features of all rows are the same")
    share = np.cumsum(spread**2) / (spread**2).sum()
    kept = int(np.searchsorted(share, energy)) + 1
    return left[:, :kept] * spread[:kept]

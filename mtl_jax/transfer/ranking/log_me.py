"""LogME: the evidence of a Bayesian linear model on the features, at its best, in closed form."""

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.read import Features, read_features, read_targets

GRID = np.linspace(-30, 30, 121)  # log of the ratio alpha / beta, over the mean eigenvalue, that is searched first
NOISE = 1e-12  # least variance of noise, of the targets' mean square: a perfect fit has no upper bound else


def log_me(features: Features, targets: Float[np.ndarray, "row ..."]) -> float:
    """max over alpha, beta of log N(y; 0, I / beta + F F' / alpha) / N, the mean over the columns of y.

    You, Liu, Wang and Long, "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021,
    arXiv:2102.11005. The authors' default code leaves the term of the directions that features lack out of the
    evidence, so that columns of zeros raise it; here they change nothing, nor do rotations.

    Args:
      features: F [N, D].
      targets: y, numbers [N] or [N, K]; of classes a column of 0 and 1 each (`read.one_hot`).
    """
    found = read_features(features)
    y = read_targets(targets, len(found))
    left, spread, _ = np.linalg.svd(found, full_matrices=False)
    kept = spread > np.finfo(np.float64).eps * max(found.shape) * max(spread[0], np.finfo(np.float64).tiny)
    eigenvalues, inside = spread[kept] ** 2, (left[:, kept].T @ y) ** 2
    outside = np.maximum((y**2).sum(0) - inside.sum(0), 0)
    return float(np.mean([evidence(eigenvalues, inside[:, i], outside[i], len(y)) for i in range(y.shape[1])]))


def evidence(
    eigenvalues: Float[np.ndarray, " rank"], inside: Float[np.ndarray, " rank"], outside: float, rows: int
) -> float:
    """The largest log evidence per row, over both precisions; of their ratio it is searched, of the noise closed.

    Args:
      eigenvalues: of F F', those above 0.
      inside: the target's squared components along their eigenvectors.
      outside: the squared length of the rest.
      rows: N.
    """
    total = inside.sum() + outside
    if not len(eigenvalues):
        return -0.5 * (np.log(2 * np.pi * max(total / rows, np.finfo(np.float64).tiny)) + 1)

    def at(logs: Float[np.ndarray, " ratio"]) -> Float[np.ndarray, " ratio"]:
        growth = 1 + eigenvalues.mean() ** -1 * eigenvalues / np.exp(logs)[:, None]
        noise = np.maximum(((inside / growth).sum(1) + outside) / rows, NOISE * total / rows)
        return -0.5 * (np.log(2 * np.pi * noise) + np.log(growth).sum(1) / rows + 1)

    if not total > 0:
        raise ValueError("every target is 0; there is nothing to explain")
    from scipy.optimize import minimize_scalar

    coarse = at(GRID)
    best, step = float(coarse.max()), GRID[1] - GRID[0]
    for i in np.argsort(coarse)[-3:]:  # it may have more than one maximum
        bounds = (GRID[i] - step, GRID[i] + step)
        found = minimize_scalar(lambda x: -at(np.array([x]))[0], bounds=bounds, method="bounded",
                                options={"xatol": 1e-9})  # fmt: skip
        best = max(best, -float(found.fun))
    return best

"""LEEP and NCE: how well the classes of a source explain the target's, without training anything."""

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.ranking.read import Labels, Probabilities, one_hot, read_labels, read_probabilities


def joint(probabilities: Probabilities, labels: Labels, classes: int) -> Float[np.ndarray, "class source"]:
    """P(y, z): the mean over rows of 1[y] theta_z."""
    return one_hot(labels, classes).T @ probabilities / len(labels)


def leep(probabilities: Probabilities, labels: Labels) -> float:
    """Log expected empirical prediction: the mean of log sum_z P(y | z) theta_z, at most 0.

    Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of learned
    representations", ICML 2020, arXiv:2002.12462. A source class without any mass explains nothing and is left out
    (the code of the Transfer Learning Library has nan there).

    Args:
      probabilities: theta [N, Z], what the source's classifier says of the target's rows.
      labels: target classes [N].
    """
    theta = read_probabilities(probabilities, len(probabilities))
    codes, classes = read_labels(labels, len(theta))
    both = joint(theta, codes, classes)
    mass = both.sum(0)
    conditional = both[:, mass > 0] / mass[mass > 0]
    expected = theta[:, mass > 0] @ conditional.T
    return float(np.log(expected[np.arange(len(codes)), codes]).mean())


def nce(probabilities: Probabilities, labels: Labels) -> float:
    """Negative conditional entropy -H(y | z) of the target's classes, z being the source's likeliest class; at most 0.

    Tran, Nguyen and Hassner, "Transferability and hardness of supervised classification tasks", ICCV 2019,
    arXiv:1908.08142.
    """
    theta = read_probabilities(probabilities, len(probabilities))
    codes, classes = read_labels(labels, len(theta))
    both = joint(np.eye(theta.shape[1])[theta.argmax(1)], codes, classes)
    mass = np.broadcast_to(both.sum(0), both.shape)
    there = both > 0
    return float((both[there] * np.log(both[there] / mass[there])).sum())

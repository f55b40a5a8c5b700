"""GBC: how much Gaussians of the classes overlap."""

import numpy as np

from mtl_jax.transfer.ranking.read import Features, Labels, read_features, read_labels, without_constants

SMALLEST = 1e-6  # of a class's variances, as a share of those of all rows: a class that varies nowhere has no overlap


def gbc(features: Features, labels: Labels, *, spherical: bool = False) -> float:
    """-sum over pairs i != j of exp(-D_B), with the Bhattacharyya distance of Gaussians of the classes; at most 0.

    Pandy et al., "Transferability estimation using Bhattacharyya class separability", CVPR 2022, arXiv:2111.12780.

    Args:
      features: [N, D]; constant columns are left out.
      labels: classes [N].
      spherical: one variance for all columns of a class, else one for each. The diagonal score depends on the axes, so
        that a rotation changes it. (The log-determinant of the spherical one counts each of the D columns; the code of
        `stable_transfer` counts it once.)
    """
    found = without_constants(read_features(features))
    codes, classes = read_labels(labels, len(found))
    means = np.stack([found[codes == c].mean(0) for c in range(classes)])
    variances = np.stack([found[codes == c].var(0) for c in range(classes)])
    floor = SMALLEST * found.var(0)
    if spherical:
        variances = np.repeat(variances.mean(1, keepdims=True), found.shape[1], 1)
        floor = floor.mean()
    variances = np.maximum(variances, floor)
    distance = np.zeros((classes, classes))
    for i in range(classes):
        for j in range(i):
            middle = (variances[i] + variances[j]) / 2
            apart = ((means[i] - means[j]) ** 2 / middle).sum() / 8
            unlike = 0.5 * (np.log(middle) - 0.5 * np.log(variances[i]) - 0.5 * np.log(variances[j])).sum()
            distance[i, j] = distance[j, i] = apart + unlike
    return float(-(np.exp(-distance).sum() - classes))

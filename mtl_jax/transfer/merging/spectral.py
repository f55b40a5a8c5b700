"""Merging in the singular vectors of task vectors, matrix by matrix: TSV-M and Iso-C."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.merging.trees import MATRICES, on_matrices

SMALL = 1e-4  # singular values below this share of the largest are not to be had from the Gram matrix


def svd(matrix: Float[np.ndarray, "row column"], count: int | None = None) -> tuple:
    """(U [row, count], S [count], V' [count, column]): the largest singular values, by default all.

    By the eigenvectors of the smaller Gram matrix, several times as fast, where the values are not too far apart.
    """
    if matrix.shape[0] < matrix.shape[1]:
        left, spread, right = svd(matrix.T, count)
        return right.T, spread, left.T
    count = matrix.shape[1] if count is None else count
    wide = matrix.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    spread, vectors = np.sqrt(np.maximum(values[::-1], 0))[:count], vectors[:, ::-1][:, :count]
    if spread[-1] > SMALL * spread[0]:
        return wide @ vectors / spread, spread, vectors.T
    left, spread, right = np.linalg.svd(wide, full_matrices=False)
    return left[:, :count], spread[:count], right[:count]


def tsv_m(base: Any, models: Sequence[Any], *, scale: float = 1.0, matrices: str = MATRICES) -> Any:
    """Of each of T task matrices the first rank / T singular vectors, side by side, made orthogonal.

    Gargiulo et al., "Task singular vectors: reducing task interference in model merging", CVPR 2025, arXiv:2412.00081.
    With U, S, V of all tasks together, the merged matrix is P_U S P_V', P the nearest orthogonal matrix. Leaves that
    are no matrices are averaged. Where there are more tasks than the rank, as many keep one as fit.

    Args:
      base: what all were tuned from.
      models: trees.
      scale: of what is added to the base.
      matrices: regex of the leaves that are matrices; of convolutions [all but the last axis, outputs].
    """
    return on_matrices(orthogonal_sum, models, base, scale, matrices)


def orthogonal_sum(vectors: Float[np.ndarray, "model input output"]) -> Float[np.ndarray, "input output"]:
    """TSV-M of one matrix's task vectors."""
    rank = min(vectors.shape[1:])
    kept = max(rank // len(vectors), 1)
    found = [svd(v, kept) for v in vectors]
    order = sorted(range(len(found)), key=lambda i: -found[i][1][0])[: rank // kept]
    left, spread, right = (
        np.concatenate([found[i][k] for i in sorted(order)], axis) for k, axis in enumerate((1, 0, 0))
    )
    return nearest_orthogonal(left) * spread @ nearest_orthogonal(right.T).T


def nearest_orthogonal(matrix: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """The matrix with orthonormal columns nearest to one of full column rank (Schoenemann, 1966)."""
    left, _, right = svd(matrix)
    return left @ right


def iso_c(base: Any, models: Sequence[Any], *, scale: float = 1.0, matrices: str = MATRICES) -> Any:
    """The sum of the task matrices with all its singular values equal to their mean.

    Marczak et al., "No task left behind: isotropic model merging with common and task-specific subspaces", ICML 2025,
    arXiv:2502.04959. Leaves that are no matrices are averaged.

    Args:
      base: what all were tuned from.
      models: trees.
      scale: of what is added to the base; the paper tunes it on validation.
      matrices: regex of the leaves that are matrices; of convolutions [all but the last axis, outputs].
    """
    return on_matrices(isotropic, models, base, scale, matrices)


def isotropic(vectors: Float[np.ndarray, "model input output"]) -> Float[np.ndarray, "input output"]:
    """Iso-C of one matrix's task vectors."""
    left, spread, right = svd(vectors.sum(0))
    return spread.mean() * (left @ right)

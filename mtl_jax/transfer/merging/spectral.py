"""Merging in the singular vectors of task vectors, matrix by matrix: TSV-M and Iso-C."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax.transfer.merging.trees import MATRICES, on_matrices


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
    found = [np.linalg.svd(v, full_matrices=False) for v in vectors]
    order = sorted(range(len(found)), key=lambda i: -found[i][1][0])[: rank // kept]
    left = np.concatenate([found[i][0][:, :kept] for i in sorted(order)], 1)
    spread = np.concatenate([found[i][1][:kept] for i in sorted(order)])
    right = np.concatenate([found[i][2][:kept] for i in sorted(order)], 0)
    return nearest_orthogonal(left) * spread @ nearest_orthogonal(right.T).T


def nearest_orthogonal(matrix: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """The matrix with orthonormal columns nearest to one of full column rank (Schoenemann, 1966)."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
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
    left, spread, right = np.linalg.svd(vectors.sum(0), full_matrices=False)
    return spread.mean() * (left @ right)

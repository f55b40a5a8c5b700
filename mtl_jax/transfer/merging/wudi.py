"""WUDI: task vectors stand for the inputs of their layer, so that interference is removed without data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax import parts
from mtl_jax.transfer.merging.regmean import CUTOFF, nearest_minimum
from mtl_jax.transfer.merging.trees import MATRICES, check_scale, on_matrices

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's


def wudi(
    base: Any,
    models: Sequence[Any],
    *,
    scale: float = 1.0,
    steps: int | None = None,
    learning_rate: float = 1e-5,
    matrices: str = MATRICES,
) -> Any:
    """The matrix that minimises sum_t ||(W - V_t)' V_t||^2 / ||V_t||^2 over the task vectors V_t, from their sum.

    Cheng et al., "Whoever started the interference should end it: guiding data-free model merging via task vectors",
    ICML 2025, arXiv:2503.08099: rows of V_t span what enters the layer, as gradients are sums of inputs times errors.
    It is RegMean with V_t V_t' / ||V_t||^2 in place of the Gram matrices, and so has a closed form: in directions that
    no task vector has the sum stays, as it does by gradient descent. Other leaves are averaged.

    Args:
      base: what all were tuned from.
      models: trees.
      scale: of what is added to the base.
      steps: of Adam from the sum, as the authors do it (300); None: the closed form.
      learning_rate: Adam's; the authors' 1e-5 goes with the small task vectors of large models.
      matrices: regex of the leaves that are matrices; of convolutions [all but the last axis, outputs].
    """
    if steps is not None:
        parts.check_whole("steps", steps)
    check_scale(learning_rate, "learning_rate")

    def merged(vectors: Float[np.ndarray, "model input output"]) -> Float[np.ndarray, "input output"]:
        there = [v for v in vectors.astype(np.float64) if v.any()]
        if not there:
            return vectors[0]
        start, (rows, columns) = np.sum(there, 0), there[0].shape
        if steps is None and columns * len(there) < rows:
            return within_span(start, there)
        grams = [v @ v.T / (v**2).sum() for v in there]
        return (nearest_minimum(start, np.stack(there), grams) if steps is None else
                by_adam(start, there, grams, steps, learning_rate))  # fmt: skip

    return on_matrices(merged, models, base, scale, matrices)


def within_span(
    start: Float[np.ndarray, "input output"], vectors: Sequence[Float[np.ndarray, "input output"]]
) -> Float[np.ndarray, "input output"]:
    """`nearest_minimum` where all task vectors together have fewer columns than rows, so that sum_t G_t is singular.

    With sum_t G_t = C C', C the columns of all V_t / ||V_t||, an eigenvector is C q, q one of the smaller matrix C' C:
    eight times as fast for 1,200 inputs, 128 outputs and three tasks, and more for more.
    """
    columns = np.concatenate([v / np.linalg.norm(v) for v in vectors], 1)
    residual = np.sum([v @ (v.T @ (v - start)) / (v**2).sum() for v in vectors], 0)
    values, small = np.linalg.eigh(columns.T @ columns)
    kept = values > CUTOFF * values[-1]
    basis = columns @ small[:, kept]  # of lengths sqrt(values)
    return start + basis @ ((basis.T @ residual) / values[kept, None] ** 2)


def by_adam(
    start: Float[np.ndarray, "input output"],
    vectors: Sequence[Float[np.ndarray, "input output"]],
    grams: Sequence[Float[np.ndarray, "input input"]],
    steps: int,
    learning_rate: float,
) -> Float[np.ndarray, "input output"]:
    """The authors' 300 steps of Adam on the same function."""
    total, aim = np.sum(grams, 0), np.sum([g @ v for g, v in zip(grams, vectors, strict=True)], 0)
    found, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        gradient = 2 * (total @ found - aim)
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        size = np.sqrt(second / (1 - BETAS[1] ** step)) + EPSILON
        found -= learning_rate * first / (1 - BETAS[0] ** step) / size
    return found

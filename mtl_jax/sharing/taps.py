"""Task adaptive parameter sharing (TAPS; Wallingford et al., CVPR 2022): a task learns which layers it needs alone."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel, merge
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.composed import composed, split_kernels
from mtl_jax.stacking import over_tasks
from mtl_jax.tasks import Task


def gate(score: Float[Array, ""], threshold: float) -> Float[Array, ""]:
    """1 from the threshold on, else 0; its derivative is taken to be 1 (straight-through)."""
    return (score >= threshold).astype(score.dtype) + (score - jax.lax.stop_gradient(score))


@architecture(
    paper="TAPS, Wallingford et al., CVPR 2022, arXiv:2203.16708; threshold and start are those of its code",
    when="a pretrained trunk, of which each task should change little",
)
def taps(
    encoder: Encoder, tasks: Sequence[Task], sparsity: float = 0.1, threshold: float = 0.1, start: float = 0.15
) -> MultiTaskModel:
    """Task t's kernel of a layer is W + 1[s_t >= threshold] D_t: W is shared, and the score s_t says who needs a D_t.

    W is under ``shared/encoder/<path>``, D_t (0 at first) under ``tasks/<t>/deltas/<path>``, s_t under
    ``tasks/<t>/scores/<path>``; a layer is one kernel, a leaf of two or more axes. The penalty is `sparsity` times the
    sum over tasks of the mean of |s_t| over layers; a layer whose score falls below the threshold is shared again.
    Other leaves (biases, scales) are each task's own, ``tasks/<t>/encoder``. Each task is a pass of its own.

    Where it departs from the paper: there W is most often pretrained and stands still (``freeze="shared/.*"`` does
    that) and the penalty waits for a warm-up; here all train together from the first step.

    Source: TAPS, Wallingford et al., CVPR 2022, arXiv:2203.16708; threshold and start are those of its code.

    Args:
      encoder: of each task's network.
      tasks: on common inputs, or each on its own of one shape.
      sparsity: factor of the penalty; more of it means fewer layers of a task's own.
      threshold: of the scores, above 0.
      start: the first scores.
    """
    if sparsity < 0:
        raise ValueError(f"taps: sparsity={sparsity} must not be negative")
    if threshold <= 0:
        raise ValueError(f"taps: threshold={threshold} must be above 0: the penalty draws scores to 0")
    names = [t.name for t in tasks]

    def kernel(w: Array, delta: Array, score: Array) -> Array:
        return w + gate(score, threshold).astype(w.dtype) * delta

    def weights(at: Any, layers: Any, x: Any) -> dict[str, Any]:
        def drawn(part: int) -> dict[str, Any]:  # the same for every task
            return split_kernels(at.drawn(layers, "shared/encoder", x), 0)[part]

        kernels = at.leaf("shared/encoder", lambda key: drawn(0))
        deltas = at.leaf("own/deltas", lambda key: jax.tree.map(jnp.zeros_like, kernels))
        scores = at.leaf("own/scores", lambda key: jax.tree.map(lambda _: jnp.asarray(start, jnp.float32), kernels))
        return merge(jax.tree.map(kernel, kernels, deltas, scores), at.leaf("own/encoder", lambda key: drawn(1)))

    def penalty(variables: Any) -> Float[Array, ""]:
        def used(own: Any) -> Float[Array, ""]:
            return jnp.abs(jnp.stack(jax.tree.leaves(own["scores"]))).mean()

        return sparsity * over_tasks(variables["params"]["tasks"], names, used).sum()

    return composed(encoder, tasks, "taps", weights, penalty)

"""How much a set of points dominates: the exact volume, by slices along one axis after the other."""

import numpy as np
from jaxtyping import Float

MOST = 12  # axes at which eleven points take ten seconds; each one more nearly doubles that


def hypervolume(losses: Float[np.ndarray, "point task"], reference: Float[np.ndarray, " task"]) -> float:
    """The volume between the points and a reference point that they are better than; exact, by slices.

    Points that are worse than the reference in any task count for nothing.
    """
    inside = losses[(losses < reference).all(1)]
    if not len(inside):
        return 0.0
    if losses.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1])]
    edges = np.append(inside[:, -1], reference[-1])
    heights = np.diff(edges)
    return float(sum(h * hypervolume(inside[: i + 1, :-1], reference[:-1]) for i, h in enumerate(heights) if h > 0))

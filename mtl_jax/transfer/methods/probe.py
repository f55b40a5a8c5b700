"""The linear probe: heads alone, on frozen features, by steps or in closed form."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mtl_jax import parts
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import HEADS, Method

PENALTIES = tuple(10.0**e for e in range(-6, 4))


@parts.recorded()
def probe(solver: str = "steps", penalty: float | None = None) -> Method:
    """Heads alone train; features are computed once. Or linear heads are solved for: ridge regression.

    In closed form, features are standardised and classes are +1 and -1, one against the rest (as big_vision's
    few-shot evaluator has them); then logits are scaled, by one number per task, to the least loss on training labels.

    Source: Alain and Bengio, 2016, arXiv:1610.01644; Kolesnikov et al., "Big transfer", ECCV 2020, arXiv:1912.11370.

    Args:
      solver: "steps", or "ridge" for the closed form.
      penalty: of ridge, per row; None for the one of `PENALTIES` with the least validation loss (1e-3 without
        validation data).
    """
    if solver not in ("steps", "ridge"):
        raise parts.unknown("solver of probe", solver, ("steps", "ridge"))
    if penalty is not None:
        base.check_between("probe: penalty", penalty, 0, float("inf"), open_low=True)
        if solver != "ridge":
            raise ValueError("probe: penalty goes with solver='ridge'; with steps, use l2 of fit")
    solve: Any = None
    if solver == "ridge":
        from mtl_jax.transfer import closed_form

        def solve(adapted: Any, data: Any, **given: Any) -> Any:
            return closed_form.solve(adapted, data, PENALTIES if penalty is None else (penalty,), **given)

    return Method(1e-2, HEADS, solve=solve)


def ridge(
    features: Float[np.ndarray, "row width"],
    targets: Float[np.ndarray, "row out"],
    weights: Float[np.ndarray, " row"],
    penalties: tuple[float, ...],
) -> list[tuple[Float[np.ndarray, "width out"], Float[np.ndarray, " out"]]]:
    """(kernel, bias) for every penalty: least squares on standardised features, with penalty |w|^2 n.

    One eigendecomposition serves all penalties; float64 throughout.
    """
    x, y, w = (np.asarray(a, np.float64) for a in (features, targets, weights))
    total = w.sum()
    mean, centre = w @ x / total, w @ y / total
    std = np.sqrt(w @ (x - mean) ** 2 / total)
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-12), std, np.inf)  # a constant feature says nothing
    x, y = (x - mean) / std, y - centre
    values, vectors = np.linalg.eigh(x.T @ (w[:, None] * x) / total)
    right = vectors.T @ (x.T @ (w[:, None] * y) / total)
    found = []
    for penalty in penalties:
        kernel = vectors @ (right / (np.maximum(values, 0) + penalty)[:, None]) / std[:, None]
        found.append((kernel, centre - mean @ kernel))
    return found

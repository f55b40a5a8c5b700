"""Loss of quantiles."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mtl_jax.losses.base import Loss, wide


def pinball_values(
    outputs: Float[Array, "*row level"], targets: Num[Array, "*row"], quantiles: Sequence[float]
) -> Float[Array, "*row level"]:
    """max(q e, (q - 1) e) with e = target - output, per level q (Koenker and Bassett, "Regression quantiles", 1978)."""
    if outputs.shape != (*targets.shape, len(quantiles)):
        raise ValueError(
            f"pinball: outputs {outputs.shape} must be the targets' shape {targets.shape} and one axis of "
            f"{len(quantiles)} quantiles"
        )
    dtype = wide(outputs, targets)
    error = targets.astype(dtype)[..., None] - outputs.astype(dtype)
    levels = jnp.asarray(quantiles, dtype)
    return jnp.where(error > 0, levels, levels - 1) * error


def pinball(quantiles: Sequence[float] = (0.5,)) -> Loss:
    """Mean over levels of max(q e, (q - 1) e) with e = target - output [..., level]; losses have the target's shape.

    Args:
      quantiles: levels in (0, 1); by default the task's.

    Raises:
      ValueError: for a level outside (0, 1); when called, if there is not one output per level.
    """
    quantiles = check_levels("pinball", quantiles)

    def loss(outputs: Float[Array, "*row level"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        return pinball_values(outputs, targets, quantiles).mean(-1)

    return loss


def check_levels(name: str, quantiles: Sequence[float]) -> tuple[float, ...]:
    """The levels as a tuple, or an error that names `name`."""
    if not quantiles or any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"{name}: quantiles={quantiles!r} must be levels in (0, 1)")
    return tuple(quantiles)

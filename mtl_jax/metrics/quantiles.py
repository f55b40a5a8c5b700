"""Metrics of predicted quantiles: their loss in the target's units, and how often they hold the target."""

from collections.abc import Sequence

from jaxtyping import Array, Bool, Float, Num

from mtl_jax.losses.quantiles import check_levels, pinball_values
from mtl_jax.metrics.base import Metric, mean_metric


def pinball(quantiles: Sequence[float] = (0.5,)) -> Metric:
    """Mean pinball loss over rows and levels, in the target's units.

    Args:
      quantiles: levels in (0, 1); by default the task's.

    Raises:
      ValueError: for a level outside (0, 1).
    """
    levels = check_levels("pinball", quantiles)
    return mean_metric("pinball", lambda o, t: pinball_values(o, t, levels).mean(-1), False)


def coverage() -> Metric:
    """Share of targets from the lowest to the highest predicted quantile.

    It is to be near the difference of these levels: 0.8 for 0.1 and 0.9. More is not better beyond that, so that it is
    no headline; it counts as higher is better for lack of a third direction.
    """

    def held(outputs: Float[Array, "*row level"], targets: Num[Array, "*row"]) -> Bool[Array, "*row"]:
        return (outputs[..., 0] <= targets) & (targets <= outputs[..., -1])

    return mean_metric("coverage", held, True)

"""Overlap of boxes."""

from jaxtyping import Array, Float

from mtl_jax.losses.boxes import overlap
from mtl_jax.metrics.base import Metric, check_same_shape, mean_metric


def box_iou() -> Metric:
    """Mean over boxes (x0, y0, x1, y1) of intersection over union."""

    def iou(outputs: Float[Array, "row 4"], targets: Float[Array, "row 4"]) -> Float[Array, " row"]:
        check_same_shape("box_iou", outputs, targets)
        return overlap(outputs, targets)[0]

    return mean_metric("box_iou", iou, True)

"""Boxes as corners (x0, y0, x1, y1): their overlap, and a loss of coordinates and overlap."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtl_jax.losses.base import Loss, check, matched


def ordered(boxes: Float[Array, "*row 4"]) -> Float[Array, "*row 4"]:
    """The same boxes with x0 <= x1 and y0 <= y1."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([jnp.minimum(first, second), jnp.maximum(first, second)], axis=-1)


def overlap(left: Float[Array, "*row 4"], right: Float[Array, "*row 4"]) -> tuple[Array, Array]:
    """([*row] intersection over union, [*row] its generalisation GIoU) of ordered boxes, pair by pair.

    GIoU is IoU minus the share of the smallest box around both that neither covers (Rezatofighi et al., CVPR 2019).
    Where an area to divide by is 0, its ratio counts as 0.
    """

    def area(low: Array, high: Array) -> Array:
        return jnp.prod(jnp.maximum(high - low, 0), axis=-1)

    def ratio(part: Array, whole: Array) -> Array:
        return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))  # nan stays nan

    a, b, c, d = left[..., :2], left[..., 2:], right[..., :2], right[..., 2:]
    shared = area(jnp.maximum(a, c), jnp.minimum(b, d))
    union = area(a, b) + area(c, d) - shared
    around = area(jnp.minimum(a, c), jnp.maximum(b, d))
    iou = ratio(shared, union)
    return iou, iou - ratio(around - union, around)


def box(beta: float = 1.0, giou: float = 0.0) -> Loss:
    """Smooth L1 of the corners, averaged over the four, plus `giou` times 1 - GIoU; one loss per box.

    Smooth L1 is e^2 / (2 beta) where |e| <= beta, |e| - beta / 2 elsewhere (Girshick, "Fast R-CNN", 2015). GIoU does
    not depend on the units, nor on a scaler that treats both x alike and both y alike; corners in the wrong order are
    put in order for it.

    Args:
      beta: > 0, in the units of the outputs: of the standardised target, where the task has a scaler.
      giou: factor >= 0.

    Raises:
      ValueError: for a value outside its range; when called, for outputs and targets of different shapes.
    """
    check("beta", beta, "above 0")
    check("giou", giou, ">= 0")

    def loss(outputs: Float[Array, "*row 4"], targets: Float[Array, "*row 4"]) -> Float[Array, "*row"]:
        outputs, targets = matched("box", outputs, targets)
        corners = optax.losses.huber_loss(outputs, targets, delta=beta).mean(-1) / beta
        return corners + giou * (1 - overlap(ordered(outputs), ordered(targets))[1]) if giou else corners

    return loss

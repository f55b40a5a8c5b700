"""Losses per element: each constructor returns a pure function (outputs, targets) -> loss of every labelled element.

Nothing is averaged here. `tasks.loss_sum` sums over the elements that have a label and divides by their number, so a
weight of a class or label scales an element's loss and does not enter the divisor: the mean is over elements, not over
weights. Losses are computed in float32 at least, whatever the outputs' precision. An element without a label holds
target 0, for which every loss here and its gradient are finite. A loss of lists is (outputs, targets, mask) -> loss of
every list.
"""

from collections.abc import Callable

from mtl_jax.losses.base import Loss
from mtl_jax.losses.boxes import box
from mtl_jax.losses.classification import binary_cross_entropy, cross_entropy, hinge
from mtl_jax.losses.directions import cosine
from mtl_jax.losses.quantiles import pinball
from mtl_jax.losses.ranking import listwise_softmax, pairwise_logistic
from mtl_jax.losses.regression import huber, mae, mse

NAMES: dict[str, Callable[..., Loss]] = {
    f.__name__: f
    for f in (
        cross_entropy, binary_cross_entropy, mse, mae, huber, hinge, cosine, box, pinball, listwise_softmax,
        pairwise_logistic,
    )
}  # fmt: skip

__all__ = ["NAMES", "Loss", *NAMES]

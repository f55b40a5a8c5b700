"""Losses per element: each constructor returns a pure function (outputs, targets) -> loss of every labelled element.

Nothing is averaged here. `tasks.loss_sum` sums over the elements that have a label and divides by their number, so a
weight of a class or label scales an element's loss and does not enter the divisor: the mean is over elements, not over
weights. Losses are computed in float32 at least, whatever the outputs' precision. An element without a label holds
target 0, for which every loss here and its gradient are finite. A loss of lists is (outputs, targets, mask) -> loss of
every list.
"""

from collections.abc import Callable

from mtl_jax import parts
from mtl_jax.losses.base import Loss
from mtl_jax.losses.boxes import box as box
from mtl_jax.losses.classification import binary_cross_entropy as binary_cross_entropy
from mtl_jax.losses.classification import cross_entropy as cross_entropy
from mtl_jax.losses.classification import hinge as hinge
from mtl_jax.losses.directions import cosine as cosine
from mtl_jax.losses.quantiles import pinball as pinball
from mtl_jax.losses.ranking import listwise_softmax as listwise_softmax
from mtl_jax.losses.ranking import pairwise_logistic as pairwise_logistic
from mtl_jax.losses.regression import huber as huber
from mtl_jax.losses.regression import mae as mae
from mtl_jax.losses.regression import mse as mse

NAMES: dict[str, Callable[..., Loss]] = parts.returning(Loss, globals())

__all__ = ["NAMES", "Loss", *NAMES]

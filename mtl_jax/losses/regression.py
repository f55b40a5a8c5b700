"""Losses of numbers: squared, absolute and Huber's."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from mtl_jax.losses.base import Loss, check, matched


def mse() -> Loss:
    """Squared error, without the factor 1/2 that `optax.losses.l2_loss` has; outputs and targets of the same shape."""

    def loss(outputs: Float[Array, "*row"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        return optax.losses.squared_error(*matched("mse", outputs, targets))

    return loss


def mae() -> Loss:
    """Absolute error; outputs and targets of the same shape. Its gradient at an error of 0 is 0."""

    def loss(outputs: Float[Array, "*row"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        outputs, targets = matched("mae", outputs, targets)
        error = outputs - targets
        return error * jnp.sign(error)  # jnp.abs has gradient 1 at 0, which would push a perfect fit away

    return loss


def huber(delta: float = 1.0) -> Loss:
    """Huber's loss: e^2 / 2 where |e| <= delta, delta (|e| - delta / 2) elsewhere (Huber, 1964).

    Args:
      delta: > 0, in the units of the outputs: of the standardised target, where the task has a scaler.

    Raises:
      ValueError: if delta is not above 0; when called, for outputs and targets of different shapes.
    """
    check("delta", delta, "above 0")

    def loss(outputs: Float[Array, "*row"], targets: Num[Array, "..."]) -> Float[Array, "*row"]:
        return optax.losses.huber_loss(*matched("huber", outputs, targets), delta=delta)

    return loss

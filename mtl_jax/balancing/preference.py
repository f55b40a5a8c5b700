"""Scalarizations along a preference ray: COSMOS (Ruchte and Grabocka, ICDM 2021, arXiv:2103.13392) and PBI,
penalty-based boundary intersection (Zhang and Li, MOEA/D, IEEE TEVC 2007).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.arguments import check, numbers, preferences
from mtl_jax.balancing.base import Balancer, Keeps, Needs, Result, one_per_task, preference_of, start_preference


def along_ray(
    name: str, preference: Sequence[float] | None, scalar: Callable, reference: Sequence[float] | None = None
) -> Balancer:
    """The method whose weights are the gradient of ``scalar(losses - reference, ray)``; absent tasks are 0 in both."""
    preference = preferences(name, "preference", preference)
    reference = numbers(name, "reference", reference)

    def init(num_tasks, template):
        one_per_task(name, "entries of reference", reference, num_tasks)
        return start_preference(name, "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        shifted = signal.losses if reference is None else signal.losses - jnp.asarray(reference, signal.losses.dtype)
        losses = jnp.where(mask, shifted, 0)
        ray = preference_of(state, mask, losses.dtype)
        weights = jnp.where(mask, jax.grad(scalar)(losses, ray), 0)
        return Result(weights, head_weights=weights), state

    return Balancer(init, update, Needs.LOSSES, carried=("preference",), keeps=Keeps.of(preference))


def length(x):
    """|x|, with gradient 0 where x is 0; no square of an entry overflows or vanishes."""
    largest = jax.lax.stop_gradient(jnp.abs(x).max())
    unit = x / jnp.where(largest > 0, largest, 1)
    square = (unit * unit).sum()
    return largest * jnp.sqrt(jnp.where(largest > 0, square, 1))


def positive(x):
    """x, or 1 where it is 0."""
    return jnp.where(x > 0, x, 1)


@parts.recorded(
    paper="Ruchte and Grabocka, ICDM 2021, arXiv:2103.13392",
    when="a front near given rays",
)
def cosmos(preference: Sequence[float] | None = None, penalty: float = 1.0) -> Balancer:
    """Minimises p'L - penalty cos(p, L): a weighted sum that is drawn towards the ray of p.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      penalty: of leaving the ray. Its share of the weights is up to penalty / |L|.
    """
    check("cosmos", "at least 0", penalty=penalty)

    def scalar(losses, ray):
        # Losses under 1e-20 have no direction that float32 could tell.
        there = jax.lax.stop_gradient(jnp.abs(losses).max() > 1e-20)
        unit = losses / jnp.where(there, length(losses), 1)
        return ray @ losses - jnp.where(there, penalty, 0) * (ray / positive(length(ray))) @ unit

    return along_ray("cosmos", preference, scalar)


@parts.recorded(
    paper="Zhang and Li, MOEA/D, IEEE TEVC 2007",
    when="a front on given rays, non-convex too",
)
def pbi(
    preference: Sequence[float] | None = None, penalty: float = 5.0, reference: Sequence[float] | None = None
) -> Balancer:
    """Minimises d1 + penalty d2: the way along the ray of p, and the distance from it.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      penalty: of the distance.
      reference: the point where the ray starts, one entry per task; None for the origin.
    """
    check("pbi", "at least 0", penalty=penalty)

    def scalar(losses, ray):
        unit = ray / positive(length(ray))
        along = losses @ unit
        return along + penalty * length(losses - along * unit)

    return along_ray("pbi", preference, scalar, reference)

"""Scalarizations along a preference ray: COSMOS (Ruchte and Grabocka, ICDM 2021, arXiv:2103.13392) and PBI,
penalty-based boundary intersection (Zhang and Li, MOEA/D, IEEE TEVC 2007).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Needs, Result, numbers, preference_of, start_preference


def along_ray(name: str, preference: Sequence[float] | None, scalar: Callable) -> Balancer:
    """The method whose weights are the gradient of ``scalar(losses, ray)``; absent tasks are 0 in both."""
    preference = None if preference is None else numbers(name, "preference", preference)
    if preference is not None and min(preference) < 0:
        raise ValueError(f"{name}: preference={preference} must not be negative")

    def init(num_tasks, template):
        return start_preference(name, "preferences", preference, num_tasks)

    def update(signal, state, *, mask, key):
        losses = jnp.where(mask, signal.losses, 0)
        ray = preference_of(state, mask, losses.dtype)
        weights = jnp.where(mask, jax.grad(scalar)(losses, ray), 0)
        return Result(weights, head_weights=weights), state

    return Balancer(init, update, Needs.LOSSES, carried=("preference",))


def length(x):
    """|x|, with gradient 0 where x is 0."""
    square = (x * x).sum()
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@parts.recorded()
def cosmos(preference: Sequence[float] | None = None, penalty: float = 1.0) -> Balancer:
    """Minimises p'L - penalty cos(p, L): a weighted sum that is drawn towards the ray of p.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      penalty: of leaving the ray.
    """

    def scalar(losses, ray):
        norm = jnp.maximum(length(losses) * length(ray), jnp.finfo(losses.dtype).tiny)
        return ray @ losses - penalty * (ray @ losses) / norm

    return along_ray("cosmos", preference, scalar)


@parts.recorded()
def pbi(preference: Sequence[float] | None = None, penalty: float = 5.0) -> Balancer:
    """Minimises d1 + penalty d2: the way along the ray of p, and the distance from it.

    Args:
      preference: p, one per task; None for 1 / number of present tasks.
      penalty: of the distance.
    """

    def scalar(losses, ray):
        unit = ray / jnp.maximum(length(ray), jnp.finfo(losses.dtype).tiny)
        along = losses @ unit
        return along + penalty * length(losses - along * unit)

    return along_ray("pbi", preference, scalar)

"""Weights that are learned: one scalar per task with an Adam state of its own, which an absent task keeps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

FURTHEST = 40.0  # of a logarithm from 0: its exponential and that times a gradient stay within float32
LARGEST = 1e15  # slope


class Learned(NamedTuple):
    """One scalar per task and its optimizer's state, whose leaves are [task] too."""

    value: Float[Array, " task"]
    adam: Any


def start(num_tasks: int, value: float, optimizer: optax.GradientTransformation) -> Learned:
    """Every task's scalar at `value`."""
    values = jnp.full((num_tasks,), value, jnp.float32)
    return Learned(values, jax.vmap(optimizer.init)(values))


def descend(
    learned: Learned,
    slope: Float[Array, " task"],
    optimizer: optax.GradientTransformation,
    mask: Bool[Array, " task"],
) -> Learned:
    """One step against `slope` for the present tasks; what the others hold stays.

    Adam's step does not depend on the slope's scale, so a huge one is cut to where its square is finite.
    """
    slope = jnp.clip(slope, -LARGEST, LARGEST)
    steps, moments = jax.vmap(optimizer.update)(slope.astype(jnp.float32), learned.adam, learned.value)
    new = Learned(learned.value + steps, moments)
    return jax.tree.map(lambda n, o: jnp.where(mask, n, o), new, learned)


def within_reach(learned: Learned) -> Learned:
    """Logarithms no further from 0 than `FURTHEST`."""
    return learned._replace(value=jnp.clip(learned.value, -FURTHEST, FURTHEST))

"""Gramians of gradients so long or short that their squares leave the range of floats.

A squared length overflows float32 at a length of 1.8e19 and vanishes below 1e-19. Most methods' weights do not depend
on the unit that gradients are measured in (`Balancer.unit_free`); where squares come near the end of the range, these
are shown the Gramian in a unit, a power of two, in which the largest entry of the Jacobian is about 1. Everything else
is as it was, bit by bit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.gradients.dense_factors import Factored
from mtl_jax.gradients.gramian import Gradients

LOW, HIGH = 1e-18, 1e18  # of the largest squared length, within which the Gramian stays as it is


def in_range(
    gram: Float[Array, "row row"],
    largest: Callable[[], Float[Array, " row"]],
    again: Callable[[Float[Array, ""]], Float[Array, "row row"]],
) -> tuple[Float[Array, "row row"], Float[Array, ""]]:
    """(the Gramian, 1) where its squares are well in range, else (that of the rows times a factor, the factor).

    Args:
      gram: the Gramian.
      largest: () -> the largest magnitude in each row of the Jacobian.
      again: (factor) -> the Gramian of the rows times the factor.
    """

    def outside(gram: Array) -> Array:
        longest = jnp.abs(jnp.diagonal(gram)).max()
        return ~((longest >= LOW) & (longest <= HIGH) & jnp.isfinite(gram).all())

    def measure(carry: tuple) -> tuple:
        found = largest()
        top = jnp.where(jnp.isfinite(found), found, 0).max()
        exponent = jnp.clip(jnp.floor(jnp.log2(jnp.where(top > 0, top, 1))), -120, 120).astype(jnp.int32)
        # By its bits, since exp2 is not exact everywhere.
        factor = jax.lax.bitcast_convert_type((127 - exponent) << 23, jnp.float32).astype(gram.dtype)
        return again(factor).astype(gram.dtype), factor, jnp.zeros((), bool)

    # A loop of at most one round, where a branch would be taken by all runs of a `vmap`.
    return jax.lax.while_loop(
        lambda carry: carry[2], measure, (gram, jnp.ones((), gram.dtype), outside(gram))
    )[:2]  # fmt: skip


def largest_entries(jacobian: Gradients) -> Float[Array, " row"]:
    """The largest magnitude in each row; of factors, a bound of it."""

    def rows(x: Array | Factored) -> Array:
        if isinstance(x, Factored):
            return jnp.abs(x.inputs).max().astype(jnp.float32) * rows(x.cotangents)
        return jnp.abs(x).reshape(len(x), -1).max(1, initial=0).astype(jnp.promote_types(x.dtype, jnp.float32))

    return jnp.stack([rows(x) for x in jacobian.values()]).max(0)


def times(jacobian: Gradients, factor: Float[Array, ""]) -> dict[str, Any]:
    """The rows times a factor, in float32 at least."""

    def scaled(x: Array, factor: Array) -> Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) * factor

    def leaf(x: Array | Factored) -> Array | Factored:
        if not isinstance(x, Factored):
            return scaled(x, factor)
        top = jnp.abs(x.inputs).max().astype(jnp.float32)
        inward = 1 / jnp.where(top > 0, top, 1)
        return Factored(scaled(x.inputs, inward), scaled(x.cotangents, factor / inward))

    return {p: leaf(x) for p, x in jacobian.items()}

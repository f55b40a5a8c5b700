"""Gates: what gives each task its weights of the experts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import layers
from mtl_jax.encoders.base import values_of
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.keys import named_key, named_keys

READS = ("input", "features", "static")


class OfEach(NamedTuple):
    """Groups of experts of one size, a group per name; their parameters lie stacked, [name, ...]."""

    names: tuple[str, ...]
    count: int  # type: ignore[assignment]  # a tuple's method goes by this name too


Groups = Mapping[str, int | OfEach]


class Gate(NamedTuple):
    """A gate over groups of experts, ``{group: number}`` or `OfEach`. A group's draws depend on its name alone.

    Attributes:
      start: (key, inputs [B, d], groups) -> params.
      apply: (params, inputs [B, d], groups) -> (weights [B, experts] in the order of the groups, {name: loss}).
    """

    start: Callable
    apply: Callable


def softmax_gate(reads: str) -> Gate:
    """softmax(W x + b), or the softmax of learned numbers where the gate reads nothing ("static")."""

    def dense(count: int) -> nn.Dense:
        return nn.Dense(count, use_bias=reads != "static")

    def start(key: Array, x: Float[Array, "batch width"], groups: Groups) -> dict[str, Any]:
        def first(group: str, own: int | OfEach) -> Any:
            if isinstance(own, int):
                return dense(own).init(named_key(key, group), x)["params"]
            keys = named_keys(key, [f"{group}_{name}" for name in own.names])
            return jax.vmap(lambda key: dense(own.count).init(key, x)["params"])(keys)

        return {g: first(g, own) for g, own in groups.items()}

    def apply(
        params: Any, x: Float[Array, "batch width"], groups: Groups
    ) -> tuple[Float[Array, "batch expert"], dict[str, Array]]:
        def logits(params: Any, own: int | OfEach) -> Float[Array, "batch expert"]:
            if isinstance(own, int):
                found: Any = dense(own).apply({"params": params}, x)
                return found
            of_each: Any = jax.vmap(lambda p: dense(own.count).apply({"params": p}, x), out_axes=1)(params)
            return of_each.reshape(len(x), -1)

        found = [logits(params[g], own) for g, own in groups.items()]
        return jax.nn.softmax(jnp.concatenate(found, -1), -1), {}

    return Gate(start, apply)


def check_reads(reads: str, sharing: str) -> None:
    """An error for an unknown choice of what gates read."""
    if reads not in READS:
        raise parts.unknown(f"gate of {sharing}", reads, READS)


def gate_inputs(reads: str, inputs: Any, features: Any, sharing: str) -> Float[Array, "batch width"]:
    """What a gate reads: what its experts read, flattened; the mean of their features; or nothing, a constant.

    Args:
      reads: one of `READS`.
      inputs: what the experts read.
      features: what they put out, stacked in front.
      sharing: named in errors.

    Raises:
      ValueError: if the input to flatten holds integers, such as tokens.
    """
    if reads == "features":
        mean = at_least_float32(values_of(features).mean(0))
        return mean_over_positions(
            {"values": mean, "mask": features["mask"][0]} if isinstance(features, dict) else mean
        )
    rows = len(jax.tree.leaves(inputs)[0])
    if reads == "static":
        return jnp.ones((rows, 1))
    if isinstance(inputs, dict) and inputs.keys() == {"values", "mask"}:
        inputs = jnp.where(inputs["mask"][..., None], inputs["values"], 0)
    leaves = jax.tree.leaves(inputs)
    if any(jnp.issubdtype(x.dtype, jnp.integer) for x in leaves):
        raise ValueError(f"{sharing}: gate='input' reads numbers, and the input holds integers; use gate='features'")
    # nan stands for a missing number, where an encoder takes it at all; it reads as the mean, and not into the gate.
    return jnp.concatenate([jnp.nan_to_num(at_least_float32(layers.flat(x)), posinf=jnp.inf, neginf=-jnp.inf)
                            for x in leaves], -1)  # fmt: skip


def at_least_float32(x: Array) -> Array:
    """Weights of experts are not left to half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

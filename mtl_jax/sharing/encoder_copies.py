"""Several copies of an encoder's layers side by side, their leaves stacked along a first axis and run by one `vmap`."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax.encoders import base
from mtl_jax.keys import TaskKey, named_keys
from mtl_jax.model import Train

Layers = list[tuple[str, nn.Module]]


def one_by_one(x: Any, names: Sequence[Any]) -> dict[Any, Any]:
    """{name: its entry} of leaves stacked by name along a first axis.

    A backward pass stacks their cotangents once; that of indexing would add up as many arrays of zeros with one entry.
    """
    leaves, structure = jax.tree.flatten(x)
    apart = [jax.lax.split(leaf, (1,) * len(names)) for leaf in leaves]
    return {n: jax.tree.unflatten(structure, [jnp.squeeze(of[i], 0) for of in apart]) for i, n in enumerate(names)}


def init_columns(
    named: Layers, key: Key[Array, ""] | TaskKey, x: Any, prefix: str, names: Sequence[str]
) -> tuple[dict, dict, Any]:
    """(stacked params, stacked state, outputs [column, B, ...]) of one copy per name, on the same input.

    A copy's draws depend on its name alone.
    """

    if isinstance(key, TaskKey):
        folds = jnp.stack([key.named(f"{prefix}/{name}") for name in names])
    else:
        folds = named_keys(key, [f"{prefix}/{name}" for name in names])

    def one(own: Key[Array, ""]) -> tuple[dict, dict, Any]:
        own = key._replace(key=own) if isinstance(key, TaskKey) else own
        params, state, out = base.init_layers(named, own, x, prefix)
        return params, state, jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), out)

    params, state, out = jax.vmap(one, out_axes=(0, 0, None))(folds)
    return params, state, jax.tree.map(lambda y: jnp.broadcast_to(y, (len(names), *y.shape)), out)


def apply_columns(
    named: Layers,
    params: dict,
    state: dict,
    x: Any,
    *,
    train: Train,
    key: Key[Array, ""] | TaskKey | None,
    prefix: str,
    names: Sequence[str],
    stacked: bool = False,
) -> tuple[Any, dict]:
    """(outputs [column, B, ...], stacked new state); `x` is one input for all, or `stacked` one per column."""
    used = {n: params[n] for n, _ in named if n in params}
    kept = {n: state[n] for n, _ in named if n in state}
    keys = None if key is None else named_keys(key, names)

    def one(params: dict, state: dict, own: Any, x: Any) -> tuple[Any, dict]:
        own = key._replace(key=own) if isinstance(key, TaskKey) else own
        return base.apply_layers(named, params, state, x, train=train, key=own, prefix=prefix)

    axes = (0, 0, None if keys is None else 0, 0 if stacked else None)
    return jax.vmap(one, axes)(used, kept, keys, x)

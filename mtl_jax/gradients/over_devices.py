"""Means over the devices of a `pmap` or `shard_map`, for losses that each device takes over its own rows."""

from typing import Any

import jax

from mtl_jax.parallel import DATA_AXIS, data_axis


def check_axis(axis_name: str | None) -> None:
    """An error where the axis that this package sums over is in scope and is not the one that is given."""
    if data_axis() and axis_name != DATA_AXIS:
        raise ValueError(
            f"axis {DATA_AXIS!r} is in scope and axis_name is {axis_name!r}; give axis_name={DATA_AXIS!r} if devices "
            "share a batch over it, or call the axis otherwise"
        )


def mean(tree: Any, axis_name: str | None) -> Any:
    """The mean over the devices; the tree itself without an axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def vary(tree: Any, axis_name: str | None) -> Any:
    """The same numbers as each device's own, so that a gradient by them is that of the device's own loss.

    `shard_map` sums gradients by what all devices hold alike; the mean over devices is taken later, row by row.
    """
    if axis_name is None:
        return tree

    nothing = jax.lax.axis_index(axis_name) * 0  # but each device's own nothing
    return jax.tree.map(lambda x: x + nothing.astype(x.dtype), tree)


def everywhere(flags: Any, axis_name: str | None) -> Any:
    """Whether flags hold on all devices."""
    return flags if axis_name is None else jax.lax.pmin(flags.astype("int32"), axis_name) > 0


def anywhere(flags: Any, axis_name: str | None) -> Any:
    """Whether flags hold on any device."""
    return flags if axis_name is None else jax.lax.pmax(flags.astype("int32"), axis_name) > 0

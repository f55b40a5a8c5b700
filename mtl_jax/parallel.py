"""Devices: the data mesh, shardings, and what to do inside pmap. N devices compute what one does."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA_AXIS = "data"


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh with one axis, ``data``, over the first `devices` devices (None: all)."""
    available = jax.device_count()
    count = available if devices is None else devices
    if not 1 <= count <= available:
        raise ValueError(f"a mesh of {count} devices was asked for; {available} are there")
    return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def split_rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Axis `axis`, the rows of a batch, is divided over the devices."""
    return NamedSharding(mesh, P(*(None,) * axis, DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """An error if the devices do not divide the batch, naming the nearest sizes that work."""
    count = mesh.size
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be positive")
    if batch_size % count:
        low, high = batch_size // count * count, (batch_size // count + 1) * count
        near = f"{low} or {high}" if low else f"{high}"
        raise ValueError(f"batch_size={batch_size} cannot be divided over {count} devices; use {near}")


def data_axis() -> str | None:
    """The name of the data axis while a function is traced under pmap, else None."""
    try:
        jax.lax.axis_index(DATA_AXIS)
    except NameError:
        return None
    return DATA_AXIS


def global_sum(tree: Any) -> Any:
    """The sum over devices under pmap; under jit arrays are global already."""
    return jax.lax.psum(tree, DATA_AXIS) if data_axis() else tree


def local_key(key: jax.Array) -> jax.Array:
    """A key of the device's own under pmap, for draws per example."""
    return jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS)) if data_axis() else key


def num_devices() -> int:
    """Devices that share the batch under pmap; 1 under jit, where arrays are global."""
    return jax.lax.axis_size(DATA_AXIS) if data_axis() else 1

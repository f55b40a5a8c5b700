"""Many steps per dispatch: the training split lies on the devices, rows are gathered inside the compiled program."""

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mtl_jax.batch import Batch, PerTask, num_rows, select_rows
from mtl_jax.data.sampling import Sampler
from mtl_jax.parallel import DATA_AXIS, replicated, split_rows
from mtl_jax.stacking import Layout

PARALLEL = ("jit", "pmap")


class Feed:
    """Which rows each step reads: a pure function of (seed, step), so that resuming needs no state.

    Rows are int32 [steps, batch]; where each task has inputs of its own, {first: [steps, task, batch]} of the rows that
    `lay_out` put one task after the other.
    """

    def __init__(self, split: Batch, layout: Layout, batch_size: int, seed: int, stream: int = 0):
        self.layout, self.offsets = layout, offsets(split, layout)
        if isinstance(split.inputs, PerTask):
            self.samplers = {
                t: Sampler(num_rows(split, t), batch_size, (seed << 32) | zlib.crc32(t.encode(), stream))
                for t in sorted(split.inputs)
            }
        else:
            self.samplers = {None: Sampler(num_rows(split), batch_size, seed | (stream << 40))}

    def rows(self, start_step: int, num_steps: int) -> Any:
        """The rows of steps ``start_step : start_step + num_steps``."""
        drawn = {t: s.indices(start_step, num_steps) for t, s in self.samplers.items()}
        if None in drawn:
            return drawn[None]
        return {
            first: np.stack([drawn[n] for n in names], 1) + self.offsets[first][:, None]
            for first, names in self.layout.groups.items()
        }


class Feeds:
    """The rows of several splits, such as training and validation, of which a step reads one batch each."""

    def __init__(self, splits: Sequence[Batch], layout: Layout, batch_size: int, seed: int):
        self.feeds = [Feed(split, layout, batch_size, seed, stream=i) for i, split in enumerate(splits)]

    def rows(self, start_step: int, num_steps: int) -> tuple:
        """The rows of steps ``start_step : start_step + num_steps``, split by split."""
        return tuple(feed.rows(start_step, num_steps) for feed in self.feeds)


def offsets(split: Batch, layout: Layout) -> dict[str, np.ndarray]:
    """{first: int32 [task], where the rows of each task of a group begin}, one task after the other."""
    lengths = {first: [len(split.masks[n]) for n in names] for first, names in layout.groups.items()}
    return {first: np.cumsum([0, *x[:-1]]).astype(np.int32) for first, x in lengths.items()}


def lay_out(split: Batch, layout: Layout) -> Batch:
    """A split on the host as `gather` reads it: labels are [row, task, ...] where tasks have inputs in common, else the
    rows of a group's tasks lie one after the other."""
    if not isinstance(split.inputs, PerTask):
        return layout.stack_batch(split._replace(**{
            kind: jax.tree.map(np.asarray, getattr(split, kind)) for kind in ("targets", "masks", "weights")
        }), axis=1)  # fmt: skip

    def joined(by_task: Any) -> dict[str, Any]:
        return {
            first: jax.tree.map(lambda *x: np.concatenate(x), *(by_task[n] for n in names))
            for first, names in layout.groups.items()
            if first in by_task
        }

    weights = joined(split.weights) if split.weights else None
    return Batch(PerTask(joined(split.inputs)), joined(split.targets), joined(split.masks), weights)


def gather(split: Batch, rows: Any) -> Batch:
    """The stacked batch of one step's rows of a split that was laid out."""

    def take(tree: Any, index: Any) -> Any:
        return jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), tree)

    found = select_rows(split, rows, take)
    if isinstance(rows, dict):
        return found
    inputs, *labels = found
    return Batch(inputs, *jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), labels))


def divide(batch: Batch, mesh: Mesh) -> Batch:
    """A stacked batch whose rows are divided over the devices."""
    own = isinstance(batch.inputs, PerTask)
    inputs = jax.lax.with_sharding_constraint(batch.inputs, split_rows(mesh, int(own)))
    return Batch(inputs, *jax.lax.with_sharding_constraint(tuple(batch[1:]), split_rows(mesh, 1)))


def make_dispatch(step: Callable, mesh: Mesh, parallel: str = "jit", members: bool = False) -> Callable:
    """The compiled function (state, splits, rows) -> (state, records with a leading step axis).

    `splits` and `rows` are tuples: the step is called with one batch of each.

    Args:
      step: from `make_train_step`.
      mesh: the devices that share each batch.
      parallel: "jit" (arrays are global, XLA divides the work) or "pmap" (each device computes its rows, sums are
        taken explicitly).
      members: whether state and rows have a leading axis of runs that train side by side (`vmap`).
    """
    if parallel not in PARALLEL:
        raise ValueError(f"unknown parallel {parallel!r}; ({', '.join(PARALLEL)})")
    whole = replicated(mesh)

    def run(state: Any, splits: tuple[Batch, ...], rows: tuple) -> tuple[Any, Any]:
        def one(state: Any, rows: tuple) -> tuple[Any, Any]:
            batches = tuple(map(gather, splits, rows))
            if parallel == "jit" and mesh.size > 1:
                batches = tuple(divide(b, mesh) for b in batches)
            return step(state, *batches)

        return jax.lax.scan(one, state, rows)

    if parallel == "jit":
        many = jax.vmap(run, in_axes=(0, None, 0), spmd_axis_name=None) if members else run
        return jax.jit(many, donate_argnums=0, out_shardings=whole)

    def on_device(state: Any, splits: tuple, rows: tuple) -> tuple[Any, Any]:
        return jax.vmap(run, in_axes=(0, None, 0))(state, splits, rows) if members else run(state, splits, rows)

    mapped = jax.pmap(on_device, DATA_AXIS, in_axes=(None, None, 0), out_axes=None, devices=list(mesh.devices.flat))

    def dispatch(state: Any, splits: tuple, rows: tuple) -> tuple[Any, Any]:
        return mapped(state, splits, jax.tree.map(lambda r: _by_device(np.asarray(r), mesh.size), rows))

    return dispatch


def _by_device(rows: np.ndarray, devices: int) -> np.ndarray:
    """[..., batch] -> [device, ..., batch / device]."""
    return np.moveaxis(rows.reshape(*rows.shape[:-1], devices, -1), -2, 0)


def compile_once(dispatch: Any, *args: Any) -> tuple[Callable, dict[str, float]]:
    """The compiled dispatch, and what XLA says of it: compile seconds, peak bytes of one dispatch, and FLOPs of a step.

    XLA counts what is in a loop once: a dispatch is a loop over steps, so that its count is a step's; loops inside a
    step, such as an RNN's over time, are counted once, too.
    """
    if not hasattr(dispatch, "lower"):  # pmap compiles at its first call
        return dispatch, {}
    began = time.perf_counter()
    compiled = dispatch.lower(*args).compile()
    cost = {"compile_seconds": time.perf_counter() - began}
    memory = compiled.memory_analysis()
    if memory is not None:
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        cost["peak_bytes"] = float(held + memory.temp_size_in_bytes)
    if flops := (compiled.cost_analysis() or {}).get("flops"):
        cost["step_flops"] = float(flops)
    return compiled, cost

"""Rows of any number in pieces of few sizes, so that few programs are compiled, whatever comes in."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mtl_jax.batch import Batch, PerTask, map_weights, num_rows
from mtl_jax.data.sampling import padded_batches
from mtl_jax.on_disk import OnDisk

MOST = 64  # batches that one program of an evaluation goes through
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST)


def padded_size(rows: int, batch_size: int) -> int:
    """The least power of two that holds `rows`, at most `batch_size`."""
    return min(batch_size, 1 << (rows - 1).bit_length())


def row_pieces(inputs: Any, batch_size: int) -> Iterator[Any]:
    """Inputs in pieces of `batch_size` rows; the last is filled up to a `padded_size` with rows that it repeats.

    Where each task has inputs of its own, all go on as long as the longest.
    """
    total = num_rows(Batch(inputs, {}, {}))
    for start in range(0, total, batch_size):
        rows = min(batch_size, total - start)
        yield take_rows(inputs, slice(start, start + rows), padded_size(rows, batch_size))


def in_pieces(function: Callable, inputs: Any, batch_size: int) -> Any:
    """`function` of inputs, piece by piece, its leaves joined on the host."""
    rows = len(jax.tree.leaves(inputs)[0])
    found = [jax.device_get(function(piece)) for piece in row_pieces(inputs, batch_size)]
    return jax.tree.map(lambda *x: np.concatenate(x)[:rows], *found)


def take_rows(tree: Any, rows: slice, size: int) -> Any:
    """Those rows of every leaf, and as many times the first of them (or of all) again as `size` asks for."""

    def take(x: Any) -> np.ndarray:
        x = x if isinstance(x, OnDisk) else np.asarray(x)
        found = x[rows]
        first = found[:1] if len(found) else x[:1]
        return np.concatenate([found, np.broadcast_to(first, (size - len(found), *x.shape[1:]))])

    return over_tasks(tree, take)


def over_tasks(inputs: Any, function: Callable) -> Any:
    """`function` of every leaf of inputs, each task's own among them."""
    if isinstance(inputs, PerTask):
        return PerTask({t: jax.tree.map(function, x) for t, x in inputs.items()})
    return jax.tree.map(function, inputs)


def batch_pieces(split: Batch, batch_size: int) -> Iterator[Batch]:
    """A split as stacks of padded batches, [count, batch, ...], all of one of the `COUNTS`.

    A split of fewer rows than `batch_size` is one batch of the power of two that holds it. What fills up has mask
    False. What lies on disk is read one batch at a time.
    """
    total = num_rows(split)
    batch_size = padded_size(total, batch_size)
    batches = -(-total // batch_size)
    stacks = -(-batches // (1 if isinstance(split.inputs, OnDisk) else MOST))
    count = next(c for c in COUNTS if c * stacks >= batches)
    for start in range(0, total, count * batch_size):
        rows = slice(start, start + count * batch_size)
        # A task with inputs of its own may be at its end already: one row stands in, without its label.
        inputs = over_tasks(split.inputs, lambda x, rows=rows: x[rows] if rows.start < len(x) else x[:1])
        targets = {t: x[rows] if start < len(x) else x[:1] for t, x in split.targets.items()}
        masks = {t: x[rows] if start < len(x) else np.zeros_like(x[:1]) for t, x in split.masks.items()}
        weights = map_weights(lambda _, w, rows=rows: w[rows] if rows.start < len(w) else w[:1], split.weights)
        yield padded_batches(Batch(inputs, targets, masks, weights), batch_size, count)

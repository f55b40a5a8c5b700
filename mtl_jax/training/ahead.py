"""Rows that lie on disk, read ahead of the steps that train on them: the same that a split in memory would give."""

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mtl_jax.batch import Batch
from mtl_jax.on_disk import OnDisk
from mtl_jax.parallel import replicated, split_rows
from mtl_jax.training.dispatch import Feeds

LEAST = 64  # rows that are read ahead, whatever the batch


class Ahead:
    """What the coming steps read of a training split whose inputs are `OnDisk`.

    Rows follow from (seed, step) as in memory (`Feed`), so that a run ends with the same bits and resumes at any step;
    at most two batches, or `LEAST` rows, are read before their step is asked for. Of several hosts, each reads the rows
    of its own devices.

    Args:
      split: laid out on the host.
      feeds: of every member; threads ask them, so that nobody else may.
      mesh: the devices that share each batch.
      num_steps: of the run.
    """

    def __init__(self, split: Batch, feeds: Sequence[Feeds], mesh: Mesh, num_steps: int):
        self.split, self.mesh, self.num_steps = split, mesh, num_steps
        self.feeds = [feed.feeds[0] for feed in feeds]
        self.inputs: OnDisk = split.inputs
        self._at: int | None = None  # the step that `_coming` goes on with
        self._coming: Iterator[np.ndarray] = iter(())
        self._lock = threading.Lock()
        self._rows_of = functools.lru_cache(maxsize=256)(self._drawn)

    @classmethod
    def of(cls, split: Batch, feeds: Sequence[Feeds], mesh: Mesh, num_steps: int, parallel: str) -> "Ahead | None":
        """One where the split's inputs lie on disk; None where they lie in memory.

        Raises:
          ValueError: under pmap, whose program reads a split in memory.
        """
        if not isinstance(split.inputs, OnDisk):
            return None
        if parallel != "jit":
            raise ValueError(f"parallel={parallel!r} reads a training split in memory, and inputs of this one lie on "
                             "disk; leave parallel at 'jit'")  # fmt: skip
        return cls(split, feeds, mesh, num_steps)

    def rows(self, step: int) -> np.ndarray:
        """int32 [member, batch] of a step; threads may ask at once."""
        with self._lock:
            return self._rows_of(step)

    def _drawn(self, step: int) -> np.ndarray:
        return np.stack([feed.rows(step, 1)[0] for feed in self.feeds])

    def take(self, step: int, count: int) -> tuple[Batch, list[np.ndarray]]:
        """(batches [member and step, batch, ...] on the devices, the numbers of each member's) of the next steps.

        Raises:
          ValueError: where they take more than the inputs' `max_bytes`; and what reading them raises.
        """
        chosen = np.stack([self.rows(step + i) for i in range(count)], 1)  # [member, step, batch]
        members, _, batch = chosen.shape
        self.inputs.check_fits(
            chosen.size, f"are read for a dispatch of {count} steps of {batch}",
            "give a smaller steps_per_dispatch or batch_size",
        )  # fmt: skip
        shape = (members * count, batch, *self.inputs.shape[1:])
        whole, divided = replicated(self.mesh), split_rows(self.mesh, 1)
        places = own_places(divided, shape)
        if step != self._at:
            self._coming = self.inputs.in_order(Order(self, step, places), max(LEAST, 2 * members * len(places)))
        self._at = None  # where a row cannot be read, the next call begins anew
        held = np.empty((members, count, len(places), *self.inputs.shape[1:]), self.inputs.dtype)
        for i in range(count):
            for member in range(members):
                for place in range(len(places)):
                    held[member, i, place] = next(self._coming)
        self._at = step + count
        inputs = jax.make_array_from_process_local_data(divided, held.reshape(-1, *held.shape[2:]), shape)
        rows = chosen.reshape(-1, batch)
        labels = jax.device_put(jax.tree.map(lambda x: x[rows], tuple(self.split[1:])), whole)
        numbers = np.arange(members * count, dtype=np.int32).reshape(members, count)
        return Batch(inputs, *labels), list(numbers)


class Order(Sequence):
    """The row numbers that this host reads from a step on: step by step, member by member, place by place."""

    def __init__(self, ahead: Ahead, first: int, places: Sequence[int]):
        self.ahead, self.first, self.places = ahead, first, places
        self.of_step = len(ahead.feeds) * len(places)

    def __len__(self) -> int:
        return (self.ahead.num_steps - self.first) * self.of_step

    def __getitem__(self, at: Any) -> Any:
        step, rest = divmod(int(at), self.of_step)
        member, place = divmod(rest, len(self.places))
        return int(self.ahead.rows(self.first + step)[member, self.places[place]])


def own_places(sharding: jax.sharding.NamedSharding, shape: tuple[int, ...]) -> list[int]:
    """Which rows of a batch [step, batch, ...] lie on this host's devices."""
    places: set[int] = set()
    for index in sharding.addressable_devices_indices_map(shape).values():
        assert index is not None  # every device has a part
        places |= set(range(*index[1].indices(shape[1])))
    return sorted(places)


def in_memory(split: Batch, what: str) -> Batch:
    """A split whose inputs are read, if they lie on disk; `what` they are read for."""
    if not isinstance(split.inputs, OnDisk):
        return split
    split.inputs.check_fits(len(split.inputs), f"are read whole for {what}", "hold out fewer")
    return split._replace(inputs=np.asarray(split.inputs))


def placed(split: Batch, where: Any) -> Batch:
    """A split on the devices; inputs that lie on disk stay there."""
    if isinstance(split.inputs, OnDisk):
        return Batch(split.inputs, *jax.device_put(tuple(split[1:]), where))
    return jax.device_put(split, where)

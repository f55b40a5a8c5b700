"""Data sets of single tasks side by side: one data set, in which each task has inputs of its own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.training.arguments import check_data


def side_by_side(datasets: Sequence[Dataset]) -> Dataset:
    """The tasks of all data sets, each with the inputs that it has there; a split that one lacks is left out.

    Raises:
      ValueError: for no data set, a task that two of them have, or tables that are encoded in different ways.
    """
    if isinstance(datasets, Dataset) or not hasattr(datasets, "__iter__"):
        raise parts.no_such("datasets", datasets, "several data sets, in a list")
    datasets = list(datasets)
    if not datasets:
        raise ValueError("there are no data sets to put side by side")
    for data in datasets:
        check_data(data)
    tasks = [t for data in datasets for t in data.tasks]
    for task in tasks:
        if (own := [d.name for d in datasets if task.name in {t.name for t in d.tasks}])[1:]:
            raise ValueError(f"task {task.name!r} is in {len(own)} data sets ({', '.join(own)}); rename one of them")
    splits: dict[str, Any] = {}
    for key in SPLITS:
        found = [(d, getattr(d, key)) for d in datasets]
        splits[key] = None if any(s is None for _, s in found) else joined(found)
    columns = [d.columns for d in datasets if d.columns is not None]
    return dataclasses.replace(
        datasets[0], name=" beside ".join(d.name for d in datasets), tasks=tuple(tasks), spec=None, rows=None,
        groups=None, columns=columns[0] if len(columns) == len(datasets) else None, **splits,
    )  # fmt: skip


def joined(found: Sequence[tuple[Dataset, Batch]]) -> Batch:
    """One split with the labels of all, and inputs per task."""
    inputs: dict[str, Any] = {}
    targets, masks, weights = {}, {}, {}
    for data, split in found:
        inputs |= {t.name: inputs_of(split.inputs, t.name) for t in data.tasks}
        targets |= split.targets
        masks |= split.masks
        weights |= split.weights or {}
    return Batch(PerTask(inputs), targets, masks, weights or None)

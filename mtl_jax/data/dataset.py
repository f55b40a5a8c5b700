"""A data set: tasks with their class names and scalers, and up to three splits, each one long `Batch` in memory."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, aligned, labelled_elements, labels_of, map_weights, num_rows, select_rows
from mtl_jax.data import named_split
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.text import Vocabulary
from mtl_jax.data.tokenizing import Tokenizer
from mtl_jax.on_disk import OnDisk
from mtl_jax.reporting import many
from mtl_jax.scaler import Scaler
from mtl_jax.tasks import Task

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Tasks and their splits.

    Attributes:
      name: for tables and messages.
      tasks: their order is the order of every task axis.
      train, val, test: NumPy batches of whole splits, which know their tasks (`named_split.Split`); val and test
        may be None. Inputs may lie on disk (`on_disk.OnDisk`).
      spec: the call that loads it again, such as ``"tox21()"``; None for data that the caller holds.
      vocabulary: for text, words and their ids (`text.Vocabulary`), or what cuts it into tokens
        (`tokenizing.Tokenizer`); its length is what an embedding needs. Else None.
      rows: {split: row numbers in what was given} where the data set split it; {split: {task: row numbers}} where each
        task has inputs of its own.
      groups: {split: int [N], numbers of the groups} where the data set was split by group, such as by patient: rows of
        one group are alike, so that they tell less than as many of different ones (`training.fallback`). None where
        rows are independent.
      columns: for tables, what turned columns into inputs (`tables.Encoding`), to encode further rows with; else None.
    """

    name: str
    tasks: tuple[Task, ...]
    train: Batch
    val: Batch | None = None
    test: Batch | None = None
    spec: str | None = None
    columns: Any = None
    vocabulary: Vocabulary | Tokenizer | None = None
    rows: Any = None
    groups: dict[str, np.ndarray] | None = None

    def __post_init__(self):
        for key in SPLITS:
            if (batch := getattr(self, key)) is not None:
                object.__setattr__(self, key, named_split.of(batch, self.tasks, self.columns))

    def __repr__(self) -> str:
        rows = {k: num_rows(s) for k in SPLITS if (s := getattr(self, k)) is not None}
        words = "" if self.vocabulary is None else f", vocabulary={len(self.vocabulary)}"
        return f"Dataset({self.name!r}, tasks={many.listed([t.name for t in self.tasks])}, rows={rows}{words})"

    def select(self, names: Sequence[str]) -> "Dataset":
        """The same rows with these tasks only, in this order."""
        by_name = {t.name: t for t in self.tasks}
        if isinstance(names, str):
            raise ValueError(f"select takes several names: select([{names!r}])")
        for name in names:
            if name not in by_name:
                raise parts.unknown(f"task of data set {self.name!r}", name, by_name)
        if tuple(names) == tuple(by_name):
            return self
        splits: dict[str, Any] = {k: select_tasks(getattr(self, k), names) for k in SPLITS}
        return dataclasses.replace(self, tasks=tuple(by_name[n] for n in names), spec=None, **splits)

    def take(self, count: int, seed: int = 0, val: int = 0) -> "Dataset":
        """The data set with only `count` training rows, drawn with `seed`; scalers are fitted to those anew.

        Validation rows have labels too, so of them only `val` are kept (0: no validation split). The test split stays.
        """
        kept = take_rows(self.train, count, seed)
        val_split = take_rows(self.val, val, seed + 1) if val and self.val is not None else None
        groups = None
        if self.groups is not None:  # they come along with their rows
            drawn = {"train": (count, seed), "val": (val, seed + 1)}
            groups = {
                k: g if k == "test" else g[drawn_rows(len(g), *drawn[k])]
                for k, g in self.groups.items() if k != "val" or val_split is not None
            }  # fmt: skip
        scalers = {t.name: fit_scaler(t, kept) if t.scaler else None for t in self.tasks}
        tasks = tuple(dataclasses.replace(t, scaler=scalers[t.name]) for t in self.tasks)
        new = dataclasses.replace(self, tasks=tasks, train=kept, val=val_split, spec=None, rows=None,
                                  groups=groups)  # fmt: skip
        check_dataset(new)
        return new


def select_tasks(split: Batch | None, names: Sequence[str]) -> Batch | None:
    """A split with the labels, and where each task has its own the inputs, of these tasks only."""
    if split is None:
        return None
    inputs = PerTask({n: split.inputs[n] for n in names}) if isinstance(split.inputs, PerTask) else split.inputs
    targets, masks = ({n: labels[n] for n in names} for labels in (split.targets, split.masks))
    return Batch(inputs, targets, masks, map_weights(lambda _, w: w, split.weights, names))


def take_rows(split: Batch, count: int, seed: int) -> Batch:
    """`count` rows of a split (of each task's rows, where each has its own), in the order that `seed` draws."""

    def rows(task: str | None) -> np.ndarray:
        total = num_rows(split, task)
        if not 1 <= count <= total:
            raise ValueError(f"{count} rows were asked for; there are {total}" + (f" of task {task!r}" if task else ""))
        return drawn_rows(total, count, seed)

    return gather_rows(split, {t: rows(t) for t in split.inputs} if isinstance(split.inputs, PerTask) else rows(None))


def drawn_rows(total: int, count: int, seed: int) -> np.ndarray:
    """`count` of `total` row numbers, in the order that `seed` draws."""
    return np.random.default_rng(seed).permutation(total)[:count]


def gather_rows(split: Batch, rows: Any) -> Batch:
    """The rows of a split at an index array, or at {task: index array} where each task has inputs of its own."""

    def take(tree: Any, index: np.ndarray) -> Any:
        return jax.tree.map(lambda x: x.take(index) if isinstance(x, OnDisk) else np.asarray(x)[index], tree)

    return select_rows(split, rows, take)


def fit_scaler(task: Task, train: Batch) -> Scaler:
    """Mean and standard deviation of a target of numbers over its training labels, in float64.

    Per dimension, over all pixels alike, or, of boxes, over both x and both y: that leaves overlaps as they are. Rows
    count by their weights. Values that are far from 0 against their spread get an origin (see `Scaler`).
    """
    target, mask, weights = labels_of(train, task.name)
    target = np.asarray(target).astype(np.float64)
    mask = labelled_elements(target, np.asarray(mask))
    if weights is not None:  # in place of 1 and 0
        mask = np.where(mask, aligned(np.asarray(weights, np.float64), target), 0)
    scaled = task.of_kind.scaled
    columns = {"all": 1, "boxes": 2}.get(scaled or "") or int(np.prod(target.shape[1:]))
    target, mask = target.reshape(-1, columns), mask.reshape(-1, columns)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is for the checks to say
        mean, std = moments(target, mask)
        far = (np.abs(mean) > FAR * std) & np.isfinite(mean)
    repeated = 2 if scaled == "boxes" else 1
    origin = tuple(map(float, np.where(far, np.round(mean), 0))) * repeated if far.any() else ()
    return Scaler(tuple(map(float, mean)) * repeated, tuple(map(float, std)) * repeated, origin)


FAR = 1000.0  # standard deviations from 0 where float32 would lose what a model can learn
ROUNDING = 1e-13  # spread of float64 values, against their size, that is rounding


def moments(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [D], deviation [D]) of values [N, D] that count as `mask` says; the deviation of a constant is 1."""
    count = mask.sum(0)
    values, count = np.where(mask > 0, values, 0), np.where(count > 0, count, 1)
    mean = (mask * values).sum(0) / count
    std = np.sqrt((mask * np.where(mask > 0, values - mean, 0) ** 2).sum(0) / count)
    # A constant has nothing to scale by.
    return mean, np.where(std > ROUNDING * np.abs(values).max(0, initial=0), std, 1.0)


def narrow_targets(tasks: Sequence[Task], split: Batch) -> Batch:
    """Numbers as float32, but where a task's scaler has an origin: there they stay float64, in their own units."""
    wide = {t.name for t in tasks if t.scaler is not None and t.scaler.origin}
    targets = {
        n: y.astype(np.float32) if y.dtype == np.float64 and n not in wide else y for n, y in split.targets.items()
    }
    return split._replace(targets=targets)

"""Data sets from arrays: kinds are read off the labels where they are not given, missing labels become masks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, aligned, counted, num_rows
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import SPLITS, Dataset, fit_scaler, gather_rows, narrow_targets
from mtl_jax.data.given import by_task, read_weights, stands_for_missing
from mtl_jax.data.kinds import make_task, squeezed
from mtl_jax.data.labels import as_labels, by_name, encode_labels, has_names_of_numbers
from mtl_jax.data.splits import Request
from mtl_jax.data.splits import build as build_splitter
from mtl_jax.data.stratification import class_codes
from mtl_jax.inputs import read_inputs
from mtl_jax.parts import check_seed
from mtl_jax.reporting.many import some
from mtl_jax.tasks import Task


def from_arrays(
    inputs: Any,
    targets: Mapping[str, Any],
    *,
    masks: Mapping[str, Any] | None = None,
    weights: Any = None,
    missing: Any = None,
    kinds: Mapping[str, str | Task] | None = None,
    val: float | tuple = 0.15,
    test: float | tuple = 0.15,
    seed: int = 0,
    split: Any = None,
    name: str = "arrays",
) -> Dataset:
    """A data set from arrays in memory.

    A label is missing where its float is nan, its text is empty, it is None or a missing value of pandas, or its mask
    is False; a box or a normal is missing where one of its numbers is. Where `kinds` is silent, a kind is read off the
    labels by the rule of `data.kinds`: bool, text of two values, and numbers 0 and 1 or 1 and 2: binary; other text:
    classification (text [N, T]: tagging); whole numbers from 0 or 1 without many gaps, at most 30: classification;
    other numbers: regression; 0 and 1 in several columns: multilabel. Whole numbers that could be classes or amounts,
    and numbers that may mark missing labels, are errors that say how to go on. Text becomes classes in alphabetical
    order, of two classes the second is 1.

    Args:
      inputs: an array [N, ...], a dict of arrays (one multi-modal input), or `PerTask` of either; or rows that lie on
        disk, an `on_disk.OnDisk`. A bool array called "mask" in a dict stays bool; other bool inputs become numbers.
      targets: {task: array}, [N], [N, labels or dims], or as the kind has it; their order is the order of tasks.
      masks: {task: bool array}, True where there is a label.
      weights: what rows count for in losses, metrics and scalers: an array [N] for all tasks, or {task: array [N]}. A
        row of weight 2 is as two rows, one of weight 0 as none.
      missing: a label that stands for a missing one, such as -1, or several; or {task: one or several}.
      kinds: {task: kind, or a whole `Task`}.
      val, test: the share of the rows to hold out, or (inputs, targets), with masks and weights if there are any, of
        their own; 0 for none.
      seed: of the split.
      split: how rows are held out (see `data.splits`): "stratified()", ``splits.grouped(patients)``, or row numbers
        ``{"train": ..., "val": ..., "test": ...}``. None: at random, stratified where a class is too rare for that.
      name: for tables and messages.

    Raises:
      ValueError: for what does not fit, naming task, split, row and value.
    """
    for key, more in {"masks": masks, "kinds": kinds}.items():
        if more is not None and not isinstance(more, Mapping):
            raise parts.no_such(key, more, f"{{task: {'bool array' if key == 'masks' else 'kind'}}}")
    if isinstance(inputs, Mapping) and not isinstance(targets, Mapping) and not hasattr(targets, "items"):
        raise parts.no_such("targets", targets, "{task: labels}; inputs come first, then targets")
    splits = {"train": read(inputs, targets, masks, weights, missing)}
    held_out = {"val": val, "test": test}
    fractions = {k: v for k, v in held_out.items() if not isinstance(v, tuple)}
    for key, given in held_out.items():
        if isinstance(given, tuple):
            if not 2 <= len(given) <= 4:
                raise ValueError(f"{key} has {len(given)} entries; it must be (inputs, targets), and masks and weights "
                                 "if there are any")  # fmt: skip
            names = ("inputs", "targets", "masks", "weights")
            splits[key] = read(**dict(zip(names, given, strict=False)), missing=missing)
    raw, rows, groups = divide(splits, fractions, seed, split)
    return finish(raw, tuple(targets), kinds or {}, name, rows=rows, groups=groups)


def read(
    inputs: Any,
    targets: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    weights: Any = None,
    missing: Any = None,
) -> Batch:
    """One split as given: arrays as NumPy, float64 as float32 and int64 as int32, every missing label masked."""
    if not isinstance(targets, Mapping) and not hasattr(targets, "items"):
        raise parts.no_such("targets", targets, "{task: labels}, such as {'price': y}")
    if not len(targets):
        raise ValueError("targets is empty; give {task: labels}")
    inputs = read_inputs(inputs)
    unknown = set(masks or {}) - set(targets)
    if unknown:
        raise parts.unknown("task in masks", sorted(unknown)[0], targets)
    labels, present, codes = {}, {}, by_task(missing, targets, "missing")
    for task, values in targets.items():
        values, there = as_labels(task, values)
        if not values.ndim:
            raise ValueError(f"task {task!r}: labels are {values[()]!r}; they must be an array, a label per row")
        if isinstance(inputs, PerTask) and task not in inputs:
            raise ValueError(f"task {task!r} has no inputs; PerTask has those of {some(list(inputs))}")
        if masks is not None and task in masks:
            mask = np.asarray(masks[task])
            if mask.dtype != bool or mask.shape != values.shape[: mask.ndim]:
                raise ValueError(
                    f"task {task!r}: the mask is {mask.dtype} {mask.shape}; it must be bool, of a shape that begins "
                    f"the target's, {values.shape}"
                )
            there = there & aligned(mask, values)
        there = there & ~stands_for_missing(values, codes.get(task, ()))
        labels[task], present[task] = values, there
    split = Batch(inputs, labels, present, read_weights(weights, labels))
    for task, values in labels.items():
        if len(values) != num_rows(split, task):
            raise ValueError(f"task {task!r} has {len(values)} labels for {num_rows(split, task)} rows of inputs")
    return split


def divide(
    splits: dict[str, Batch],
    fractions: dict[str, float],
    seed: int,
    split: Any = None,
    column: Callable[[str], np.ndarray] | None = None,
) -> tuple[dict[str, Batch], Any, dict[str, np.ndarray] | None]:
    """(splits, which of the given rows they hold, their groups): takes held-out rows from the training rows.

    Args:
      splits: "train" and what is held out already.
      fractions: {"val", "test": share of the rows} of what is not.
      seed: of the draws.
      split: see `from_arrays`.
      column: the values of a table's column, for splits that name one.
    """
    for key, share in fractions.items():
        if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share < 1:
            raise ValueError(f"{key}={share!r} must be a share of the rows in [0, 1), or (inputs, targets); 0 for none")
    check_seed(seed)
    if sum(fractions.values()) >= 1:
        raise ValueError(f"val + test = {sum(fractions.values()):g} leaves no rows to train on")
    chosen, whole = build_splitter(split), splits["train"]
    if not any(fractions.values()) and split is None:
        return splits, None, None
    if split is not None and len(splits) > 1:
        raise ValueError("split= says which rows are held out, and so do val or test of their own; give one of them")

    def no_columns(name: str) -> np.ndarray:
        raise ValueError(f"split names a column, {name!r}, but these are arrays; give the values in its place")

    def request(total: int, labels: dict[str, np.ndarray]) -> Request:
        return Request(total, dict(fractions), seed, labels, column or no_columns)

    groups = None
    if isinstance(whole.inputs, PerTask):
        if split is not None and chosen.spec not in ("auto()", "random()"):
            raise ValueError("tasks with inputs of their own are split at random, each by itself; split= cannot be had")
        by_task = {t: chosen.rows(request(num_rows(whole, t), {})) for t in whole.inputs}
        keys = dict.fromkeys(k for p in by_task.values() for k in p)
        rows = {k: {t: p.get(k, np.zeros(0, int)) for t, p in by_task.items()} for k in keys}
    else:
        asked = request(num_rows(whole), class_labels(whole))
        rows = chosen.rows(asked)
        if chosen.groups is not None:
            each = chosen.groups(asked)
            groups = {key: each[index] for key, index in rows.items()}
    return splits | {key: gather_rows(whole, index) for key, index in rows.items()}, rows, groups


def class_labels(split: Batch) -> dict[str, np.ndarray]:
    """{task: class numbers, -1 where there is no label} of tasks whose labels look like classes, one per row."""
    found = {}
    for task, values in split.targets.items():
        there, _ = counted(split, task)
        few = values.ndim == 1 and there.ndim == 1
        if few and (values.dtype.kind != "f" or np.isin(values[there], (0, 1)).all()):
            codes = class_codes(values, there)
            if codes.max(initial=-1) < max(50, len(codes) // 20):  # more different values are amounts, or names
                found[task] = codes
    return found


def finish(
    raw: dict[str, Batch],
    names: tuple[str, ...],
    kinds: Mapping[str, str | Task],
    name: str,
    named: bool = False,
    **more,
) -> Dataset:
    """Kinds, class names and scalers, labels in their final dtypes, and the checks.

    Args:
      raw: splits as `read` returns them.
      names: of the tasks, in their order.
      kinds: {task: kind, or a whole `Task`}.
      name: of the data set.
      named: whether numbers that are classes are named by their values, as tables do.
      **more: further fields of the `Dataset`.
    """
    for given in kinds:
        if given not in names:
            raise parts.unknown("task in kinds", given, names)
    for key, split in raw.items():
        for task in names:
            if task not in split.targets:
                raise ValueError(f"task {task!r} has no targets in {key}")
    for task in names:
        raw = squeezed(task, kinds.get(task), raw)
    tasks = tuple(make_task(n, kinds.get(n), raw, named) for n in names)
    by_names = frozenset(t.name for t in tasks if (has_names_of_numbers(t) if named else by_name(t, raw)))
    splits = {k: encode_labels(tasks, s, k, by_names) for k, s in raw.items()}
    scaled = tuple(
        dataclasses.replace(t, scaler=fit_scaler(t, splits["train"])) if t.of_kind.scaled and not t.scaler else t
        for t in tasks
    )
    splits = {k: narrow_targets(scaled, s) for k, s in splits.items()}
    every: dict[str, Any] = {k: splits.get(k) for k in SPLITS}
    data = Dataset(name, scaled, **every, **more)
    check_dataset(data)
    return data

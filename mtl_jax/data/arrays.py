"""Data sets from arrays: kinds are read off the labels where they are not given, missing labels become masks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import SPLITS, Dataset, fit_scaler, gather_rows
from mtl_jax.data.given import by_task, read_weights, stands_for_missing
from mtl_jax.data.splits import Request, class_codes
from mtl_jax.data.splits import build as build_splitter
from mtl_jax.inputs import check_int32, read_inputs
from mtl_jax.parts import check_seed
from mtl_jax.tasks import KINDS, Task


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

    A label is missing where its float is nan, its text is empty or None, or its mask is False; a box or a normal is
    missing where one of its numbers is. Where `kinds` is silent, a kind is read off the labels: bool, or floats that
    are all 0 or 1: binary (multilabel, if [N, labels]); integers and text: classification (text [N, T]: tagging);
    other floats: regression. Other kinds have to be given, and those of integers that may be amounts: negative ones, or
    beyond 1,000 with most of the numbers between unused. Text becomes classes in alphabetical order.

    Args:
      inputs: an array [N, ...], a dict of arrays (one multi-modal input), or `PerTask` of either. A bool array called
        "mask" in a dict stays bool; other bool inputs become numbers.
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
            splits[key] = read(*given, missing=missing)
    raw, rows = divide(splits, fractions, seed, split)
    return finish(raw, tuple(targets), kinds or {}, name, rows=rows)


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
        values = np.asarray(values)
        if not values.ndim:
            raise ValueError(f"task {task!r}: labels are {values[()]!r}; they must be an array, a label per row")
        if isinstance(inputs, PerTask) and task not in inputs:
            raise ValueError(f"task {task!r} has no inputs; PerTask has those of {', '.join(inputs)}")
        if values.dtype == object or values.dtype.kind in "US":
            there = np.array([v is not None and v == v and v != "" for v in values.ravel()], bool).reshape(values.shape)
        elif values.dtype.kind == "f":
            there = ~np.isnan(values)
        else:
            there = np.ones(values.shape, bool)
        if masks is not None and task in masks:
            mask = np.asarray(masks[task])
            if mask.dtype != bool or mask.shape != values.shape[: mask.ndim]:
                raise ValueError(
                    f"task {task!r}: the mask is {mask.dtype} {mask.shape}; it must be bool, of a shape that begins "
                    f"the target's, {values.shape}"
                )
            there = there & mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
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
) -> tuple[dict[str, Batch], Any]:
    """(splits, which of the given rows they hold): takes held-out rows from the training rows.

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
        return splits, None
    if split is not None and len(splits) > 1:
        raise ValueError("split= says which rows are held out, and so do val or test of their own; give one of them")

    def no_columns(name: str) -> np.ndarray:
        raise ValueError(f"split names a column, {name!r}, but these are arrays; give the values in its place")

    def rows_of(total: int, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return chosen.rows(Request(total, dict(fractions), seed, labels, column or no_columns))

    if isinstance(whole.inputs, PerTask):
        if split is not None and chosen.spec not in ("auto()", "random()"):
            raise ValueError("tasks with inputs of their own are split at random, each by itself; split= cannot be had")
        by_task = {t: rows_of(num_rows(whole, t), {}) for t in whole.inputs}
        keys = dict.fromkeys(k for p in by_task.values() for k in p)
        rows = {k: {t: p.get(k, np.zeros(0, int)) for t, p in by_task.items()} for k in keys}
    else:
        rows = rows_of(num_rows(whole), class_labels(whole))
    return splits | {key: gather_rows(whole, index) for key, index in rows.items()}, rows


def class_labels(split: Batch) -> dict[str, np.ndarray]:
    """{task: class numbers, -1 where there is no label} of tasks whose labels look like classes, one per row."""
    found = {}
    for task, values in split.targets.items():
        few = values.ndim == 1 and (values.dtype.kind != "f" or np.isin(values[split.masks[task]], (0, 1)).all())
        if few and split.masks[task].ndim == 1:
            codes = class_codes(values, split.masks[task])
            if codes.max(initial=-1) < max(50, len(codes) // 20):  # more different values are amounts, or names
                found[task] = codes
    return found


def finish(
    raw: dict[str, Batch], names: tuple[str, ...], kinds: Mapping[str, str | Task], name: str, **more
) -> Dataset:
    """Kinds, class names and scalers, labels in their final dtypes, and the checks."""
    for given in kinds:
        if given not in names:
            raise parts.unknown("task in kinds", given, names)
    for key, split in raw.items():
        for task in names:
            if task not in split.targets:
                raise ValueError(f"task {task!r} has no targets in {key}")
    tasks = tuple(make_task(n, kinds.get(n), raw) for n in names)
    splits = {k: encode_labels(tasks, s, k) for k, s in raw.items()}
    scaled = tuple(
        dataclasses.replace(t, scaler=fit_scaler(t, splits["train"])) if KINDS[t.kind].scaled and not t.scaler else t
        for t in tasks
    )
    data = Dataset(name, scaled, **{k: splits.get(k) for k in SPLITS}, **more)
    check_dataset(data)
    return data


def make_task(name: str, given: str | Task | None, raw: dict[str, Batch]) -> Task:
    """The task as given, or with kind, size and classes read off its labels."""
    if isinstance(given, Task):
        return given if given.name == name else dataclasses.replace(given, name=name)
    observed = np.concatenate([s.targets[name][s.masks[name]].ravel() for s in raw.values()])
    given = given or kind_of_labels(name, raw["train"].targets[name], observed)
    kind = parts.lookup(given, KINDS, f"kind of task {name!r}:")
    shape, text = raw["train"].targets[name].shape, raw["train"].targets[name].dtype.kind in "OUS"
    if text and kind.labels != "classes":
        raise ValueError(f"task {name!r}: labels are text such as {observed[:1].tolist()}; {given} takes numbers")
    if kind.labels == "classes":
        if text:
            return Task(name, given, classes=tuple(sorted({str(v) for v in observed})))
        return Task(name, given, size=int(observed.max(initial=0)) + 1)
    return Task(name, given, size=shape[1] if kind.axes == ("size",) and len(shape) > 1 else None)


def kind_of_labels(name: str, labels: np.ndarray, observed: np.ndarray) -> str:
    """The kind that labels speak for; `observed` are those that are there."""
    text = labels.dtype.kind in "OUS"
    if labels.ndim > (1 if text else 2):
        if text and labels.ndim == 2:
            return "tagging"
        raise ValueError(
            f"task {name!r}: labels of shape {labels.shape} do not say what they are; give kinds={{{name!r}: one of "
            f"{', '.join(k for k, v in KINDS.items() if len(v.axes) == labels.ndim - 1)}}}"
        )
    zero_one = not text and bool(np.isin(observed, (0, 1)).all())
    if labels.dtype.kind == "b" or (labels.dtype.kind == "f" and zero_one):
        return "multilabel" if labels.ndim > 1 else "binary"
    if labels.dtype.kind in "iu" and labels.ndim > 1 and zero_one:
        return "multilabel"
    if labels.dtype.kind in "iu" and labels.ndim == 1 and observed.size:
        low, high = int(observed.min()), int(observed.max())
        if low < 0 or (high >= 1000 and 2 * len(np.unique(observed)) <= high):
            raise ValueError(
                f"task {name!r}: integers from {low} to {high} could be classes or amounts; give "
                f"kinds={{{name!r}: 'regression'}}, or 'classification' for classes 0, 1, ... (missing ones by masks=)"
            )
    return "regression" if labels.dtype.kind == "f" or labels.ndim > 1 else "classification"


def encode_labels(tasks: tuple[Task, ...], split: Batch, where: str) -> Batch:
    """Labels in the dtype of their kind; a missing one holds 0. Masks lose axes on which they are constant."""
    targets, masks = {}, {}
    for task in tasks:
        values, mask = split.targets[task.name], split.masks[task.name]
        if KINDS[task.kind].whole and mask.ndim > 1 and mask.ndim == values.ndim:
            mask = mask.all(-1)
        present = np.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values.shape)
        if values.dtype.kind in "OUS":
            values = encode_text(task, values, present, where)
        elif KINDS[task.kind].labels == "classes":
            if values.dtype.kind == "f":
                broken = present & (values != np.round(values))
                if broken.any():
                    at = tuple(np.argwhere(broken)[0])
                    raise ValueError(
                        f"task {task.name!r}: label {values[at]:g} in row {at[0]} of {where} is {values.dtype}; "
                        f"{task.kind} takes integers"
                    )
            values = np.where(present, values, 0)
            check_int32(values, f"task {task.name!r}: labels of {where}", "classes are 0, 1, ...")
            values = values.astype(np.int32)
        else:
            values = np.where(present, values, 0).astype(np.float32)
        while mask.ndim > 1 and (mask == mask[..., :1]).all():
            mask = mask[..., 0]
        targets[task.name], masks[task.name] = values, mask
    return Batch(split.inputs, targets, masks, split.weights)


def encode_text(task: Task, values: np.ndarray, present: np.ndarray, where: str) -> np.ndarray:
    """int32 class numbers of text labels, 0 where there is none."""
    index = {c: i for i, c in enumerate(task.classes)}
    for at in zip(*np.nonzero(present), strict=True):
        if str(values[at]) not in index:
            raise parts.unknown(f"label of task {task.name!r} in row {at[0]} of {where}:", str(values[at]), index)
    pairs = zip(values.ravel(), present.ravel(), strict=True)
    return np.array([index[str(v)] if p else 0 for v, p in pairs], np.int32).reshape(values.shape)

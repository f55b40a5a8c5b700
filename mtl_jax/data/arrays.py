"""Data sets from arrays: kinds are read off the labels where they are not given, missing labels become masks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import SPLITS, Dataset, fit_scaler, gather_rows
from mtl_jax.inputs import check_int32, read_inputs
from mtl_jax.parts import check_seed
from mtl_jax.tasks import KINDS, Task


def from_arrays(
    inputs: Any,
    targets: Mapping[str, Any],
    *,
    masks: Mapping[str, Any] | None = None,
    kinds: Mapping[str, str | Task] | None = None,
    val: float | tuple = 0.15,
    test: float | tuple = 0.15,
    seed: int = 0,
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
      kinds: {task: kind, or a whole `Task`}.
      val, test: the share of the rows to hold out, or (inputs, targets) or (inputs, targets, masks) of their own;
        0 for none.
      seed: of the split.
      name: for tables and messages.

    Raises:
      ValueError: for what does not fit, naming task, split, row and value.
    """
    for key, more in {"masks": masks, "kinds": kinds}.items():
        if more is not None and not isinstance(more, Mapping):
            raise parts.no_such(key, more, f"{{task: {'bool array' if key == 'masks' else 'kind'}}}")
    if isinstance(inputs, Mapping) and not isinstance(targets, Mapping) and not hasattr(targets, "items"):
        raise parts.no_such("targets", targets, "{task: labels}; inputs come first, then targets")
    splits = {"train": read(inputs, targets, masks)}
    held_out = {"val": val, "test": test}
    fractions = {k: v for k, v in held_out.items() if not isinstance(v, tuple)}
    for key, given in held_out.items():
        if isinstance(given, tuple):
            if not 2 <= len(given) <= 3:
                raise ValueError(
                    f"{key} has {len(given)} entries; it must be (inputs, targets) or (inputs, targets, masks)"
                )
            splits[key] = read(*given)
    raw = divide(splits, fractions, seed)
    return finish(raw, tuple(targets), kinds or {}, name)


def read(inputs: Any, targets: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> Batch:
    """One split as given: arrays as NumPy, float64 as float32 and int64 as int32, every missing label masked."""
    if not isinstance(targets, Mapping) and not hasattr(targets, "items"):
        raise parts.no_such("targets", targets, "{task: labels}, such as {'price': y}")
    if not len(targets):
        raise ValueError("targets is empty; give {task: labels}")
    inputs = read_inputs(inputs)
    unknown = set(masks or {}) - set(targets)
    if unknown:
        raise parts.unknown("task in masks", sorted(unknown)[0], targets)
    labels, present = {}, {}
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
        labels[task], present[task] = values, there
    split = Batch(inputs, labels, present)
    for task, values in labels.items():
        if len(values) != num_rows(split, task):
            raise ValueError(f"task {task!r} has {len(values)} labels for {num_rows(split, task)} rows of inputs")
    return split


def divide(splits: dict[str, Batch], fractions: dict[str, float], seed: int) -> dict[str, Batch]:
    """Holds shares of the training rows out, by a permutation drawn with `seed`."""
    for key, share in fractions.items():
        if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 <= share < 1:
            raise ValueError(f"{key}={share!r} must be a share of the rows in [0, 1), or (inputs, targets); 0 for none")
    check_seed(seed)
    if sum(fractions.values()) >= 1:
        raise ValueError(f"val + test = {sum(fractions.values()):g} leaves no rows to train on")
    if not any(fractions.values()):
        return splits
    whole = splits["train"]

    def parts_of(total: int) -> dict[str, np.ndarray]:
        order, start, found = np.random.default_rng(seed).permutation(total), 0, {}
        for key, share in fractions.items():
            count = round(share * total)
            if share and not count:
                raise ValueError(f"{key}={share!r} of {total} rows is none; give {key}=0, or more rows")
            found[key] = np.sort(order[start : start + count])
            start += count
        if start >= total:
            shares = " and ".join(f"{k}={v!r}" for k, v in fractions.items())
            raise ValueError(f"{shares} of {total} rows leave none to train on")
        return {**found, "train": np.sort(order[start:])}

    if isinstance(whole.inputs, PerTask):
        by_task = {t: parts_of(num_rows(whole, t)) for t in whole.inputs}
        rows = {k: {t: p[k] for t, p in by_task.items()} for k in (*fractions, "train")}
    else:
        rows = parts_of(num_rows(whole))
    for key, share in fractions.items():
        if share:
            splits = {**splits, key: gather_rows(whole, rows[key])}
    return {**splits, "train": gather_rows(whole, rows["train"])}


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
    return Batch(split.inputs, targets, masks)


def encode_text(task: Task, values: np.ndarray, present: np.ndarray, where: str) -> np.ndarray:
    """int32 class numbers of text labels, 0 where there is none."""
    index = {c: i for i, c in enumerate(task.classes)}
    for at in zip(*np.nonzero(present), strict=True):
        if str(values[at]) not in index:
            raise parts.unknown(f"label of task {task.name!r} in row {at[0]} of {where}:", str(values[at]), index)
    pairs = zip(values.ravel(), present.ravel(), strict=True)
    return np.array([index[str(v)] if p else 0 for v, p in pairs], np.int32).reshape(values.shape)

"""Labels as they are given, of which some are missing, and as a data set holds them: numbers, and classes by place."""

import decimal
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch, labelled_elements
from mtl_jax.inputs import check_int32
from mtl_jax.kinds import dtype_of
from mtl_jax.tasks import Task


def as_labels(task: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """(labels as NumPy, where there is one) of arrays, masked arrays, lists, and columns of data frames.

    Missing are what a mask hides, nan, None, NaT, pandas' NA, nulls and empty text. Decimal and other exact numbers
    become float64; a column of objects that are all numbers, bools or text becomes one of that kind.

    Raises:
      ValueError: naming the task, for what are no labels.
    """
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        plain, there = as_labels(task, np.where(hidden, np.zeros((), values.dtype), values.data))
        return plain, there & ~hidden
    hidden = None
    if hasattr(values, "isna"):  # pandas
        hidden = np.asarray(values.isna())
    elif hasattr(values, "is_null") and not isinstance(values, np.ndarray):  # polars, pyarrow
        hidden = np.array([v is None for v in (values.to_list() if hasattr(values, "to_list") else values.to_pylist())])
    try:
        plain = np.asarray(values, object if hidden is not None and hidden.any() else None)
    except ValueError as error:
        raise ValueError(f"task {task!r}: labels make no array: {error}") from error
    if hidden is not None and hidden.any():
        plain = plain.copy()
        plain[hidden] = None
    if plain.dtype.kind == "S":
        plain = np.char.decode(plain)
    if plain.dtype.kind in "cMmV":
        raise ValueError(f"task {task!r}: labels are {plain.dtype}; they must be numbers, bools or text")
    if plain.dtype == object:
        return _objects(task, plain)
    if plain.dtype.kind == "f":
        return plain, ~np.isnan(plain)
    return plain, plain != "" if plain.dtype.kind in "UT" else np.ones(plain.shape, bool)


def _objects(task: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Python objects by what they are; a missing one becomes 0 or "" in what is returned."""
    flat = values.ravel()
    there = np.array([_is_there(v) for v in flat], bool)
    kinds = {type(v) for v in flat[there]}
    if kinds and all(issubclass(k, bool | np.bool_) for k in kinds):
        return np.array([bool(v) if t else False for v, t in zip(flat, there, strict=True)]).reshape(values.shape), \
            there.reshape(values.shape)  # fmt: skip
    if kinds and all(issubclass(k, numbers.Number | decimal.Decimal) and not issubclass(k, complex) for k in kinds):
        whole = all(issubclass(k, numbers.Integral) for k in kinds)
        found = np.array([v if t else 0 for v, t in zip(flat, there, strict=True)], np.int64 if whole else np.float64)
        return found.reshape(values.shape), there.reshape(values.shape)
    if any(issubclass(k, list | tuple | dict | set | np.ndarray) for k in kinds):
        raise ValueError(f"task {task!r}: row {int(there.argmax())} holds a {type(flat[there][0]).__name__}; give "
                         "every row as many labels, as one array")  # fmt: skip
    found = np.empty(len(flat), object)
    found[:] = [str(v) if t else "" for v, t in zip(flat, there, strict=True)]
    return found.reshape(values.shape), there.reshape(values.shape)


def _is_there(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value):
        return False
    try:
        return bool(value == value)  # nan and NaT are not themselves, and NA will not say
    except (TypeError, ValueError):
        return isinstance(value, np.ndarray | list | tuple)


def is_text(values: np.ndarray) -> bool:
    """Whether labels are text."""
    return values.dtype.kind in "OUT"


def numbers_of_text(observed: np.ndarray) -> np.ndarray | None:
    """float64 of text labels that are all plain numbers, without zeros in front; else None."""
    distinct, where = np.unique(observed.astype(str), return_inverse=True)
    if not distinct.size or any("_" in v or (len(v) > 1 and v.lstrip("+-")[:1] == "0" and v.lstrip("+-").isdigit()
                                             and v.lstrip("+-") != "0") for v in distinct):  # fmt: skip
        return None
    try:
        found = distinct.astype(np.float64)
    except ValueError:
        return None
    return found[where].reshape(observed.shape) if np.isfinite(found).all() else None


def spell(value: float) -> str:
    """The name of a class that is a number."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def by_name(task: Task, raw: Mapping[str, Batch]) -> bool:
    """Whether numbers in all splits are names of the task's classes rather than places among them."""
    if not has_names_of_numbers(task):
        return False
    names = [float(c) for c in task.classes]
    splits = [(s.targets[task.name], s.masks[task.name]) for s in raw.values()]
    return all(not is_text(y) and bool(np.isin(y[m], names).all()) for y, m in splits)


def has_names_of_numbers(task: Task) -> bool:
    """Whether a label is a class whose name is a number other than its place: in a table, a number is the name."""
    if not task.classes or task.of_kind.labels == "numbers":
        return False
    try:
        names = [float(c) for c in task.classes]
    except ValueError:
        return False
    return names != list(range(len(names)))


def encode_labels(
    tasks: tuple[Task, ...],
    split: Batch,
    where: str,
    named: frozenset[str] = frozenset(),
    place: Callable[[int], str] = "row {}".format,
) -> Batch:
    """Labels in the dtype of their kind; a missing one holds 0. Masks lose axes on which they are constant.

    Numbers wider than float32 are float64 still, as `finish` scales them before it stores them. `named` are the tasks
    whose numbers are names of classes; `place` says where a row stands.

    Raises:
      ValueError: naming task, row and label, for one that is no class.
    """
    targets, masks = {}, {}
    for task in tasks:
        values, mask = split.targets[task.name], split.masks[task.name]
        kind = task.of_kind
        if kind.whole and mask.ndim > 1 and mask.ndim == values.ndim:
            mask = mask.all(-1)
        present = labelled_elements(values, mask)
        if is_text(values) and (kind.labels == "classes" or task.classes):
            values = encode_text(task, values, present, where, place)
        elif is_text(values):
            found = np.zeros(values.shape, np.float64)
            numbers_there = numbers_of_text(values[present])
            if numbers_there is None:
                raise ValueError(f"task {task.name!r}: labels of {where} are text such as "
                                 f"{values[present][:1].tolist()}; {task.kind} takes numbers")  # fmt: skip
            found[present] = numbers_there
            values = found
        elif task.name in named:
            values = encode_numbers(task, values, present, where, place)
        elif kind.labels == "classes" and values.dtype.kind == "f":
            broken = present & (values != np.round(values))
            if broken.any():
                at = tuple(np.argwhere(broken)[0])
                raise ValueError(
                    f"task {task.name!r}: label {values[at]:g} in row {at[0]} of {where} is {values.dtype}; "
                    f"{task.kind} takes integers"
                )
        dtype = dtype_of(kind, values.dtype)
        values = np.where(present, values, 0)
        if dtype is np.int32:
            check_int32(values, f"task {task.name!r}: labels of {where}", "classes are 0, 1, ...")
        values = values.astype(dtype)
        while mask.ndim > 1 and (mask == mask[..., :1]).all():
            mask = mask[..., 0]
        targets[task.name], masks[task.name] = values, mask
    return Batch(split.inputs, targets, masks, split.weights)


def encode_numbers(
    task: Task, values: np.ndarray, present: np.ndarray, where: str, place: Callable[[int], str] = "row {}".format
) -> np.ndarray:
    """Class numbers of labels that are numbers by which classes are named, 0 where there is none."""
    names = np.array([float(c) for c in task.classes])
    unknown = present & ~np.isin(values, names)
    if unknown.any():
        at = tuple(np.argwhere(unknown)[0])
        what = f"label of task {task.name!r} in {place(int(at[0]))} of {where}:"
        raise parts.unknown(what, spell(values[at].item()), task.classes)
    order = np.argsort(names)
    safe = np.where(present, values, names[0])
    return np.where(present, order[np.searchsorted(names[order], safe)], 0)


def encode_text(
    task: Task, values: np.ndarray, present: np.ndarray, where: str, place: Callable[[int], str] = "row {}".format
) -> np.ndarray:
    """int32 class numbers of text labels, 0 where there is none."""
    index = {c: i for i, c in enumerate(task.classes)}
    distinct, inverse = np.unique(values[present].astype(str), return_inverse=True)
    for value in distinct:
        if value not in index:
            row = np.argwhere(present & (values.astype(str) == value))[0][0]
            raise parts.unknown(f"label of task {task.name!r} in {place(int(row))} of {where}:", str(value), index)
    found = np.zeros(values.shape, np.int32)
    if len(distinct):
        found[present] = np.array([index[v] for v in distinct], np.int32)[inverse]
    return found

"""Inputs as people hold them: read as arrays that a model takes, or refused in one line that says the way out.

Nothing is changed on the way but the width of numbers, and that only where they survive it.
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask, aligned
from mtl_jax.on_disk import OnDisk
from mtl_jax.reporting.many import MANY, some

INT32 = np.iinfo(np.int32)
Place = Callable[[str], str]  # the path of a leaf to its name in a message


def place(split: str = "") -> Place:
    """How a message calls a leaf: ``inputs``, or ``inputs 'tokens' of val``."""
    return lambda path: "inputs" + (f" {path!r}" if path else "") + (f" of {split}" if split else "")


def read_inputs(given: Any, where: Place | None = None) -> Any:
    """An array [N, ...], a (nested) dict of arrays, or `PerTask` of either, in the dtypes that models take.

    Lists of numbers become arrays, float64 becomes float32, int64 int32, bool (but for a "mask") float32; what a NumPy
    mask hides becomes nan.

    Raises:
      ValueError: for what is no numbers, has no rows, or does not survive the narrowing, naming leaf, row and value.
    """
    where = place() if where is None else where
    if isinstance(given, PerTask):
        for task in given:
            _check_key(task, where(""))
        if not len(given):
            raise ValueError(f"{where('')} are of no task")
        return PerTask({t: read_inputs(x, functools.partial(within, where, t)) for t, x in given.items()})
    found = _read(given, "", where)
    rows = {path: len(leaf) for path, leaf in partition.flatten(found).items()}
    if len(set(rows.values())) > 1:
        shown = ", ".join(f"{p!r} {n}" for p, n in rows.items())
        raise ValueError(f"{where('')} have different numbers of rows: {shown}")
    if not rows or not all(rows.values()):
        raise ValueError(f"{where('')} have no rows")
    return found


def _read(given: Any, path: str, where: Place) -> Any:
    if isinstance(given, Batch):
        raise ValueError(f"{where(path)}: that is a split, with labels; give its inputs, as data.test.inputs")
    if hasattr(given, "train") and hasattr(given, "tasks"):
        raise ValueError(f"{where(path)}: that is a data set; give the inputs of one split, as data.test.inputs")
    if isinstance(given, Mapping):
        for key in given:
            _check_key(key, where(path))
        return {k: _read(v, f"{path}/{k}" if path else k, where) for k, v in given.items()}
    if isinstance(given, OnDisk):
        return given
    array = as_array(given, where(path))
    return array if path.rpartition("/")[2] == "mask" and array.dtype == bool else narrow(array, where(path))


def within(where: Place, task: str, path: str) -> str:
    """Where a path lies that begins with a task's, or a modality's, name."""
    return where(f"{task}/{path}" if path else task)


def _check_key(key: Any, what: str) -> None:
    if not isinstance(key, str):
        raise ValueError(f"{what} have the name {key!r}; names must be text")


def as_array(given: Any, what: str) -> np.ndarray:
    """One leaf as an array of numbers, at least one axis."""
    if given is None:
        raise ValueError(f"{what} are None; they must be an array, a row per example")
    if hasattr(given, "toarray") and hasattr(given, "nnz"):
        raise ValueError(f"{what} are a sparse {type(given).__name__}; give a dense array: inputs.toarray()")
    try:
        hidden = np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else None
        array = np.ma.getdata(given) if hidden is not None else np.asarray(given)
    except ValueError as error:  # NumPy's words for rows of different lengths
        raise ValueError(f"{what} are a {type(given).__name__} of unlike rows; they must be an array") from error
    if array.dtype == object:
        array = _from_objects(array, what)
    if array.dtype.kind in "USO":
        at = tuple(np.argwhere(np.ones(array.shape, bool))[0]) if array.size else ()
        raise ValueError(f"{what} hold text such as {str(array[at])!r}; they must be numbers, as inputs.astype(float)")
    if array.dtype.kind in "Mm":
        raise ValueError(f"{what} hold times ({array.dtype}); they must be numbers, as days since a first day")
    if array.dtype.kind not in "fiub" and not np.issubdtype(array.dtype, np.floating) and array.dtype.kind != "V":
        raise ValueError(f"{what} are {array.dtype}; they must be real numbers")
    if not array.ndim:
        raise ValueError(f"{what} are {array[()]!r}; they must be an array, a row per example")
    if hidden is not None and hidden.any():
        array = np.where(hidden, np.nan, array.astype(np.result_type(array.dtype, np.float32)))
    return array


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    """Numbers that are held as Python objects, as frames of several types hold them; None is a missing number."""
    for at, value in np.ndenumerate(array):
        if value is not None and not isinstance(value, int | float | np.number | np.bool_):
            kind = "text" if isinstance(value, str) else f"a {type(value).__name__}"
            raise ValueError(f"{what} hold {kind}, {str(value)[:40]!r}, in {cell(at)}; they must be numbers")
    return array.astype(np.float64) if array.size else array.astype(np.float32)


def are_bytes_on_disk(leaf: Any) -> bool:
    """Whether a leaf need not be read to be checked: any byte is as good as another."""
    return isinstance(leaf, OnDisk) and leaf.dtype == np.uint8


def narrow(x: Any, what: str = "inputs") -> np.ndarray:
    """An array as a model takes it: float32, int32, or small numbers (bytes, halves) as they are.

    Raises:
      ValueError: if a number would not survive it.
    """
    x = np.asarray(x)
    if x.dtype.kind == "b":
        return x.astype(np.float32)
    if x.dtype.kind in "iu" and x.dtype.itemsize > 2:
        check_int32(x, what, "give floats, best standardised, or codes 0, 1, ... if they are names")
        return x.astype(np.int32)
    if x.dtype.kind == "f" and x.dtype.itemsize > 4:
        with np.errstate(over="ignore"):
            small = x.astype(np.float32)
        lost = np.isinf(small) & np.isfinite(x)
        if lost.any():
            at = first(lost)
            raise ValueError(f"{what} hold {x[at]:g} in {cell(at)}, beyond float32 (3.4e38); rescale them")
        return small
    return x


def check_int32(x: np.ndarray, what: str, way_out: str) -> None:
    """An error for an integer that would wrap around to another one."""
    if x.size and x.dtype.itemsize > 2 and (x.max() > INT32.max or x.min() < INT32.min):
        at = first((x > INT32.max) | (x < INT32.min))
        raise ValueError(f"{what} hold {x[at]} in {cell(at)}, beyond 32 bits; {way_out}")


def first(bad: np.ndarray) -> tuple[int, ...]:
    """The index of the first True."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def cell(at: tuple[int, ...]) -> str:
    """An index in words: ``row 3``, ``row 3, column 1`` or ``row 3, position (1, 2)``."""
    if len(at) < 2:
        return f"row {at[0]}" if at else "it"
    return f"row {at[0]}, column {at[1]}" if len(at) == 2 else f"row {at[0]}, position {at[1:]}"


def check_numbers(x: np.ndarray, what: str, missing: str | None = None, counts: np.ndarray | None = None) -> None:
    """An error for inf, and for nan unless `missing` is None.

    Args:
      x: [N, ...]; other than floats pass.
      what: its name in the message.
      missing: the way out where nan cannot be read; None where it stands for a missing value.
      counts: bool, of a shape that begins x's: False where nothing reads x (padding).
    """
    if not np.issubdtype(x.dtype, np.floating) and x.dtype.kind != "V":
        return
    x = np.asarray(x, np.float32) if x.dtype.kind == "V" else x
    bad = ~np.isfinite(x) if missing is not None else np.isinf(x)
    if counts is not None:
        bad &= aligned(counts, bad)
    if bad.any():
        at = first(bad)
        way_out = f", and {missing}" if missing is not None and np.isnan(x[at]) else "; they must be finite"
        raise ValueError(f"{what} hold {x[at]} in {cell(at)}{way_out}")


def check_codes(x: np.ndarray, what: str, low: int, high: Any, meaning: str, counts: np.ndarray | None = None) -> None:
    """An error for whole numbers outside ``low .. high - 1``; `high` is a number, or one per column.

    `meaning` names what they are codes of, with ``{high}`` where its size belongs.
    """
    high = np.asarray(high)
    bad = (x < low) | (x >= high)
    if counts is not None:
        bad &= aligned(counts, bad)
    if bad.any():
        at = first(bad)
        limit = int(np.broadcast_to(high, x.shape)[at])
        raise ValueError(f"{what} hold {x[at]} in {cell(at)}, outside {low}..{limit - 1}: {meaning.format(high=limit)}")


def check_finite(inputs: Any, where: Place, encoder: str) -> None:
    """The check of an encoder that has none of its own: every number must be finite."""
    for key, leaf in jax.tree.leaves_with_path(inputs):
        if are_bytes_on_disk(leaf):
            continue
        way_out = f"{encoder} cannot read it; 'tabular' reads nan as missing"
        check_numbers(np.asarray(leaf), where(partition.path_name(key)), way_out)


def in_form_of(example: Any, given: Any) -> Any:
    """Inputs as a model took them in `example`: whole numbers become floats where those were.

    Raises:
      ValueError: for other leaves or shapes, floats where the model took whole numbers, or images of bytes where it
        took floats, whose scale bytes do not have.
    """
    wanted, got = partition.flatten(example), partition.flatten(given)
    rows = {k: tuple(np.shape(v)[1:]) for k, v in wanted.items()}
    if wanted.keys() != got.keys() or any(got[k].shape[1:] != s for k, s in rows.items()):
        missing_axis = wanted.keys() == got.keys() and all(got[k].shape == s for k, s in rows.items())
        hint = "; of one row make inputs[None]" if missing_axis else ""
        shapes = some([f"{k or 'inputs'} {tuple(v.shape)}" for k, v in got.items()], MANY)
        takes = some([f"{k or 'inputs'} (rows{''.join(f', {n}' for n in s)})" for k, s in rows.items()], MANY)
        raise ValueError(f"inputs have the shapes {shapes}; the model takes {takes}{hint}")
    for path, leaf in got.items():
        dtype = np.asarray(wanted[path]).dtype
        check_no_bytes(dtype, leaf, place()(path))
        if leaf.dtype.kind in "iu" and np.issubdtype(dtype, np.floating):
            got[path] = leaf.astype(np.float32)
        if np.issubdtype(leaf.dtype, np.floating) and dtype.kind in "iu":
            raise ValueError(f"{place()(path)} are {leaf.dtype}; the model was trained on whole numbers, {dtype}")
    return partition.unflatten(got, given)


def check_no_bytes(wanted: Any, given: Any, what: str) -> None:
    """An error for images of bytes, [N, H, W, C], before a model that took images of the dtype `wanted`, floats."""
    if np.ndim(given) == 4 and given.dtype == np.uint8 and np.issubdtype(wanted, np.floating):
        raise ValueError(
            f"{what} are images of bytes (uint8), and the model was trained on images of {wanted}: give them as those "
            "were made (`prepare(images)` of the pretrained model), or as x.astype('float32') if those were 0 to 255 "
            "too; or train on bytes"
        )


def warn_of_nonfinite(predictions: Mapping[str, np.ndarray], rows_axis: int) -> None:
    """A warning for predictions that are nan or inf, although the inputs are such as the model reads."""
    broken = {t: ~np.isfinite(v).all(tuple(a for a in range(v.ndim) if a != rows_axis)) for t, v in predictions.items()}
    broken = {t: rows for t, rows in broken.items() if rows.any()}
    if broken:
        task, rows = next(iter(broken.items()))
        warnings.warn(
            f"predictions are not finite: of task {task!r} in {int(rows.sum())} of {len(rows)} rows, first in row "
            f"{first(rows)[0]}{f', and of {len(broken) - 1} more tasks' if len(broken) > 1 else ''}; inputs may be far "
            "beyond those of training, or parameters not finite",
            UserWarning, stacklevel=3,
        )  # fmt: skip

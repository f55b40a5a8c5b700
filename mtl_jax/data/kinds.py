"""What kind of task labels speak for, and how many classes of what names it has.

One rule reads the kind off labels, the same for arrays, data frames and files:

- bool, text of two values (yes and no, true and false), numbers that are all 0 or 1, or all 1 or 2: **binary**;
- other text: **classification** (text [N, T]: tagging); text that is numbers counts as these numbers;
- whole numbers, whatever their dtype: **classification** if they start at 0 or 1, at least two thirds of the numbers up
  to the largest are used, and there are at most 30 of them; **regression** if they are many different amounts; what
  could be either, such as 0, 5 and 10 again and again, or 0 to 99, is an error that asks for kinds=;
- other numbers: **regression**; all 0 or 1 in several columns: **multilabel**.

A number that stands apart, such as -1 beside 0 and 1 or 255 beside 0 to 20, may mark a missing label: an error says how
to mask it, and nothing is trained on it.
"""

import dataclasses

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.labels import is_text, numbers_of_text, spell
from mtl_jax.kinds import KINDS, one_class_a_row
from mtl_jax.tasks import Task

# In other words 0 and 1, in any case.
BOOLEANS = (("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("nein", "ja"), ("non", "oui"))
MOST_CLASSES = 30  # whole numbers that count as classes by themselves
FEW_AMOUNTS = 20  # different whole numbers with gaps that may be class codes
ABOVE = (9, 88, 98, 99, 127, 254, 255, 888, 998, 999, 9999, 32767, 65535, 99999)  # customary codes of "no label"
BELOW = (-1, -2, -8, -9, -88, -98, -99, -100, -127, -128, -888, -998, -999, -9999, -32768, -99999)


def squeezed(name: str, given: str | Task | None, raw: dict[str, Batch]) -> dict[str, Batch]:
    """Splits whose labels of whole numbers or text [N, 1] are [N], where the kind is not given or is one of [N]."""
    kind = given.kind if isinstance(given, Task) else given
    splits = [(s.targets[name], s.masks[name]) for s in raw.values()]
    if not (kind is None or one_class_a_row(kind)) or any(y.ndim != 2 or y.shape[1] != 1 for y, _ in splits):
        return raw
    if kind is None and any(y.dtype.kind == "b" or not (is_text(y) or _whole(y[m])) for y, m in splits):
        return raw
    if kind is None and all(y.dtype.kind == "f" and np.isin(y[m], (0, 1)).all() for y, m in splits):
        return raw
    return {
        k: s._replace(targets={**s.targets, name: s.targets[name][:, 0]}, masks={**s.masks, name: s.masks[name][:, 0]})
        for k, s in raw.items()
    }


def make_task(name: str, given: str | Task | None, raw: dict[str, Batch], named: bool = False) -> Task:
    """The task as given, or with kind, size and classes read off its labels.

    Args:
      name: of the task.
      given: its kind, or a whole task.
      raw: splits whose targets are labels as `as_labels` returns them.
      named: whether class numbers are named by their values, one class each (as tables do), rather than counted from 0.
    """
    if isinstance(given, Task):
        return given if given.name == name else dataclasses.replace(given, name=name)
    observed = np.concatenate([s.targets[name][s.masks[name]].ravel() for s in raw.values()])
    labels = raw["train"].targets[name]
    if not observed.size and len(labels):
        raise ValueError(f"task {name!r} has no label in train or elsewhere; leave it out, or give it labels")
    given_kind, given = given, given or kind_of_labels(name, labels, observed)
    kind = parts.lookup(given, KINDS, f"kind of task {name!r}:")
    text, shape = is_text(labels), labels.shape
    amounts = numbers_of_text(observed) if text else observed
    if text and amounts is None and kind.labels == "numbers":
        raise ValueError(f"task {name!r}: labels are text such as {observed[:1].tolist()}; {given} takes numbers")
    if kind.two:
        return Task(name, given, classes=_two_classes(name, observed, amounts, text))
    if kind.labels == "classes":
        if text:
            classes = sorted({str(v) for v in observed}, key=float if amounts is not None else None)
            return Task(name, given, classes=tuple(classes))
        return _task_of_codes(name, given, observed, named, given_kind is not None)
    if text and kind.labels == "zero_one" and (amounts is None or not np.isin(amounts, (0, 1)).all()):
        raise ValueError(f"task {name!r}: labels are text such as {observed[:1].tolist()}; {given} takes 0 and 1")
    return Task(name, given, size=shape[1] if kind.columns and len(shape) > 1 else None)


def _two_classes(name: str, observed: np.ndarray, amounts: np.ndarray | None, text: bool) -> tuple[str, ...]:
    """Names of the classes 0 and 1; () where labels are 0 and 1 themselves."""
    if amounts is not None and np.isin(amounts, (0, 1)).all():
        return ()
    distinct = sorted({str(v) for v in observed}) if amounts is None else np.unique(amounts).tolist()
    if len(distinct) == 2 and (text or distinct in ([1, 2], [-1, 1])):
        if text and amounts is not None:
            return tuple(sorted({str(v) for v in observed}, key=float))
        if text and any({v.lower() for v in distinct} == set(pair) for pair in BOOLEANS):
            return tuple(sorted(distinct, key=lambda v: any(v.lower() == pair[1] for pair in BOOLEANS)))
        return tuple(distinct if amounts is None else map(spell, np.unique(amounts).tolist()))
    if amounts is None:
        raise ValueError(f"task {name!r}: labels are text of {len(distinct)} values such as {distinct[:3]}; binary "
                         "takes two")  # fmt: skip
    apart = [v for v in distinct if v not in (0, 1)]
    raise ValueError(
        f"task {name!r}: label {apart[0]:g} is neither 0 nor 1; if it marks a missing label, say "
        f"missing={{{name!r}: {apart[0]:g}}}"
    )


def _task_of_codes(name: str, kind: str, observed: np.ndarray, named: bool, asked: bool) -> Task:
    """A task on class numbers: each value a class of its own name, or classes 0 to the largest."""
    values = np.unique(observed)
    if asked and values.tolist() == [-1, 1]:
        raise ValueError(_signs(name))
    if asked and len(values) > 1 and (apart := standing_apart(values)) is not None:
        raise ValueError(
            f"task {name!r}: label {apart:g} stands apart from {values[values != apart][0]:g} to "
            f"{values[values != apart][-1]:g}; if it marks what has no label, say missing={{{name!r}: {apart:g}}}; if "
            f"it is a class, give kinds={{{name!r}: mtl.Task({name!r}, {kind!r}, size=..., classes=...)}}"
        )
    if not named and _whole(values) and (not len(values) or values[0] >= 0):
        top = int(values.max(initial=0))
        if values.min(initial=0) == 0 and (top < 1000 or 2 * len(values) > top):
            return Task(name, kind, size=top + 1)
        if asked and top < 1000:  # as it was asked for: classes are counted from 0
            return Task(name, kind, size=top + 1)
    if not named and not _whole(values):
        return Task(name, kind, size=max(1, len(values)))  # `encode_labels` names the row
    return Task(name, kind, classes=tuple(spell(v) for v in values.tolist()))


def standing_apart(values: np.ndarray) -> float | None:
    """A customary code of "no label" among distinct sorted values, outside of the others; None if there is none."""
    low, high = values[0], values[-1]
    if low < 0 and low in BELOW and (len(values) == 1 or values[1] >= 0):
        return float(low)
    if len(values) > 1 and high in ABOVE and high > 2 * (values[-2] + 1) and high >= 20:
        return float(high)
    return None


def _whole(values: np.ndarray) -> bool:
    if values.dtype.kind in "iub":
        return True
    return values.dtype.kind == "f" and bool((values == np.round(values)).all() and (np.abs(values) < 2**53).all())


def kind_of_labels(name: str, labels: np.ndarray, observed: np.ndarray) -> str:
    """The kind that labels speak for, by the rule at the top; `observed` are those that are there."""
    text = is_text(labels)
    if labels.ndim > (1 if text else 2):
        if text and labels.ndim == 2:
            return "tagging"
        raise ValueError(
            f"task {name!r}: labels of shape {labels.shape} do not say what they are; give kinds={{{name!r}: one of "
            f"{', '.join(k for k, v in KINDS.items() if len(v.axes) == labels.ndim - 1)}}}"
        )
    if labels.dtype.kind == "b":
        return "multilabel" if labels.ndim > 1 else "binary"
    amounts = numbers_of_text(observed) if text else observed
    if amounts is None:
        return "binary" if len(set(observed.tolist())) == 2 else "classification"
    if labels.ndim > 1:
        return "multilabel" if bool(np.isin(amounts, (0, 1)).all()) else "regression"
    values, counts = np.unique(amounts, return_counts=True)
    if not len(values):
        return "regression" if labels.dtype.kind == "f" else "classification"
    if not _whole(values):
        _refuse_code_below(name, values, counts)
        return "regression"
    kind = kind_of_whole(values, int(counts.sum()))
    if kind == "regression":
        _refuse_code_below(name, values, counts)
    if kind is None and values.tolist() == [-1, 1]:
        raise ValueError(_signs(name))
    if kind is None:
        apart = standing_apart(values)
        code = values[0] if apart is None and values[0] < 0 else apart
        masked = "" if code is None else f"; if {code:g} marks a missing label, say missing={{{name!r}: {code:g}}}"
        raise ValueError(
            f"task {name!r}: integers from {values[0]:g} to {values[-1]:g} could be classes or amounts; give "
            f"kinds={{{name!r}: 'regression'}}, or 'classification'{masked}"
        )
    return kind


def _signs(name: str) -> str:
    """What is said of labels that are all -1 or 1."""
    return (
        f"task {name!r}: labels are -1 and 1, which could be two classes, or amounts; say kinds={{{name!r}: 'binary'}} "
        "for two classes, or 'regression'"
    )


def kind_of_whole(values: np.ndarray, count: int) -> str | None:
    """The kind of `count` whole numbers with these distinct sorted values; None where there is doubt."""
    low, high, distinct = values[0], values[-1], len(values)
    if np.isin(values, (0, 1)).all() or values.tolist() == [1, 2]:
        return "binary"
    if standing_apart(values) is not None and distinct <= FEW_AMOUNTS + 1:
        return None
    if low < 0:
        return None if distinct <= FEW_AMOUNTS and 2 * distinct > high - low else "regression"
    if low <= 1 and 3 * distinct >= 2 * (high - low + 1):
        if distinct <= MOST_CLASSES:
            return "classification" if distinct <= 10 or count >= 1.5 * distinct else None
        return None if count >= 2 * distinct else "regression"
    return None if distinct <= FEW_AMOUNTS and count >= 5 * distinct else "regression"


def has_code_below(values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether amounts of at least 0 stand beside one negative number that comes again and again."""
    return bool(
        len(values) > 5 and values[0] in BELOW and values[1] >= 0 and counts[0] > 1 and counts[0] > 3 * counts[1]
    )


def _refuse_code_below(name: str, values: np.ndarray, counts: np.ndarray) -> None:
    """An error for what `has_code_below` says."""
    if has_code_below(values, counts):
        raise ValueError(
            f"task {name!r}: label {values[0]:g} is there {counts[0]} times, and no other is below 0; if it marks a "
            f"missing label, say missing={{{name!r}: {values[0]:g}}}; if it is an amount, "
            f"kinds={{{name!r}: 'regression'}}"
        )

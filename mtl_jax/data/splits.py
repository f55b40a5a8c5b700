"""Which rows train, validate and test: at random, with rare classes everywhere, by group, by time, in folds, as given.

A way to split is a text such as ``"grouped('patient')"``, where a name is a table's column, or a call with an array in
the name's place: ``grouped(patients)``. Held-out rows are drawn with a seed and nothing else, so that a split can be
made again; which rows they were is kept with the data set.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from mtl_jax import parts
from mtl_jax.data.stratification import exact, rare_classes, spread

Rows = dict[str, np.ndarray]  # {"train", "val", "test": row numbers, ascending}; no entry: no such split
HELD_OUT = ("val", "test")


class Request(NamedTuple):
    """What a split is asked of.

    Attributes:
      total: number of rows.
      shares: {"val", "test": share of the rows}, in [0, 1).
      seed: of the draws.
      labels: {task: [total], class numbers, -1 where there is no label}, of tasks with classes.
      column: (name) -> [total] values.
    """

    total: int
    shares: dict[str, float]
    seed: int
    labels: dict[str, Int[np.ndarray, " rows"]]
    column: Callable[[str], np.ndarray]


class Splitter(NamedTuple):
    """A way to split: `rows` of a `Request`; `columns` that it reads, which are no inputs; its text.

    `groups` of a `Request` numbers the groups that are kept together, [total]; None where each row is by itself.
    """

    rows: Callable[[Request], Rows]
    columns: tuple[str, ...] = ()
    spec: str | None = None
    groups: Callable[[Request], Int[np.ndarray, " rows"]] | None = None


def values_of(by: Any, request: Request, what: str) -> Shaped[np.ndarray, " rows"]:
    """A column by its name, or the array given; one value per row, none missing."""
    values = np.asarray(request.column(by) if isinstance(by, str) else by)
    where = f"{what} {by!r}" if isinstance(by, str) else what
    if values.shape != (request.total,):
        raise ValueError(f"{where} has shape {values.shape}; it needs a value for each of {request.total} rows")
    absent = np.array([v is None or v != v or v == "" for v in values.tolist()], bool)
    if absent.any():
        raise ValueError(f"{where} has no value in row {int(absent.argmax())}; every row needs one")
    return values


def name_of(by: Any) -> tuple[str, ...]:
    """The column that is read, if any."""
    return (by,) if isinstance(by, str) else ()


def spec_of(way: str, by: Any) -> str | None:
    """The text of a way that reads a column; None for one that was given an array."""
    return parts.call(way, {"by": by}) if isinstance(by, str) else None


def collect(place: Int[np.ndarray, " rows"], request: Request) -> Rows:
    """Rows by where each was put: 0 train, 1 val, 2 test.

    Raises:
      ValueError: for a split that was asked for and got no row.
    """
    found = {k: np.flatnonzero(place == i) for i, k in enumerate(("train", *HELD_OUT))}
    for key in found:
        if not len(found[key]) and (key == "train" or request.shares.get(key, 0)):
            asked = ", ".join(f"{k}={v:g}" for k, v in request.shares.items() if v)
            raise ValueError(f"{key} gets none of {request.total} rows: too few rows, or groups, for {asked}")
    return {k: r for k, r in found.items() if len(r)}


def wanted(request: Request) -> np.ndarray:
    """How many rows train, val and test should get."""
    held = [round(request.shares.get(k, 0) * request.total) for k in HELD_OUT]
    return np.array([request.total - sum(held), *held])


def draw(request: Request) -> Rows:
    """Every row alike, by one permutation."""
    order = np.random.default_rng(request.seed).permutation(request.total)
    place, start = np.zeros(request.total, int), 0
    for i, count in enumerate(wanted(request)[1:], 1):
        place[order[start : start + count]] = i
        start += count
    return collect(place, request)


def random() -> Splitter:
    """Every row alike."""
    return Splitter(draw, spec="random()")


def auto() -> Splitter:
    """At random; stratified where a class of some task is so rare that chance could leave a split without it."""

    def rows(request: Request) -> Rows:
        smallest = min((s for s in request.shares.values() if s), default=0.0)
        if smallest and rare_classes(request.labels, smallest):
            return collect(spread(request.labels, wanted(request), request.seed), request)
        return draw(request)

    return Splitter(rows, spec="auto()")


def stratified(by: Any = None) -> Splitter:
    """Every split has its share of every class: of all tasks' classes, or of the values of a column or an array."""

    def rows(request: Request) -> Rows:
        if by is None:
            if not request.labels:
                raise ValueError("stratified(): no task has classes; name a column, or use 'random()'")
            labels = request.labels
        else:
            labels = {"": np.unique(values_of(by, request, "column to stratify by"), return_inverse=True)[1]}
        return collect(exact(labels, wanted(request), request.seed), request)

    return Splitter(rows, name_of(by), spec_of("stratified", by))


def grouped(by: Any) -> Splitter:
    """All rows of a group (a patient, a user) go to one split; shares are met as well as the groups allow."""

    def rows(request: Request) -> Rows:
        groups = groups_of(by, request)
        place_of = pack(np.bincount(groups), wanted(request), np.random.default_rng(request.seed))
        return collect(place_of[groups], request)

    return Splitter(rows, name_of(by), spec_of("grouped", by), lambda request: groups_of(by, request))


def groups_of(by: Any, request: Request) -> Int[np.ndarray, " rows"]:
    """The number of each row's group, by a column or an array."""
    return np.unique(values_of(by, request, "column of groups"), return_inverse=True)[1]


def pack(sizes: Int[np.ndarray, " groups"], counts: Int[np.ndarray, " bins"], rng: Any) -> Int[np.ndarray, " groups"]:
    """Groups in random order, each into the held-out bin that it overfills least, or else into the first bin."""
    place, left = np.zeros(len(sizes), int), counts.astype(float).copy()
    for group in rng.permutation(len(sizes)):
        fits = [i for i in range(1, len(counts)) if counts[i] and left[i] >= sizes[group] / 2]
        if fits:
            place[group] = max(fits, key=lambda i: left[i] / counts[i])
            left[place[group]] -= sizes[group]
    return place


def by_time(by: Any) -> Splitter:
    """The last rows in time test, those before them validate. Rows of one time stay together."""

    def rows(request: Request) -> Rows:
        times = values_of(by, request, "column of times")
        rank = np.unique(as_times(times, by), return_inverse=True)[1]
        order = np.argsort(rank, kind="stable")
        place, end = np.zeros(request.total, int), request.total
        for i, key in ((2, "test"), (1, "val")):
            start = end - round(request.shares.get(key, 0) * request.total)
            while 0 < start < end and rank[order[start]] == rank[order[start - 1]]:
                start += 1  # a time that began before belongs there
            place[order[start:end]] = i
            end = start
        return collect(place, request)

    return Splitter(rows, name_of(by), spec_of("by_time", by))


def as_times(values: np.ndarray, by: Any) -> np.ndarray:
    """Numbers and datetime64 as they are, text by ISO 8601."""
    if values.dtype.kind in "iufM":
        return values
    try:
        return np.array([str(v) for v in values.tolist()], "datetime64[ns]")
    except ValueError as error:
        raise ValueError(
            f"column of times {by!r}: {error}; times are numbers or ISO 8601, such as 2024-05-31"
        ) from error


def folds(k: int = 5, fold: int = 0, by: Any = None) -> Splitter:
    """Fold `fold` of `k` tests, so that `k` such splits test every row once; `val` is a share of the others.

    With `by`, a group's rows stay in one fold. The folds do not depend on `fold`.
    """
    if not isinstance(k, int) or k < 2:
        raise ValueError(f"folds: k={k!r} must be at least 2")
    if not isinstance(fold, int) or not 0 <= fold < k:
        raise ValueError(f"folds: fold={fold!r} must lie in 0..{k - 1}")

    def rows(request: Request) -> Rows:
        groups = np.arange(request.total) if by is None else groups_of(by, request)
        sizes, rng = np.bincount(groups), np.random.default_rng(request.seed)
        if len(sizes) < k:
            raise ValueError(f"folds: {k} folds of {len(sizes)} {'rows' if by is None else 'groups'}; take fewer")
        fold_of, load = np.zeros(len(sizes), int), np.zeros(k, int)
        order = rng.permutation(len(sizes))
        for group in order[np.argsort(-sizes[order], kind="stable")] if by is not None else order:
            fold_of[group] = load.argmin()
            load[fold_of[group]] += sizes[group]
        tested = fold_of[groups] == fold
        share = request.shares.get("val", 0)
        inner = np.unique(groups[~tested])
        counts = np.array([0, round(share * (~tested).sum())])
        place_of = np.zeros(len(sizes), int)
        place_of[inner] = pack(sizes[inner], counts, np.random.default_rng([request.seed, fold]))
        place = np.where(tested, 2, place_of[groups])
        return collect(place, request._replace(shares={"val": share, "test": 1 / k}))

    spec = parts.call("folds", {"k": k, "fold": fold} | ({} if by is None else {"by": by}))
    if by is None:
        return Splitter(rows, spec=spec)
    return Splitter(rows, name_of(by), spec if isinstance(by, str) else None, lambda request: groups_of(by, request))


NAMES_OF_SPLITS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2,
}  # fmt: skip


def column(by: Any) -> Splitter:
    """As a column says: train, val (valid, validation, dev) or test, in any case."""

    def rows(request: Request) -> Rows:
        values = [str(v).strip().lower() for v in values_of(by, request, "column of splits").tolist()]
        for row, value in enumerate(values):
            if value not in NAMES_OF_SPLITS:
                raise ValueError(
                    f"column of splits {by!r}, row {row}: {value!r} is none of {', '.join(NAMES_OF_SPLITS)}"
                )
        return collect(np.array([NAMES_OF_SPLITS[v] for v in values]), request._replace(shares={}))

    return Splitter(rows, name_of(by), spec_of("column", by))


def given(rows: Mapping[str, Any]) -> Splitter:
    """Row numbers as they are: {"train", "val", "test": numbers}; no row may be in two of them."""

    def checked(request: Request) -> Rows:
        found: Rows = {}
        for key, numbers in rows.items():
            if key not in ("train", *HELD_OUT):
                raise parts.unknown("split", str(key), ("train", *HELD_OUT))
            numbers = np.asarray(numbers)
            if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
                raise ValueError(f"split {key!r}: rows are {numbers.dtype} {numbers.shape}; give a list of row numbers")
            if numbers.min() < 0 or numbers.max() >= request.total:
                raise ValueError(f"split {key!r}: row {int(numbers[(numbers < 0) | (numbers >= request.total)][0])} is "
                                 f"outside 0..{request.total - 1}")  # fmt: skip
            found[key] = np.sort(numbers).astype(np.int64)
        every = np.concatenate(list(found.values())) if found else np.zeros(0, int)
        values, counts = np.unique(every, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"row {int(values[counts > 1][0])} is in more than one split, or twice in one")
        if "train" not in found:
            raise ValueError("the split has no 'train' rows")
        return found

    return Splitter(checked)


NAMES: dict[str, Callable[..., Splitter]] = {
    "auto": auto, "random": random, "stratified": stratified, "grouped": grouped, "by_time": by_time, "folds": folds,
    "column": column,
}  # fmt: skip


def build(split: Any) -> Splitter:
    """A `Splitter` of its text, of row numbers, or as it is; None is `auto`."""
    if split is None:
        return auto()
    if isinstance(split, Splitter):
        return split
    if isinstance(split, Mapping):
        return given(split)
    if isinstance(split, str):
        return parts.build(split, NAMES, "split")
    raise ValueError(f"split={split!r} must be a text such as \"grouped('patient')\" ({', '.join(NAMES)}), or "
                     "{'train': rows, 'val': rows, 'test': rows}")  # fmt: skip

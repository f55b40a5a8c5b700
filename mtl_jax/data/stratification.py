"""Rows to splits so that each has its share of every class; see `data.splits` for the ways to split.

Places are numbers of splits: 0 train, 1 val, 2 test; class numbers are -1 where there is no label.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped

FEW = 5  # rows of a class that each held-out split should get: fewer to expect, and the split is stratified
RARE = 500  # a class of more labels falls evenly by chance
Labels = Mapping[str, Int[np.ndarray, " rows"]]  # {task: class numbers}


def rare_classes(labels: Labels, smallest: float) -> list[tuple[str, int]]:
    """(task, class) of which a split of the share `smallest` could expect fewer than `FEW` rows, and could have one."""
    found = []
    for task, codes in labels.items():
        counts = np.bincount(codes[codes >= 0])
        found += [(task, c) for c, n in enumerate(counts) if n >= 3 and n * smallest < FEW]
    return found


def spread(labels: Labels, counts: Int[np.ndarray, " split"], seed: int) -> Int[np.ndarray, " rows"]:
    """The place of each row, of which `counts` go to each split.

    Rows of rare classes first, each to the split that lacks most of its class (Sechidis, Tsoumakas and Vlahavas, "On
    the stratification of multi-label data", ECML 2011, Figure 1); all other rows at random.
    """
    rng, total = np.random.default_rng(seed), int(counts.sum())
    place, left = np.full(total, -1), counts.astype(float)
    shares = counts / total
    rows_of = {
        (t, c): np.flatnonzero(codes == c)
        for t, codes in labels.items() for c in np.unique(codes[codes >= 0])
    }  # fmt: skip
    rows_of = {k: r for k, r in rows_of.items() if len(r) <= RARE}
    lacks = {k: shares * len(r) for k, r in rows_of.items()}
    kinds_of: dict[int, list] = {}
    for key, rows in rows_of.items():
        for row in rows.tolist():
            kinds_of.setdefault(row, []).append(key)
    open_rows = {k: set(r.tolist()) for k, r in rows_of.items()}
    while any(open_rows.values()):
        key = min((k for k in open_rows if open_rows[k]), key=lambda k: (len(open_rows[k]), k))
        for row in rng.permutation(sorted(open_rows[key])).tolist():
            # Of those that lack the class most, the one that lacks rows most; what is left is chance.
            most = np.flatnonzero((lacks[key] >= lacks[key].max() - 1e-9) & (counts > 0))
            most = most[left[most] >= left[most].max() - 1e-9]
            where = int(rng.choice(most))
            place[row], left[where] = where, left[where] - 1
            for other in kinds_of[row]:
                lacks[other][where] -= 1
                open_rows[other].discard(row)
    rest = rng.permutation(np.flatnonzero(place < 0))
    left = np.maximum(left, 0)
    edges = np.round(np.cumsum(left) / max(left.sum(), 1) * len(rest)).astype(int)
    for i, (start, end) in enumerate(zip([0, *edges[:-1]], edges, strict=True)):
        place[rest[start:end]] = i
    return place


def exact(labels: Labels, counts: Int[np.ndarray, " split"], seed: int) -> Int[np.ndarray, " rows"]:
    """The place of each row: `spread` by classes of several tasks, and of one in equal parts.

    Of one, classes come one after the other, and each row goes to the split that lags most. Every split then has its
    share of every class to within two rows, and of all rows to within one.
    """
    if len(labels) > 1:
        return spread(labels, counts, seed)
    codes = next(iter(labels.values()))
    order = np.lexsort((np.random.default_rng(seed).random(len(codes)), codes)).tolist()
    shares, place = (counts / len(codes)).tolist(), np.zeros(len(codes), int)
    lag = [0.0] * len(shares)
    for row in order:
        lag = [a + s for a, s in zip(lag, shares, strict=True)]
        most = lag.index(max(lag))
        lag[most] -= 1
        place[row] = most
    return place


def class_codes(values: Shaped[np.ndarray, " rows"], present: np.ndarray) -> Int[np.ndarray, " rows"]:
    """Class numbers by value, -1 where there is no label."""
    codes = np.full(len(values), -1)
    if present.any():
        codes[present] = np.unique(values[present].astype(str), return_inverse=True)[1]
    return codes

"""What plain means and ridge regressions reach on the sets of many alike tasks: the floors that a network has to pass.

    MTL_JAX_DATA=DATA python -m scripts.evidence.floors [--names school,computer_survey,chembl]

All training and validation rows are learned from, test rows are measured: by what the literature reports, over the rows
of all tasks together, and by the mean over tasks of their RMSE, as tables of a comparison have it. Nothing of it but
the loaded arrays is the library's own. A minute on 2 CPU cores.
"""

import argparse
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

import mtl_jax as mtl
from mtl_jax.data.school import SPLITS, explained_variance
from mtl_jax.reporting.describe import table

Rows = Float[np.ndarray, "row column"]


def ridge(x: Rows, y: Float[np.ndarray, " row"], penalty: float) -> Callable[[Rows], Float[np.ndarray, " new"]]:
    """The prediction of a ridge regression whose intercept is free, in float64."""
    centre, mean = x.mean(0, dtype=np.float64), y.mean(dtype=np.float64)
    a, b = x - centre, y - mean
    if len(x) < x.shape[1]:  # fewer rows than columns: the same by the rows' products
        weights = a.T @ np.linalg.solve(a @ a.T + penalty * np.eye(len(a)), b)
    else:
        weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ b)
    return lambda new: (new - centre) @ weights + mean


def known(data: mtl.data.Dataset, task: str) -> tuple[Rows, Float[np.ndarray, " row"]]:
    """(inputs, labels) of a task's labelled rows of train and val."""
    found = []
    for split in (s for s in (data.train, data.val) if s is not None):
        x = split.inputs[task] if isinstance(split.inputs, mtl.PerTask) else split.inputs
        there = split.masks[task]
        found.append((x[there], split.targets[task][there].astype(np.float64)))
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


Found = list[tuple[str, str, float, float]]  # predictor, measure of all rows together, its value, mean RMSE over tasks


def school() -> Found:
    """Explained variance of all test rows, mean over the ten splits."""
    found: dict[str, list[tuple[float, float]]] = {}
    for split in range(SPLITS):
        own = mtl.data.load("school", split=split)
        y, rows = own.test.targets, own.rows["test"]
        means = {t: np.full(len(y[t]), known(own, t)[1].mean()) for t in y}
        predicted = {"mean of each school": means}
        for name, offsets in (("one ridge", False), ("one ridge, school offsets", True)):
            data = mtl.data.load("school", split=split, tasks="pooled", offsets=offsets)
            pooled = ridge(*known(data, "pooled"), 10.0)(data.test.inputs)
            predicted[name] = {t: pooled[np.searchsorted(data.rows["test"], rows[t])] for t in y}
        for name, p in predicted.items():
            found.setdefault(name, []).append((explained_variance(p, own.test), mean_rmse(p, y)))
    return [(name, "explained variance", *map(float, np.mean(v, 0))) for name, v in found.items()]


def computer_survey() -> Found:
    """RMSE of all test ratings, with 16 and with 8 computers known."""
    rows: Found = []
    for computers in (16, 8):
        data = mtl.data.load("computer_survey", computers=computers)
        by = {t.name: known(data, t.name) for t in data.tasks}
        x, y = data.test.inputs, data.test.targets
        everyone = np.concatenate([v for _, v in by.values()])
        rest = np.concatenate([v - v.mean() for _, v in by.values()])
        common = ridge(np.concatenate([u for u, _ in by.values()]), rest, 3.0)
        predicted = {
            "mean of all ratings": {t: np.full(4, everyone.mean()) for t in by},
            "mean of each person": {t: np.full(4, v.mean()) for t, (_, v) in by.items()},
            "one ridge beside each person's mean": {t: v.mean() + common(x[t]) for t, (_, v) in by.items()},
            "a ridge for each person": {t: ridge(u, v, 3.0)(x[t]) for t, (u, v) in by.items()},
        }
        rows += [(f"{k}, {computers} computers", "RMSE", rmse(p, y), mean_rmse(p, y)) for k, p in predicted.items()]
    return rows


def chembl(least: int = 10, penalty: float = 100.0) -> Found:
    """RMSE of all test labels of targets with a label in train."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the targets without one
        data = mtl.data.load("chembl")
    means, ridges, labels = {}, {}, {}
    for task in (t.name for t in data.tasks):
        (x, y), there = known(data, task), data.test.masks[task]
        labels[task] = data.test.targets[task][there]
        means[task] = np.full(there.sum(), y.mean())
        ridges[task] = ridge(x, y, penalty)(data.test.inputs[there]) if len(y) >= least and there.any() else means[task]
    name = f"a ridge for each target of at least {least} labels, else its mean"
    return [
        (k, "RMSE", rmse(p, labels), mean_rmse(p, labels)) for k, p in (("mean of each target", means), (name, ridges))
    ]


def rmse(predicted: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """Over the labels of all tasks together."""
    errors = np.concatenate([predicted[t] - labels[t] for t in labels])
    return float(np.sqrt((errors.astype(np.float64) ** 2).mean()))


def mean_rmse(predicted: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """The mean over the tasks that have labels."""
    return float(np.mean([rmse({t: predicted[t]}, {t: y}) for t, y in labels.items() if len(y)]))


FLOORS = {"school": school, "computer_survey": computer_survey, "chembl": chembl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(FLOORS))
    rows = [
        (name, predictor, measure, f"{value:.3f}", f"{mean:.3f}")
        for name in parser.parse_args().names.split(",")
        for predictor, measure, value, mean in FLOORS[name]()
    ]
    print(table(rows, ("data", "predictor", "of all test rows", "", "RMSE, mean over tasks"), right=(3, 4)))


if __name__ == "__main__":
    main()

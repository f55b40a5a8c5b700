"""The models that `scripts.evidence.tables` compares, each a function (table, train, val, test rows) -> predictions.

Predictions are {task: [test rows]}: amounts, or the probability of 1. Models of scikit-learn, one per task, are given
the training and the validation rows; ours are trained on the training rows, and validation rows say when to stop.
"""

from typing import Any

import numpy as np

from scripts.evidence.table_sets import Table

Rows = np.ndarray


def labelled(table: Table, task: str, rows: Rows) -> tuple[Rows, np.ndarray]:
    """The rows that have a label, and the labels."""
    rows = rows[~np.isnan(table.targets[task][rows])]
    return rows, table.targets[task][rows]


def with_sklearn(make, encode):
    """A model per task: the best on validation of those that `make` lists, fitted anew to all known rows.

    `encode(table, known rows)` gives their inputs [N, d].
    """

    def predict(model, binary: bool, x) -> np.ndarray:
        return model.predict_proba(x)[:, 1] if binary else model.predict(x)

    def run(table: Table, train: Rows, val: Rows, test: Rows, jobs: int = 1) -> dict[str, np.ndarray]:
        known, found = np.concatenate([train, val]), {}
        x = encode(table, known)
        for task in table.targets:
            binary = table.binary(task)
            (some, few), (held, judge), (rows, y) = (labelled(table, task, r) for r in (train, val, known))
            if len(np.unique(few)) < 2:
                found[task] = np.full(len(test), y.mean())
                continue
            models = make(table, binary, jobs)
            errors = [
                np.mean((predict(m.fit(x[some], few), binary, x[held]) - judge) ** 2) if len(models) > 1 else 0
                for m in models
            ]
            found[task] = predict(models[int(np.argmin(errors))].fit(x[rows], y), binary, x[test])
        return found

    return run


def mean(table: Table, train: Rows, val: Rows, test: Rows, jobs: int = 1) -> dict[str, np.ndarray]:
    """The mean of the known labels."""
    known = np.concatenate([train, val])
    return {t: np.full(len(test), labelled(table, t, known)[1].mean()) for t in table.targets}


def codes(table: Table, known: Rows) -> np.ndarray:
    """Categories, -1 where the known rows do not have them."""
    found = table.categories.copy()
    for column in found.T:
        column[~np.isin(column, column[known])] = -1
    return found


# The library is imported where it is used: a worker sets up its share of the machine first.
def apart(table: Table, known: Rows) -> Any:
    """The columns as trees and linear models take them."""
    from mtl_jax.data.tables.apart import Apart

    return Apart(table.numbers, codes(table, known), table.cardinalities)


def inputs_of_linear(table: Table, known: Rows) -> Any:
    """Standardised numbers and columns of categories."""
    from mtl_jax.analysis import plain_models

    return plain_models.for_linear(apart(table, known), known)


def inputs_of_trees(table: Table, known: Rows) -> np.ndarray:
    """Numbers as they are, and codes; nan where missing."""
    from mtl_jax.analysis import plain_models

    return plain_models.for_trees(apart(table, known))


def make_linear(table: Table, binary: bool, jobs: int) -> list:
    """Ridge or logistic regression, with penalties to choose from."""
    from mtl_jax.analysis import plain_models

    return plain_models.linear_models(binary)


def make_boosted(table: Table, binary: bool, jobs: int) -> list:
    """Gradient boosting with scikit-learn's defaults."""
    from mtl_jax.analysis import plain_models

    return plain_models.boosted_models(apart(table, np.arange(len(table.numbers))), binary)


def make_forest(table: Table, binary: bool, jobs: int):
    """A random forest of 300 trees."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if binary else RandomForestRegressor
    return [kind(300, random_state=0, n_jobs=jobs)]


OTHERS = {
    "mean": mean,
    "linear": with_sklearn(make_linear, inputs_of_linear),
    "boosted": with_sklearn(make_boosted, inputs_of_trees),
    "forest": with_sklearn(make_forest, inputs_of_trees),
}


def dataset(table: Table, train: Rows, val: Rows, test: Rows):
    """(the data set of ours, {task: (mean, std) that its labels were standardised by})."""
    import mtl_jax as mtl
    from mtl_jax.analysis import plain_models
    from mtl_jax.data.dataset import Dataset

    numbers, categories, scales, tasks = plain_models.standardised(table.numbers, train), codes(table, train), {}, []
    labels, masks = {}, {}
    for task, y in table.targets.items():
        binary = table.binary(task)
        scales[task] = (0.0, 1.0) if binary else (np.nanmean(y[train]), np.nanstd(y[train]) or 1.0)
        tasks.append(mtl.Task(task, "binary" if binary else "regression"))
        # Scaled here and not by the task, whose scaler is a constant of the program: folds share one program.
        labels[task] = np.nan_to_num((y - scales[task][0]) / scales[task][1]).astype(np.float32)
        masks[task] = ~np.isnan(y)

    def split(rows: Rows):
        inputs = {}
        if numbers.shape[1]:
            inputs["numbers"] = numbers[rows].astype(np.float32)
        if categories.shape[1]:
            inputs["categories"] = categories[rows].astype(np.int32)
        return mtl.Batch(inputs, {t: y[rows] for t, y in labels.items()}, {t: m[rows] for t, m in masks.items()})

    rows = {"train": train, "val": val, "test": test}
    groups = None if table.groups is None else {k: table.groups[r] for k, r in rows.items()}
    return Dataset("table", tuple(tasks), *map(split, rows.values()), groups=groups), scales


def ours(sharing: str, encoder: str | None = None, options: dict | None = None, **changes):
    """Our model: the text of an encoder without cardinalities, and arguments of `fit`; None: those for tables.

    `changes` are arguments of `fit` in place of these.
    """

    def run(table: Table, train: Rows, val: Rows, test: Rows, jobs: int = 1) -> dict[str, np.ndarray]:
        import mtl_jax as mtl

        data, scales = dataset(table, train, val, test)
        known = {"cardinalities": table.cardinalities}
        chosen = mtl.encoders.build(encoder, **known) if encoder else mtl.encoders.for_table(data, **known)
        model = mtl.sharing.build(sharing, chosen, data.tasks)
        fitting = {**(mtl.training.options_for_table(data) if options is None else options), **changes}
        fitted = mtl.fit(model, data, progress=False, monitor=False, **fitting)
        found = fitted.predict(data.test.inputs)
        return {t: found[t] * std + centre for t, (centre, std) in scales.items()}

    return run


MLP = "tabular(features=(128, 128), numbers='piecewise', dropout=0.1)"
OURS = {
    "default": ours("hard"),  # the TabM-like ensemble
    "together": ours("hard", MLP),
    "single": ours("independent", MLP),
    "before": ours("hard", "tabular()", {"num_steps": 1000}),
    "network": ours("hard", fallback=False),  # the default without its fallback to constants
    "default_single": ours("independent"),
    "periodic": ours("hard", "tabm(numbers='periodic')"),
    "plain": ours("hard", "tabm(numbers='plain')"),
    "residual": ours("hard", "tabular(features=(128, 128, 128), numbers='piecewise', dropout=0.1, block='residual')"),
}
MAIN = (*OTHERS, "before", "single", "together", "default")

"""What any model of a table is compared with: linear models and boosted trees of scikit-learn, and their inputs."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtl_jax.batch import Batch, counted, labelled_elements
from mtl_jax.data.tables.apart import Apart
from mtl_jax.tasks import Task

PENALTIES = {True: (0.003, 0.03, 0.3, 3.0), False: (0.1, 1.0, 10.0, 100.0, 1000.0)}  # of classes (C), of numbers
MOST_CATEGORIES = 255  # that scikit-learn's boosting splits as such
MANY = 20_000  # rows from which on boosting has all threads
WIDE = 200  # columns of categories from which on they are a sparse matrix


def learn(module: str) -> Any:
    """A module of scikit-learn.

    Raises:
      ImportError: naming the extra, if it is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError("comparing with trees needs scikit-learn: pip install 'mtl_jax[trees]'") from error


def threads_for(rows: int) -> Any:
    """A context in which scikit-learn has one thread for few rows.

    Threads that wait for each other in steps of microseconds cost more there than they bring, and on a machine with
    other work a hundred times more.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    return threadpool_limits(1 if rows < MANY else None)


def standardised(
    numbers: Float[np.ndarray, "row number"], known: Int[np.ndarray, " known"]
) -> Float[np.ndarray, "row number"]:
    """Numbers by the mean and deviation of the `known` rows, nan where missing."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom", RuntimeWarning)
        centre, spread = np.nanmean(numbers[known], 0), np.nanstd(numbers[known], 0)
    return (numbers - centre) / np.where(spread > 0, spread, 1)


def for_linear(table: Apart, known: Int[np.ndarray, " known"]) -> Any:
    """Standardised numbers, 0 and an indicator where missing; a column per category, sparse where they are many.

    Args:
      table: rows, those that a model is fitted to and others.
      known: the former.
    """
    from scipy import sparse

    x = standardised(table.numbers, known)
    missing = np.isnan(x)
    blocks = [np.where(missing, 0, x), missing[:, missing[known].any(0)]]
    blocks += [column[:, None] == np.arange(n) for column, n in zip(table.categories.T, table.cardinalities,
                                                                    strict=True)]  # fmt: skip
    if sum(table.cardinalities) > WIDE:
        return sparse.hstack([sparse.csr_matrix(b, dtype=np.float64) for b in blocks]).tocsr()
    return np.concatenate(blocks, 1).astype(np.float64)


def for_trees(table: Apart) -> Float[np.ndarray, "row column"]:
    """Numbers as they are, and codes; nan where missing."""
    categories = table.categories.astype(np.float64)
    return np.concatenate([table.numbers, np.where(categories < 0, np.nan, categories)], 1)


def linear_models(classes: bool) -> list[Any]:
    """Ridge or logistic regression, with penalties to choose from."""
    linear = learn("linear_model")
    if classes:
        return [linear.LogisticRegression(C=c, max_iter=200) for c in PENALTIES[True]]
    return [linear.Ridge(a) for a in PENALTIES[False]]


def boosted_models(table: Apart, classes: bool) -> list[Any]:
    """Gradient boosting with scikit-learn's defaults; categories are split as such up to its limit of 255.

    A histogram-based gradient boosting after LightGBM (Ke et al., NeurIPS 2017).
    """
    ensemble = learn("ensemble")
    is_category = [False] * table.numbers.shape[1] + [n <= MOST_CATEGORIES for n in table.cardinalities]
    kind = ensemble.HistGradientBoostingClassifier if classes else ensemble.HistGradientBoostingRegressor
    return [kind(categorical_features=is_category, random_state=0)]


def fitted(models: Sequence[Any], x: Any, y: np.ndarray, weights: np.ndarray | None = None) -> list[Any]:
    """The models, fitted; that the logistic one had not ended after its steps is not said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=learn("exceptions").ConvergenceWarning)
        return [m.fit(x, y, sample_weight=weights) for m in models]


class Known(NamedTuple):
    """The labelled rows of a target: their numbers, labels and weights (None where all count alike)."""

    rows: Int[np.ndarray, " row"]
    labels: np.ndarray
    weights: Float[np.ndarray, " row"] | None


def labels_that_count(task: Task, entry: int | None, split: Batch) -> Known:
    """Of one task, or of one of its labels or entries."""
    target = np.asarray(split.targets[task.name])
    mask, weights = counted(split, task.name)
    there = labelled_elements(target, mask)
    if entry is not None:
        target, there = target[:, entry], there[:, entry]
    rows = np.flatnonzero(there)
    given = (split.weights or {}).get(task.name) is not None
    return Known(rows, np.asarray(target, np.float64)[rows], weights[rows] if given else None)


def predictions(
    task: Task, known: dict[str, Known], at: dict[str, np.ndarray], table: Apart
) -> dict[str, dict[str, np.ndarray]]:
    """{model: {split: predictions of labelled rows}}: amounts, the probability of 1, or of each class [rows, size].

    Args:
      task: to predict.
      known: its labels by split.
      at: the rows of `table` that they are at.
      table: the columns of all splits.
    """
    classes, train = task.of_kind.labels != "numbers", known["train"]
    held = [k for k in known if k != "train" and len(known[k].rows)]
    size = task.size if task.of_kind.labels == "classes" else 2
    assert size is not None  # kinds of classes have one
    if classes:
        frequency = np.bincount(train.labels.astype(int), train.weights, size)
        constant = frequency / frequency.sum()
    else:
        constant = np.average(train.labels, weights=train.weights)

    def shaped(p: np.ndarray) -> np.ndarray:
        return p[..., 1] if classes and size == 2 and task.of_kind.labels != "classes" else p

    alike = {k: shaped(np.broadcast_to(constant, (len(known[k].rows), *np.shape(constant)))) for k in held}
    found = {m: alike for m in ("constant", "linear", "trees")}
    if len(np.unique(train.labels)) < 2:
        return found

    def predict(model: Any, x: Any) -> np.ndarray:
        if not classes:
            return model.predict(x)
        p = np.zeros((x.shape[0], size))
        p[:, model.classes_.astype(int)] = model.predict_proba(x)
        return shaped(p)

    inputs = {"linear": for_linear(table, at["train"]), "trees": for_trees(table)}
    made = {"linear": linear_models(classes), "trees": boosted_models(table, classes)}
    for name, models in made.items():
        x = inputs[name]
        # The middle penalty where there is nothing to choose by.
        models = models if "val" in known and len(known["val"].rows) else [models[len(models) // 2]]
        models = fitted(models, x[at["train"]], train.labels, train.weights)
        if len(models) > 1:
            val = known["val"]
            right = np.eye(size)[val.labels.astype(int)] if task.of_kind.labels == "classes" else val.labels
            errors = [np.average(((predict(m, x[at["val"]]) - right) ** 2).reshape(len(right), -1).sum(1),
                                 weights=val.weights) for m in models]  # fmt: skip
            models = [models[int(np.argmin(errors))]]
        found[name] = {k: predict(models[0], x[at[k]]) for k in held}
    return found

"""A run on a table beside boosted trees, a linear model and the best constant, on the same rows: who predicts better?

Trees win on some tables, whatever the network. They and the linear models are fitted to the training rows of one target
at a time, with scikit-learn's defaults; a linear model's penalty is the one that is best on validation, where the run's
variables were chosen too. So the test rows are the fair ones, and validation says less.

Scores: "rrmse" of numbers, the root of the squared error over that of the training labels' mean (1 is the mean, lower
is better); "auroc" of two classes; "accuracy" of several. A difference is within noise where it is not above 1.96
standard errors, by a paired bootstrap of rows, or of groups where the data was split by group (Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993, chapter 6).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.analysis import plain_models
from mtl_jax.analysis.plain_scores import HIGHER, errors_of_differences, metric_of, score
from mtl_jax.batch import Batch, inputs_of, num_rows
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tables.apart import Apart, apart
from mtl_jax.reporting.describe import table
from mtl_jax.tasks import Task
from mtl_jax.training.records import plain

MODELS = ("constant", "linear", "trees", "ours")
SURE = 1.96  # standard errors beyond which a difference is not noise


class Row(NamedTuple):
    """One task on one split.

    Attributes:
      task, split, metric: what is measured; a label or entry of a vector has its number after the task's name.
      scores: {model: score}.
      errors: {"trees", "linear": standard error of its difference to ours}.
    """

    task: str
    split: str
    metric: str
    scores: dict[str, float]
    errors: dict[str, float]

    def gain(self, model: str) -> float:
        """By how much a model is better than ours."""
        return (self.scores[model] - self.scores["ours"]) * (1 if self.metric in HIGHER else -1)

    def verdict(self, model: str) -> str:
        """Who is better: the model, "ours", or "within noise"."""
        if not abs(self.gain(model)) > SURE * self.errors[model]:
            return "within noise"
        return model if self.gain(model) > 0 else "ours"


@dataclasses.dataclass(frozen=True)
class BesideTrees:
    """What `beside_trees` found; printed, a table and plain sentences.

    Attributes:
      rows: of every task and split.
      left_out: {task: why it is not compared}.
    """

    rows: tuple[Row, ...]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def split(self) -> str:
        """Which the sentences are about: test where there is one."""
        return "test" if any(r.split == "test" for r in self.rows) else "val"

    def table(self) -> str:
        """A row per task and split."""
        cells = [
            (r.task, r.split, f"{r.metric} {'↑' if r.metric in HIGHER else '↓'}",
             *(f"{r.scores[m]:.3f}" for m in MODELS), f"{r.gain('trees'):+.3f} ± {SURE * r.errors['trees']:.3f}",
             r.verdict("trees"))
            for r in self.rows
        ]  # fmt: skip
        header = ("task", "split", "metric", *MODELS, "gain of trees", "better")
        return table(cells, header, right=(3, 4, 5, 6, 7))

    def sentences(self) -> list[str]:
        """Whether trees, or a linear model, are better than ours, and on which tasks."""
        rows = [r for r in self.rows if r.split == self.split]
        found = [self._about(rows, "trees", "boosted trees"), self._about(rows, "linear", "a linear model")]
        if self.split == "val" and rows:
            found[0] += "; there is no test split, and these rows chose our variables, which flatters ours"
        return [*found, *(f"not compared: {t} ({why})" for t, why in self.left_out.items())]

    def _about(self, rows: Sequence[Row], model: str, name: str) -> str:
        by = {who: [r for r in rows if r.verdict(model) == who] for who in (model, "ours", "within noise")}

        def listed(some: Sequence[Row]) -> str:
            shown = [f"{r.task} ({r.metric} {r.scores[model]:.3f} against {r.scores['ours']:.3f})" for r in some[:5]]
            return ", ".join(shown) + (f" and {len(some) - 5} more" if len(some) > 5 else "")

        won = f"on {self.split}, {name} {'are' if model == 'trees' else 'is'} "
        won += f"better than this run on {len(by[model])} of {len(rows)}: {listed(by[model])}" if by[model] else (
            f"better than this run on none of {len(rows)} beyond noise")  # fmt: skip
        lost = f"worse on {listed(by['ours'])}" if by["ours"] else ""
        noise = f"within noise on {len(by['within noise'])}" if by["within noise"] else ""
        return "; ".join(x for x in (won, lost, noise) if x)

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        rows = [{**r._asdict(), "scores": plain(r.scores), "errors": plain(r.errors)} for r in self.rows]
        return {"rows": rows, "left_out": self.left_out, "sentences": self.sentences()}

    def __str__(self) -> str:
        return "\n".join([self.table(), *self.sentences()] if self.rows else self.sentences())


def beside_trees(run: Any, data: Dataset, draws: int = 400) -> BesideTrees:
    """How boosted trees, a linear model and the best constant do on the rows that a run on a table was trained on.

    Args:
      run: one run, of `fit` or loaded.
      data: what it was trained on, with validation or test rows. Inputs are those of a table: trees get numbers as
        they are, categories as categories, and what is missing as missing.
      draws: of the bootstrap.

    Returns:
      Scores on val and test; print it. Tasks of kinds other than regression, classification, binary and multilabel are
      left out, and named.

    Raises:
      ImportError: without scikit-learn (the extra `trees`).
      ValueError: for several members, inputs that are no table, or a data set without held-out rows.
    """
    if getattr(run, "members", None):
        raise ValueError(f"this run has {run.members} members; compare one: run.member(i)")
    held = {k: s for k in ("val", "test") if (s := getattr(data, k)) is not None}
    if not held:
        raise ValueError(f"data set {data.name!r} has no held-out rows to compare on; give it val= or test=")
    plain_models.learn("ensemble")
    splits = {k: in_order_of(run.tasks, s, data.tasks, k) for k, s in {"train": data.train, **held}.items()}
    predicted = {k: run.predict(splits[k].inputs) for k in held}
    found, left_out = [], {}
    for task in run.tasks:
        if metric_of(task) is None:
            left_out[task.name] = f"its kind is {task.kind}"
            continue
        many = task.of_kind.columns and task.size is not None
        for entry in range(task.size) if many else (None,):
            own = {k: p[task.name] if entry is None else p[task.name][:, entry] for k, p in predicted.items()}
            with plain_models.threads_for(num_rows(data.train)):
                found += compare_one(task, entry, splits, own, data, draws)
    return BesideTrees(tuple(found), left_out)


def compare_one(
    task: Task, entry: int | None, splits: dict[str, Batch], own: dict[str, np.ndarray], data: Dataset, draws: int
) -> list[Row]:
    """The rows of one target; none of a split without labels, or where its score cannot be had."""
    known = {k: plain_models.labels_that_count(task, entry, s) for k, s in splits.items()}
    tables = [apart(inputs_of(s.inputs, task.name), data.columns) for s in splits.values()]
    sizes = tuple(map(max, zip(*(t.cardinalities for t in tables), strict=True)))
    whole = Apart(np.concatenate([t.numbers for t in tables]), np.concatenate([t.categories for t in tables]), sizes)
    starts = dict(zip(splits, np.cumsum([0, *(len(t.numbers) for t in tables)]), strict=False))
    at = {k: starts[k] + v.rows for k, v in known.items()}
    models, rows, metric = plain_models.predictions(task, known, at, whole), [], metric_of(task)
    assert metric is not None  # tasks of kinds without one are left out before
    for split in own:
        few = known[split]
        if not len(few.rows):
            continue
        by_model = {m: p[split] for m, p in models.items()} | {"ours": np.asarray(own[split], np.float64)[few.rows]}
        groups = None if data.groups is None or split not in data.groups else data.groups[split][few.rows]
        weights = np.ones(len(few.rows)) if few.weights is None else few.weights
        how = (few.labels, weights, models["constant"][split])
        points = {m: score(metric, p, how[0], how[1][None], how[2])[0] for m, p in by_model.items()}
        if not np.isfinite(list(points.values())).all():
            continue  # one class only: no order of rows can be right or wrong
        compared = {m: by_model[m] for m in ("trees", "linear", "ours")}
        errors = errors_of_differences(metric, compared, *how, groups, draws)
        name = task.name if entry is None else f"{task.name}[{task.classes[entry] if task.classes else entry}]"
        rows.append(Row(name, split, metric, {m: float(points[m]) for m in MODELS}, errors))
    return rows

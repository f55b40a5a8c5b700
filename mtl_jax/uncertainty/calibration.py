"""What held-out labels say of a run's predictions, per task: a temperature, and scores for intervals and sets."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_jax.batch import Batch, aligned, labelled_elements, labels_of
from mtl_jax.data.classes import in_order_of
from mtl_jax.reporting import many
from mtl_jax.reporting.describe import table
from mtl_jax.tasks import Task
from mtl_jax.uncertainty import conformal, temperature


@dataclasses.dataclass(frozen=True)
class TaskCalibration:
    """Of one task.

    Attributes:
      temperatures: one, or one per label of a multilabel task; () for numbers.
      scores: sorted conformal scores: one tuple, or one per label or entry of a vector.
      labels: how many held-out labels there were, without those of rows of weight 0.
    """

    temperatures: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    labels: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of a run: {task: TaskCalibration}, of those kinds of tasks that have one (`Kind.calibrated`)."""

    tasks: dict[str, TaskCalibration]

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: dataclasses.asdict(task) for name, task in self.tasks.items()}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Calibration":
        """Back from `content`."""
        try:
            return cls({
                str(name): TaskCalibration(
                    tuple(map(float, c["temperatures"])), tuple(tuple(map(float, s)) for s in c["scores"]),
                    int(c["labels"]),
                )
                for name, c in content.items()
            })  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no calibration: {error!r}") from error


def calibrate(tasks: Sequence[Task], predictions: Mapping[str, np.ndarray], split: Batch) -> Calibration:
    """What the labels of a split that the model was not trained on say of its predictions.

    Args:
      tasks: of the run; those of kinds without a calibration (dense ones, tags, rankings, boxes) are left out.
      predictions: as `Run.predict` gives them, of the split's rows, uncalibrated.
      split: with labels, whose rows count by their weights; classes of a data set's split are matched by name. Where it
        also chose the variables, as validation does, coverage is a little less than promised: look at `coverage_of` on
        a split that chose nothing.
    """
    split = in_order_of(tasks, split, getattr(split, "tasks", ()), "the split")
    return Calibration({
        t.name: calibrate_task(t, np.asarray(predictions[t.name]), split)
        for t in tasks if t.of_kind.calibrated
    })  # fmt: skip


def can_calibrate(tasks: Sequence[Task], split: Batch) -> bool:
    """Whether a split has a label of a task of a kind that has a calibration."""
    return any(_labelled(t, split)[0].any() for t in tasks if t.of_kind.calibrated)


def _labelled(task: Task, split: Batch) -> tuple[np.ndarray, np.ndarray | None]:
    """Which labels count, and what for, in the targets' shape; None where all rows count alike."""
    targets, mask, weights = labels_of(split, task.name)
    targets = np.asarray(targets)
    there = labelled_elements(targets, np.asarray(mask))
    if weights is None:
        return there, None
    weights = np.broadcast_to(aligned(np.asarray(weights).astype(np.float64), targets), targets.shape)
    return there & (weights > 0), weights


def columns_of(task: Task, values: np.ndarray) -> list[np.ndarray]:
    """Each label's, or each entry's, values of its own: what has a temperature and scores of its own."""
    many = task.size is not None and task.of_kind.columns
    return [values[:, i] for i in range(values.shape[1])] if many else [values]


def calibrate_task(task: Task, predicted: np.ndarray, split: Batch) -> TaskCalibration:
    """The calibration of one task."""
    targets, (labelled, weights) = np.asarray(split.targets[task.name]), _labelled(task, split)
    temperatures, scores = [], []
    counts = [None] * len(columns_of(task, targets)) if weights is None else columns_of(task, weights)
    for values, target, there, count in zip(
        columns_of(task, predicted), columns_of(task, targets), columns_of(task, labelled), counts, strict=True
    ):
        count = None if count is None else count[there]
        values, target = values[there].astype(np.float64), target[there].astype(np.float64)
        if task.quantiles:
            found = np.maximum(values[:, 0] - target, target - values[:, -1])
        elif task.of_kind.labels == "numbers":
            found = np.abs(target - values)
        else:
            chances = values if task.of_kind.labels == "classes" else temperature.two_sided(values)
            warmth = temperature.fit_temperature(chances, target, count)
            temperatures.append(warmth)
            # In the digits that predictions have.
            shown = temperature.softened(chances, warmth).astype(predicted.dtype).astype(np.float64)
            found = conformal.class_scores(shown, target.astype(int))
        scores.append(tuple(conformal.kept(found, count).tolist()))
    return TaskCalibration(tuple(temperatures), tuple(scores), int(labelled.sum()))


def softened(calibration: Calibration, tasks: Sequence[Task], predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The predictions, probabilities at their task's temperature; others as they are."""
    found = dict(predictions)
    for task in tasks:
        known = calibration.tasks.get(task.name)
        if known is None or not known.temperatures:
            continue
        values = predictions[task.name]
        if task.of_kind.labels == "classes":
            new = temperature.softened(values, known.temperatures[0])
        else:
            pairs = zip(columns_of(task, values), known.temperatures, strict=True)
            new = [temperature.softened(temperature.two_sided(v), t)[..., 1] for v, t in pairs]
            new = np.stack(new, -1) if task.size is not None else new[0]
        found[task.name] = new.astype(values.dtype)
    return found


def regions(
    calibration: Calibration, tasks: Sequence[Task], predictions: Mapping[str, np.ndarray], coverage: float = 0.9
) -> dict[str, Any]:
    """{task: where its label is with probability `coverage`}.

    Args:
      calibration: of the run.
      tasks: of the run.
      predictions: of new rows, at the calibration's temperatures (`Run.predict` of a calibrated run).
      coverage: in (0, 1).

    Returns:
      `Interval` for numbers; for classes bool [N, size], for binary [N, 2] and for multilabel [N, size, 2]: which
      classes are in. Tasks without a calibration are left out.

    Raises:
      ValueError: for a coverage that is no probability.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage!r} must lie in (0, 1)")
    found: dict[str, Any] = {}
    few = {}
    for task in tasks:
        if (known := calibration.tasks.get(task.name)) is None:
            continue
        limits = [conformal.threshold(np.asarray(s, np.float64), coverage) for s in known.scores]
        if any(map(math.isinf, limits)):
            fewest = conformal.fewest(coverage)
            few[task.name] = (
                f"task {task.name!r} had {min(map(len, known.scores))} labels to calibrate with; a coverage of "
                f"{coverage:g} needs {fewest}, so its regions hold everything"
            )
        values = np.asarray(predictions[task.name])
        if task.quantiles:
            found[task.name] = conformal.quantile_interval(values, limits[0])
        elif task.of_kind.labels == "numbers":
            found[task.name] = conformal.interval(values, np.asarray(limits) if task.size is not None else limits[0])
        elif task.of_kind.labels == "classes":
            found[task.name] = conformal.class_set(values.astype(np.float64), limits[0])
        else:
            sides = [temperature.two_sided(v) for v in columns_of(task, values)]
            sets = [conformal.class_set(v, limit) for v, limit in zip(sides, limits, strict=True)]
            found[task.name] = np.stack(sets, 1) if task.size is not None else sets[0]
    many.warn_of(few, tasks, stacklevel=2)
    return found


def coverage_of(tasks: Sequence[Task], found: Mapping[str, Any], split: Batch) -> dict[str, dict[str, float]]:
    """{task: {"coverage", "size"}} of regions of a split's rows: the share of labels inside, and how large they are.

    The size is the mean width of intervals, in the target's units, or the mean number of classes in a set.
    """
    result, split = {}, in_order_of(tasks, split, getattr(split, "tasks", ()), "the split")
    for task in tasks:
        if task.name not in found:
            continue
        region, target = found[task.name], np.asarray(split.targets[task.name])
        labelled, weights = _labelled(task, split)
        if isinstance(region, conformal.Interval):
            inside, size = (region.low <= target) & (target <= region.high), region.high - region.low
        else:
            inside = np.take_along_axis(region, target.astype(int)[..., None], -1)[..., 0]
            size = region.sum(-1)
        if not labelled.any():
            result[task.name] = {"coverage": math.nan, "size": math.nan}
            continue
        count = None if weights is None else weights[labelled]
        result[task.name] = {
            "coverage": float(np.average(inside[labelled], weights=count)),
            "size": float(np.average(size[labelled], weights=count)),
        }
    return result


def coverage_table(found: Mapping[str, Mapping[str, float | None]], coverage: float) -> str:
    """A row per task: what was promised, what is inside, and how large regions are (nan and None: there is none).

    Of many tasks (`reporting.many`) one line about what is inside and one about how large regions are.
    """
    if many.is_many(found):
        inside, size = ({name: v[key] for name, v in found.items()} for key in ("coverage", "size"))
        return (
            f"{len(found)} tasks, promised {coverage:.0%}; inside: "
            f"{many.in_a_line(inside, True, many.WORST, '.1%', 'least')}\n"
            f"mean width or set: {many.in_a_line(size, False, many.WORST, word='largest')}"
        )

    def shown(value: float | None, form: str, none: str) -> str:
        return none if value is None or math.isnan(value) else format(value, form)

    rows = [
        (name, f"{coverage:.0%}", shown(v["coverage"], ".1%", "no labels"), shown(v["size"], ".4g", ""))
        for name, v in found.items()
    ]
    return table(rows, ("task", "promised", "inside", "mean width or set"), right=(1, 2, 3))

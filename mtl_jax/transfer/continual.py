"""Going on without forgetting: a task is added, old rows are rehearsed, and what old tasks have lost is shown."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax import partition, parts, sharing
from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.dataset import SPLITS, Dataset, drawn_rows, gather_rows
from mtl_jax.reporting.describe import table
from mtl_jax.tasks import KINDS, Task, metric_functions
from mtl_jax.training.arguments import check_data, check_run
from mtl_jax.training.objects import known
from mtl_jax.training.run import Run
from mtl_jax.training.start import resolve_tasks
from mtl_jax.transfer.methods.base import START


def join(old: Run, new: Run) -> Run:
    """The tasks of two runs on one trunk: the second one's, which was adapted from the first.

    Where the trunk stood still (``freeze="shared/.*"``, "probe"), the old tasks predict what they did, to the bit; else
    `forgetting` shows what has become of them. The old heads go along as they were.

    Args:
      old: the run that was adapted.
      new: what it became, on other tasks. Of an adapted model, `merge_adapter` it first.

    Raises:
      ValueError: for runs of other models, or that have a task in common.
    """
    check_run(old)
    check_run(new)
    new, old = (_plain(run) for run in (new, old))
    spec, encoder = new.model.spec, new.model.encoder
    if (old.model.spec, _encoder(old)) != (spec, _encoder(new)):
        raise ValueError(f"join: the runs are of different models, {old.model.spec} over {_encoder(old)} and "
                         f"{spec} over {_encoder(new)}")  # fmt: skip
    if spec is None or encoder is None:
        raise ValueError("join: the runs' model was not made of named parts, so none can be made for the tasks of both")
    if both := [t.name for t in old.tasks if t.name in {n.name for n in new.tasks}]:
        raise ValueError(f"join: both runs have the task {both[0]!r}; adapt to the others' names, or keep the new run")
    if old.members != new.members:
        raise ValueError(f"join: the runs have {old.members} and {new.members} members; take one, run.member(i)")
    tasks = (*old.tasks, *new.tasks)
    model = sharing.build(spec, encoder, tasks)
    variables = {
        kind: {"shared": new.variables[kind]["shared"],
               "tasks": {**old.variables[kind]["tasks"], **new.variables[kind]["tasks"]}}
        for kind in ("params", "state")
    }  # fmt: skip
    example = Batch(new.example.inputs, {}, {})
    if isinstance(new.example.inputs, PerTask):
        example = Batch(PerTask({**old.example.inputs, **new.example.inputs}), {}, {})
    wanted = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
    axis = 1 if new.members else 0
    for kind in wanted:
        there = {p: tuple(x.shape[axis:]) for p, x in partition.flatten(variables[kind]).items()}
        needed = {p: tuple(x.shape) for p, x in partition.flatten(wanted[kind]).items()}
        if differ := sorted(p for p in there.keys() | needed.keys() if there.get(p) != needed.get(p)):
            raise ValueError(f"join: this architecture has no place for both runs' tasks on one trunk: {differ[0]}")
    return dataclasses.replace(
        new, model=model, tasks=tasks, variables=variables, example=example, data=None, state=None, best=None,
        identity={}, calibration=None, fallback=None, without_say={}, trainable=frozenset(), _compiled={},
    )  # fmt: skip


def _encoder(run: Run) -> str | None:
    return known(run.model.encoder)


def _plain(run: Run) -> Run:
    """The run without what a penalty or a distance held on to; an error where something was added to the model."""
    if run.model.base is None:
        return run
    plain, method = run.model.base
    if method.adds is not None:
        raise ValueError(f"join: a run is adapted by {method.spec}; transfer.merge_adapter(run) makes it a plain one")
    state = {**run.variables["state"]}
    state["shared"] = {k: v for k, v in state["shared"].items() if k != START}
    return dataclasses.replace(run, model=plain, variables={**run.variables, "state": state}, _compiled={})


def rehearsal(new: Dataset, old: Dataset, share: float = 0.2, seed: int = 0) -> Dataset:
    """The new data and a share of the old rows, for training on old and new tasks at once.

    Old rows have labels of the old tasks and new rows of the new ones; of a task that both have, all rows have theirs.
    Validation and test splits are joined whole, so that both sides are judged.

    Args:
      new, old: with inputs of one form.
      share: of the old training rows, drawn without replacement; in (0, 1].
      seed: of the draw.

    Raises:
      ValueError: for inputs of different forms, or a task that has another kind or other classes on the two sides.

    Source: Rebuffi et al., "iCaRL", CVPR 2017, arXiv:1611.07725; Chaudhry et al. 2019, arXiv:1902.10486.
    """
    check_data(new)
    check_data(old)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        raise ValueError(f"rehearsal: share={share!r} must lie in (0, 1], the part of the old rows that is kept")
    parts.check_seed(seed)
    if any(isinstance(d.train.inputs, PerTask) for d in (new, old)):
        raise ValueError("rehearsal: rows are joined where tasks read common inputs; with inputs of each task's own, "
                         "put old and new tasks into one data set")  # fmt: skip
    known = {t.name: t for t in old.tasks}
    if any(t.name in known for t in new.tasks):
        both = [t for t in new.tasks if t.name in known]
        resolve_tasks([known[t.name] for t in both], new)  # kinds, sizes and classes must fit
    tasks = (*old.tasks, *(t for t in new.tasks if t.name not in known))
    count = max(1, round(share * num_rows(old.train)))
    kept = gather_rows(old.train, drawn_rows(num_rows(old.train), count, seed))
    splits: dict[str, Any] = {"train": joined(tasks, (old, kept), (new, new.train), "train")}
    for k in SPLITS[1:]:
        sides = [(d, s) for d in (old, new) if (s := getattr(d, k)) is not None]
        splits[k] = joined(tasks, sides[0], sides[1], k) if len(sides) == 2 else None
        if len(sides) == 1 and k == "val":
            raise ValueError(f"rehearsal: only {sides[0][0].name!r} has a validation split, so that one side would not "
                             "be judged; give both one, or none")  # fmt: skip
    return Dataset(f"{new.name} with {share:g} of {old.name}", tasks, **splits)


def joined(tasks: tuple[Task, ...], one: tuple, other: tuple, name: str) -> Batch:
    """The rows of two splits, each a (data set, split), with the labels that each has."""
    sides = [(d, in_order_of(tasks, s, d.tasks, f"{name} of {d.name!r}")) for d, s in (one, other)]
    forms = [{p: (tuple(x.shape[1:]), str(x.dtype)) for p, x in partition.flatten(s.inputs).items()} for _, s in sides]
    if forms[0] != forms[1]:
        raise ValueError(f"rehearsal: the inputs of {name} have different forms: {forms[0]} in {one[0].name!r} and "
                         f"{forms[1]} in {other[0].name!r}")  # fmt: skip
    inputs = jax.tree.map(lambda a, b: np.concatenate([a, b]), *(s.inputs for _, s in sides))
    targets: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for task in tasks:
        having = [s for _, s in sides if task.name in s.targets]
        like = having[0]

        def rows(split: Batch, kind: str, task: Task = task, like: Batch = like) -> np.ndarray:
            labels = getattr(split, kind)
            if task.name in labels:
                return np.asarray(labels[task.name])
            form = np.asarray(getattr(like, kind)[task.name])
            return np.zeros((num_rows(split), *form.shape[1:]), form.dtype)

        targets[task.name] = np.concatenate([rows(s, "targets") for _, s in sides])
        masks[task.name] = np.concatenate([rows(s, "masks") for _, s in sides])
        if any(task.name in (s.weights or {}) for s in having):
            weights[task.name] = np.concatenate([
                np.asarray((s.weights or {}).get(task.name, np.ones(num_rows(s), np.float32))) for _, s in sides
            ])  # fmt: skip
    return Batch(inputs, targets, masks, weights or None)


class Forgetting(NamedTuple):
    """What tasks were worth before and after, as a table when printed.

    Attributes:
      rows: {task: (metric, before, after, lost)}; `lost` is positive where the task has become worse.
    """

    rows: Mapping[str, tuple[str, float, float, float]]

    @property
    def mean(self) -> float:
        """The mean of what was lost, over tasks."""
        return float(np.mean([r[3] for r in self.rows.values()]))

    def __str__(self) -> str:
        lines = [(t, m, f"{b:.4f}", f"{a:.4f}", f"{lost:+.4f}") for t, (m, b, a, lost) in self.rows.items()]
        return table(lines, ("task", "metric", "before", "after", "lost"), right=(2, 3, 4))

    def __repr__(self) -> str:
        return str(self)


def forgetting(before: Run, after: Run, split: Any) -> Forgetting:
    """How much worse the tasks that two runs have in common have become, on a split of the old data.

    Each task is judged by its headline metric (its first one); a task without one by its loss.

    Args:
      before, after: runs; of what was adapted to other tasks, `join(before, after)`.
      split: such as old.test.

    Raises:
      ValueError: if the runs have no task in common.
    """
    check_run(before)
    check_run(after)
    names = [t.name for t in before.tasks if t.name in {n.name for n in after.tasks}]
    if not names:
        raise ValueError("forgetting: the runs have no task in common; transfer.join(before, after) puts the old heads "
                         "on the new trunk")  # fmt: skip
    found = [run.evaluate(_for(run, split)) for run in (before, after)]
    rows = {}
    for task in before.tasks:
        if task.name not in names:
            continue
        metrics = metric_functions(task)
        name, better = (metrics[0].name, metrics[0].higher_is_better) if metrics else ("loss", False)
        was, now = (float(f[task.name][name]) for f in found)
        rows[task.name] = (name, was, now, was - now if better else now - was)
    return Forgetting(rows)


def _for(run: Run, split: Any) -> Any:
    """The split with the run's tasks; those that it lacks have no labels there."""
    if not isinstance(split, Batch) or all(t.name in split.targets for t in run.tasks):
        return split
    rows = num_rows(split)
    targets, masks = dict(split.targets), dict(split.masks)
    for task in run.tasks:
        if task.name not in targets:
            targets[task.name], masks[task.name] = empty(task, rows)
    return split._replace(targets=targets, masks=masks)


def empty(task: Task, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(targets, mask) of a task that has no labels; axes of any length have one entry."""
    shape = tuple(n if isinstance(n, int) else 1 for n in task.row_axes)
    return np.zeros((rows, *shape), np.int32 if KINDS[task.kind].labels == "classes" else np.float32), np.zeros(
        rows, bool
    )

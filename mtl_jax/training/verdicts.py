"""Which tasks of a trained model predict better than the best constant, as far as validation can tell.

A row's gain is the loss of the best constant of the training labels less the model's, on validation; the score is the
gain over the constant's mean loss, and its standard error is that of a ratio of sums over independent units
(Cochran, "Sampling Techniques", 1977, section 2.11). Units are rows, or groups of rows where the data set was split by
group: 5,875 recordings of 42 patients tell what 42 patients do, not 5,875. A task falls back where its score is

- numbers, independent rows: not above 0. Validation is drawn as new rows will be. To ask for more is dear where rows
  are few: 14 of them cannot prove a score of 0.3.
- classes, independent rows: below 0 with 95% confidence. Probabilities that are too sure have a large loss and can
  still rank rows well, and `Run.calibrate` makes them less sure.
- groups, of any kind of task: not above 0 with 97.5% confidence (Student's t over groups). Few groups, of which the
  best step for them was kept, look better than new ones will: at a score of 0.3 with an error of 0.25, new patients
  were predicted worse than by the mean.

Where it falls back on groups it predicts the constant. On rows it keeps that part of the way from the constant to the
model's outputs, in twentieths, that has the least validation loss: outputs that exaggerate are moved, those that say
nothing become the constant. The constant that is predicted is that of training and validation labels together.
``scripts/evidence/tables.txt`` has what this was chosen by, and what it costs.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtl_jax.alike import layout_of
from mtl_jax.batch import Batch, counted, num_rows
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.predictions import one_output
from mtl_jax.scaler import centred
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task, loss_sum
from mtl_jax.training import fallback
from mtl_jax.training.chunks import batch_pieces
from mtl_jax.training.constants import fit_constant, untold
from mtl_jax.training.fallback import Fallback, Verdict, toward
from mtl_jax.training.start import small_batch

KEPT = np.linspace(0, 1, 21).astype(np.float32)  # parts of the way from the constant to the model
BY_GROUPS, BY_CLASSES = 0.975, 0.95  # confidence, one-sided


class Gain(NamedTuple):
    """Of a task on validation: 1 - loss / constant's, its standard error, and over how many units."""

    score: float
    error: float
    units: int


def judge(
    model: MultiTaskModel, tasks: Sequence[Task], variables: Any, data: Dataset, members: bool, batch_size: int = 256
) -> Fallback:
    """The verdicts on a run's variables; with `members`, a leading axis of runs has one for each.

    Args:
      model, tasks: the run's, with scalers.
      variables: that the run predicts with.
      data: with the run's tasks; without validation rows no task is judged.
      members: whether variables have a leading axis.
      batch_size: rows per batch.
    """
    count = len(jax.tree.leaves(variables)[0]) if members else 1
    train = centred(tasks, data.train)
    if data.val is None:
        return Fallback({t.name: (Verdict(1.0, why="no validation rows"),) * count for t in tasks},
                        {t.name: fit_constant(t, train).astype(np.float32) for t in tasks})  # fmt: skip
    val = centred(tasks, data.val)
    layout = layout_of(model, tasks, variables, small_batch(data.train), also=(val,))
    stacked = layout.stack_variables(variables, int(members))
    measured = measure(model, layout, stacked, train, val, members, batch_size)
    of_val = None if data.groups is None else data.groups.get("val")

    def of_member(task: Task, member: int) -> Verdict:
        losses, weights = measured[task.name]
        return verdict(task, losses[member], weights[member], data, of_val)

    verdicts = {t.name: tuple(of_member(t, i) for i in range(count)) for t in tasks}
    constants = {t.name: fit_constant(t, together(t, train, val)).astype(np.float32) for t in tasks}
    return Fallback(verdicts, constants)


def settle(run: Any, data: Dataset, workdir: pathlib.Path | None) -> list[str]:
    """Judges a run that has ended, keeps that with it and in its workdir; returns what is said of tasks that fall back.

    It follows from the variables and the data, so that a run that was resumed is judged as one that was not.
    """
    run.fallback = judge(run.model, run.tasks, run.variables, data, run.members is not None)
    if workdir is not None and not run.members and jax.process_index() == 0:
        fallback.write(workdir, run.fallback, run.variables)
    return run.fallback.lines(run.tasks, all_of_them=False)


def verdict(
    task: Task,
    losses: Float[np.ndarray, "kept row"],
    weights: Float[np.ndarray, " row"],
    data: Dataset,
    groups: Int[np.ndarray, " row"] | None = None,
) -> Verdict:
    """The verdict on one task, of its rows' losses (times their weights) at every part in `KEPT`, and their weights."""
    for name, split in (("val", data.val), ("train", data.train)):
        assert split is not None  # there are losses on it
        if why := untold(task, split):
            return Verdict(1.0, why=f"{why} in {name}")
    if not (np.isfinite(losses[0]).all() and losses[0].sum() > 0):
        return Verdict(1.0, why=f"the loss of the best constant in val is {losses[0].sum() / weights.sum():g}")
    found = gain(losses[0], losses[-1], weights, groups)
    grouped, classes = groups is not None, task.of_kind.labels != "numbers"
    if vouched(found, BY_GROUPS if grouped else -BY_CLASSES if classes else 0.0):
        keeps = 1.0
    elif grouped:
        keeps = 0.0
    else:
        total = np.where(np.isfinite(losses).all(1), losses.sum(1), np.inf)
        keeps = float(KEPT[int(total.argmin())])
    return Verdict(round(keeps, 2), found.score, found.error, found.units, grouped)


def vouched(found: Gain, needed: float = 0.0) -> bool:
    """Whether a score is above 0; with that confidence, or for a negative one not below 0 with it."""
    if not np.isfinite(found.score):
        return False
    if not needed:
        return bool(found.score > 0)
    from scipy.stats import t

    if found.units < 2:
        return needed < 0
    margin = t.ppf(abs(needed), found.units - 1) * found.error
    return bool(found.score > margin if needed > 0 else found.score + margin >= 0)


def gain(
    constant: Float[np.ndarray, " row"],
    own: Float[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"] | None = None,
) -> Gain:
    """The score of losses `own` against the constant's; each is a row's sum of weights times losses."""
    there = weights > 0
    difference, total = (constant - own)[there], weights[there]
    if groups is not None:
        unit = np.unique(groups[there], return_inverse=True)[1]
        difference, total = np.bincount(unit, difference), np.bincount(unit, total)
    unit_of_score, units = constant[there].sum(), len(total)
    if not np.isfinite(difference).all():
        return Gain(-np.inf, np.nan, units)
    mean = difference.sum() / total.sum()
    spread = np.inf if units < 2 else np.sqrt(units / (units - 1) * ((difference - mean * total) ** 2).sum())
    return Gain(float(difference.sum() / unit_of_score), float(spread / unit_of_score), units)


def measure(
    model: MultiTaskModel,
    layout: Layout,
    variables: Any,
    train: Batch,
    val: Batch,
    members: bool,
    batch_size: int,
) -> dict[str, tuple[Float[np.ndarray, "member kept row"], Float[np.ndarray, "member row"]]]:
    """{task: (losses times weights of validation rows at every part in `KEPT`, their weights)}, float64.

    The constants are those of `train`. A row's loss is the sum over its labelled elements.
    """
    tasks, axis = layout.tasks, int(members)
    constants = layout.stack({t.name: fit_constant(t, train).astype(np.float32) for t in tasks})

    def of_batch(variables: Any, batch: Batch) -> dict[str, tuple[Array, Array]]:
        outputs = forward(model, layout, variables, batch)[0]

        def of_task(task: Task, given: Any, constant: Array, target: Array, mask: Array, weights: Any) -> tuple:
            own = one_output(task, given)
            labels = (target, mask) if weights is None else (target, mask, weights)

            def at(keeps: Array) -> tuple[Array, Array]:
                def of_row(*row: Array) -> tuple[Array, Array]:
                    return loss_sum(task, *(x[None] for x in row))

                return jax.vmap(of_row)(toward(constant, own, keeps), *labels)

            losses, counts = jax.lax.map(at, jnp.asarray(KEPT))
            return losses, counts[0]

        return layout.each(of_task, outputs, constants, batch.targets, batch.masks, batch.weights)

    def of_all(variables: Any, batches: Batch) -> dict[str, tuple[Array, Array]]:
        return jax.lax.map(lambda batch: of_batch(variables, batch), batches)

    compiled = jax.jit(jax.vmap(of_all, (0, None)) if members else of_all)
    pieces = [
        layout.unstack(jax.device_get(compiled(variables, layout.stack_batch(piece, axis=1))), 1 + axis)
        for piece in batch_pieces(val, batch_size)
    ]
    total, found = num_rows(val), {}
    for task in tasks:
        losses, weights = zip(*(p[task.name] for p in pieces), strict=True)
        if not members:
            losses, weights = ([x[None] for x in part] for part in (losses, weights))
        # [member, batch, kept, row] of each piece: rows in their order, after what is kept.
        losses = [np.moveaxis(x, 2, 1).reshape(len(x), len(KEPT), -1) for x in losses]
        weights = [x.reshape(len(x), -1) for x in weights]
        losses, weights = (np.concatenate(x, -1)[..., :total].astype(np.float64) for x in (losses, weights))
        found[task.name] = losses, weights
    return found


def together(task: Task, train: Batch, val: Batch) -> Batch:
    """The labels of both splits; where rows have tokens or pixels, the shorter are filled up without labels."""

    def joined(parts: list[Any]) -> np.ndarray:
        parts = [np.asarray(x) for x in parts]
        longest = np.max([x.shape[1:] for x in parts], 0) if parts[0].ndim > 1 else ()
        return np.concatenate([
            np.pad(x, [(0, 0), *((0, int(n) - m) for n, m in zip(longest, x.shape[1:], strict=True))]) for x in parts
        ])  # fmt: skip

    name, weights = task.name, None
    if any(name in (s.weights or {}) for s in (train, val)):
        weights = {name: np.concatenate([counted(s, name)[1] for s in (train, val)])}
    return Batch(None, {name: joined([s.targets[name] for s in (train, val)])},
                 {name: joined([s.masks[name] for s in (train, val)])}, weights)  # fmt: skip

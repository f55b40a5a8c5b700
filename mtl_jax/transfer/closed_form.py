"""A linear probe in closed form: the heads of a run on frozen features, by ridge regression."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch, aligned, inputs_of
from mtl_jax.data.dataset import Dataset
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.scaler import centred
from mtl_jax.tasks import KINDS, Task, divisor, loss_sum
from mtl_jax.training import identity
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted, initial, resolve_model, small_batch
from mtl_jax.transfer import cached
from mtl_jax.transfer.methods.probe import ridge

SCALES = tuple(2.0 ** (e / 2) for e in range(-6, 17))  # of logits; one is chosen by the loss
WITHOUT_VALIDATION = 1e-3


def solve(adapted: Adapted, data: Dataset, penalties: Sequence[float], seed: int = 0) -> Run:
    """The run whose heads are those of ridge regression on the features of what was adapted.

    Args:
      adapted: with a frozen trunk and linear heads on vectors.
      data: with the model's tasks.
      penalties: to choose from by validation loss, each task for itself.
      seed: of what was not loaded.

    Raises:
      ValueError: for a head that is not linear, or a kind of task that ridge regression does not fit.
    """
    if adapted.members or np.ndim(seed):
        raise ValueError("a probe in closed form is of one run: give one seed, and run.member(i) of several")
    model, tasks, data = resolve_model(adapted.model, data, adapted.carried)
    example = small_batch(data.train)
    first = initial(model, example, adapted.member(0))
    key = jax.random.key(seed)
    variables = first.named(first.make(jax.random.fold_in(key, 1), adapted.variables), False)
    trainable = partition.trainable_paths(first.shapes["params"], adapted.freeze)
    if no := cached.why_not(adapted, first.shapes, trainable, example):
        raise ValueError(f"a probe in closed form needs features that stay: {no}")
    cached.check_inputs_of(adapted, model, data)
    for task in tasks:
        check(task, variables["params"]["tasks"][task.name])
    features = cached.with_features(model, variables, data)
    heads: dict[str, Any] = {}
    record: dict[str, Any] = {"step": 0, "split": "train", "losses": {}, "penalties": {}, "seconds": 0.0}
    for task in tasks:
        heads[task.name], loss, penalty = of_task(task, features, penalties)
        record["losses"][task.name], record["penalties"][task.name] = loss, penalty
    own = {t: {**tree, **({"head": {"out": heads[t]}})} for t, tree in variables["params"]["tasks"].items()}
    variables = {**variables, "params": {**variables["params"], "tasks": own}}
    config = {"data": data.spec or data.name, "tasks": [t.name for t in tasks], "method": adapted.method.spec,
              "sharing": model.spec, "encoder": model.encoder.spec if model.encoder else None}  # fmt: skip
    run = Run(model, tasks, variables, [record], example, data.spec, config=config)
    run.trainable, run.columns = trainable, data.columns
    rests_on = {"method": adapted.method.spec, "seed": seed, "penalties": list(penalties), "freeze": adapted.freeze,
                "sharing": model.spec or model, "encoder": config["encoder"] or model.encoder}  # fmt: skip
    run.identity = identity.describe(data, tasks, rests_on, adapted)
    return run


def check(task: Task, own: dict[str, Any]) -> None:
    """An error for a head that is none of ridge regression's."""
    kernel = own.get("head", {}).get("out", {}).get("kernel")
    if kernel is None or set(own["head"]) != {"out"} or set(own) != {"head"}:
        raise ValueError(f"task {task.name!r}: a probe in closed form solves for one linear layer, which this head is "
                         "not; use probe(solver='steps')")  # fmt: skip
    # The kinds that plain models of tables have; and a head that flattens reads more than a vector.
    if task.of_kind.against_trees is None or "flatten" in (task.head or ""):
        raise ValueError(f"task {task.name!r}: a probe in closed form is for classification, binary, multilabel and "
                         f"regression tasks on vectors; {task.kind} goes with probe(solver='steps')")  # fmt: skip


def of_task(task: Task, data: Dataset, penalties: Sequence[float]) -> tuple[dict[str, Any], float, float]:
    """(the head's kernel and bias, its training loss, the penalty that was chosen) on features."""
    x, y, mask, weights = rows(task, data.train)
    if not np.isfinite(x).all():
        row = int(np.argmax(~np.isfinite(x).all(1)))
        raise ValueError(f"task {task.name!r}: the features of row {row} of train are not finite; the trunk's "
                         "parameters or statistics are broken, or its inputs")  # fmt: skip
    fits, train = by_column(x, y, mask, weights, penalties), centred([task], data.train)
    if data.val is None or not np.asarray(data.val.masks[task.name]).any():
        chosen = int(np.argmin([abs(math.log(p / WITHOUT_VALIDATION)) for p in penalties]))
        best = scaled_logits(task, train, x, fits[chosen])
    else:
        val, scaled = centred([task], data.val), [scaled_logits(task, train, x, fit) for fit in fits]
        seen = vectors(val, task.name)
        chosen = int(np.argmin([loss_of(task, val, seen, fit) for fit in scaled]))
        best = scaled[chosen]
    head = {"kernel": best[0].astype(np.float32), "bias": best[1].astype(np.float32)}
    return head, loss_of(task, train, x, best), float(penalties[chosen])


def rows(task: Task, split: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(features [N, width], targets [N, out], where there is a label [N, out], weights of rows [N])."""
    split = centred([task], split)
    x = np.asarray(vectors(split, task.name), np.float64)
    target, mask = np.asarray(split.targets[task.name]), np.asarray(split.masks[task.name])
    given = (split.weights or {}).get(task.name)
    weights = np.ones(len(x)) if given is None else np.asarray(given)
    if KINDS[task.kind].labels == "classes":
        assert task.size is not None  # the kinds that `check` lets through need one
        y = 2.0 * (target[:, None] == np.arange(task.size)) - 1
    elif KINDS[task.kind].labels == "zero_one":
        y = 2.0 * target.reshape(len(x), -1) - 1
    else:
        scaled = target if task.scaler is None else np.asarray(task.scaler.scale(target))
        y = scaled.reshape(len(x), -1).astype(np.float64)
    there = np.broadcast_to(aligned(mask, y) if mask.ndim <= y.ndim else mask.reshape(y.shape), y.shape)
    return x, np.where(there, y, 0), there, weights


def vectors(split: Batch, task: str) -> np.ndarray:
    """[N, width], the features as the head reads them."""
    return np.asarray(mean_over_positions(jax.tree.map(jnp.asarray, inputs_of(split.inputs, task))))


def by_column(
    x: np.ndarray, y: np.ndarray, mask: np.ndarray, weights: np.ndarray, penalties: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`ridge` of all columns at once, or one by one where they miss labels in different rows."""
    if (mask == mask[:, :1]).all():
        use = mask[:, 0] & (weights > 0)
        return ridge(x[use], y[use], weights[use], tuple(penalties))
    found = []
    for column in range(y.shape[1]):
        use = mask[:, column] & (weights > 0)
        if not use.any():
            found.append([(np.zeros((x.shape[1], 1)), np.zeros(1))] * len(penalties))
        else:
            found.append(ridge(x[use], y[use][:, column : column + 1], weights[use], tuple(penalties)))
    return [
        (np.concatenate([c[i][0] for c in found], 1), np.concatenate([c[i][1] for c in found]))
        for i in range(len(penalties))
    ]


def scaled_logits(
    task: Task, split: Batch, x: np.ndarray, fit: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The fit times the number that makes the loss least, where outputs are logits."""
    if KINDS[task.kind].labels == "numbers":
        return fit
    losses = [loss_of(task, split, x, (s * fit[0], s * fit[1])) for s in SCALES]
    best = SCALES[int(np.argmin(losses))]
    return best * fit[0], best * fit[1]


def loss_of(task: Task, split: Batch, x: np.ndarray, fit: tuple[np.ndarray, np.ndarray]) -> float:
    """The task's mean loss on the labels of a split, centred, whose features are `x` [N, width]."""
    outputs = (x @ fit[0] + fit[1]).astype(np.float32)
    outputs = outputs[:, 0] if task.size is None else outputs
    weights = (split.weights or {}).get(task.name)
    given = (jnp.asarray(split.targets[task.name]), jnp.asarray(split.masks[task.name]))
    total, count = loss_sum(task, jnp.asarray(outputs), *given, None if weights is None else jnp.asarray(weights))
    return float(total / divisor(count))

"""One training of an evaluation: a method, or from scratch, on some labels and a seed; and what it came to."""

import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mtl_jax import partition, parts
from mtl_jax.batch import num_rows
from mtl_jax.data.dataset import Dataset
from mtl_jax.training import records, selection
from mtl_jax.training.arguments import SMALL
from mtl_jax.training.fit import fit
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.transfer import trunks
from mtl_jax.transfer.adapted_run import merge_adapter
from mtl_jax.transfer.continual import forgetting, join
from mtl_jax.transfer.fine_tune import fine_tune
from mtl_jax.transfer.methods import Method
from mtl_jax.transfer.methods.base import ADAPTER

SCRATCH = "from scratch"


class Way(NamedTuple):
    """How a row of an evaluation is trained.

    Attributes:
      method: of `transfer.methods`; None: the same model with new parameters, all of which train.
      rate: learning rate; None where a method solves for its heads.
      optimizer: text without a rate.
    """

    method: Method | None
    rate: float | None
    optimizer: str = "adam"


def adapted(source: Any, data: Dataset, way: Way, given: Mapping[str, Any], old: Dataset | None) -> Adapted:
    """The source on the data's tasks, by the method of a way.

    Args:
      source: of `trunks.open_trunk`.
      data: with the new tasks.
      way: without a method, only the model counts.
      given: further arguments of `adapt`, or `Pretrained.adapt`.
      old: the data of the source, for methods that ask for them.
    """
    asks = way.method is not None and way.method.prepare is not None
    return trunks.adapted(source, data, method=way.method, old=old if asks else None, **given)


def train(
    source: Any, data: Dataset, way: Way, *, seed: int, num_steps: int, given: Mapping[str, Any], old: Dataset | None,
    arguments: Mapping[str, Any],
) -> Run:  # fmt: skip
    """The run of one way on few labels; batches are at most the rows there are.

    Args:
      source, data, way, given, old: as `adapted` takes them.
      seed: of parameters and batches.
      num_steps: in all.
      arguments: others of `fit`.
    """
    own = dict(arguments)
    rows = min(num_rows(data.train, t.name) for t in data.tasks)
    own["batch_size"] = min(own.get("batch_size") or SMALL, rows)
    if way.method is None:
        model = adapted(source, data, way, given, None).model
        optimizer = parts.call(way.optimizer, {"learning_rate": way.rate})
        return fit(model, data, optimizer=optimizer, num_steps=num_steps, seed=seed, **own)
    return fine_tune(adapted(source, data, way, given, old), data, num_steps=num_steps, learning_rate=way.rate,
                     seed=seed, **own)  # fmt: skip


def measured(source: Any, data: Dataset, way: Way, *, old: Dataset | None, forgets: bool, **how: Any) -> dict[str, Any]:
    """{"test", "validation", "forgetting", "trained", "step_flops", "peak_bytes", "seconds"} of one training.

    `seconds` is the wall time of all of it but XLA's compiling. Forgetting is {task: what was lost in its headline
    metric}, where it `forgets`; 0 where the trunk stood still, None from scratch.
    """
    began = time.perf_counter()
    run = train(source, data, way, old=old, **how)
    seconds = time.perf_counter() - began - run.cost.get("compile_seconds", 0.0)
    sizes = partition.flatten(run.params)
    return {
        "test": records.plain(run.evaluate(data.test)),
        "validation": validation_score(run, data),
        "forgetting": lost(source, run, old) if old is not None and forgets and way.method is not None else None,
        "trained": sum(int(np.size(sizes[p])) for p in run.trainable) or None,
        "step_flops": run.cost.get("step_flops"),
        "peak_bytes": run.cost.get("peak_bytes"),
        "seconds": seconds,
    }


def validation_score(run: Run, data: Dataset) -> float | None:
    """The mean over tasks of 1 - loss / loss of the best constant, on validation; None where that tells nothing."""
    if data.val is None:
        return None
    by, _ = selection.yardstick(data.tasks, data.train, data.val)
    found = run.evaluate(data.val)
    losses = jnp.asarray([float(found[t.name]["loss"]) for t in data.tasks])
    return records.plain(float(selection.readable_score(selection.scores(losses, by), by.say)))


def lost(source: Run, run: Run, old: Dataset) -> dict[str, float] | None:
    """{old task: how much worse it has become}, 0 where what was learned can be taken off the trunk again.

    None for architectures that have no place for old and new tasks at once, and where the trunk moved beside what
    cannot be merged into it.
    """
    if trunk_stood_still(source, run):
        return {t.name: 0.0 for t in source.tasks}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about old data was said when the source was trained
        try:
            merges = run.model.base is not None and run.model.base[1].adds is not None
            both = join(source, merge_adapter(run) if merges else run)
        except ValueError:  # no place for the tasks of both, or what was added is no change of weights
            return None
        return {t: row[3] for t, row in forgetting(source, both, old.test).rows.items()}


def trunk_stood_still(source: Run, run: Run) -> bool:
    """Whether all of the source's shared parameters and statistics are as they were, to the bit."""
    for kind in ("params", "state"):
        new = partition.flatten(run.variables[kind])
        for path, x in partition.flatten(source.variables[kind]).items():
            if partition.owner(path) == "shared" and f"/{ADAPTER}/" not in path:
                if path not in new or not np.array_equal(np.asarray(x), np.asarray(new[path]), equal_nan=True):
                    return False
    return True

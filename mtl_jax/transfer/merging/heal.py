"""`heal`: a few hundred balanced steps after a merge mend what it broke."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax

from mtl_jax import partition, parts
from mtl_jax.balancing.base import Balancer
from mtl_jax.data.dataset import Dataset
from mtl_jax.training.arguments import check_run
from mtl_jax.training.fit import fit
from mtl_jax.training.run import Run
from mtl_jax.training.start import small_batch
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.merging.joined import side_by_side


def heal(
    run: Run,
    data: Dataset | Sequence[Dataset],
    *,
    balancer: Balancer | str | None = "upgrad",
    num_steps: int = 300,
    **arguments: Any,
) -> Run:
    """Trains a merged run on all its tasks at once, from where it is, heads included.

    Args:
      run: what `merge` returned; any run will do.
      data: with all its tasks, or a data set for each; of the form that it was merged with.
      balancer: of the tasks' gradients; by default UPGrad, so that no task is mended at another's cost.
      num_steps: of training.
      **arguments: further ones of `fit`, such as ``optimizer="adam(learning_rate=0.0003)"``.

    Raises:
      ValueError: for what is no run, or data in which its statistics have no place.
    """
    check_run(run)
    for name in arguments:
        if name not in inspect.signature(fit).parameters:
            raise parts.unknown("argument of fit", name, inspect.signature(fit).parameters)
    data = data if isinstance(data, Dataset) else side_by_side(data)
    tasks = [t for t in data.select([t.name for t in run.tasks]).tasks]
    adapted = adapt(run, tasks, load=((".*", True),), model=None if run.model.spec else run.model)
    fresh = jax.eval_shape(lambda: adapted.model.init(jax.random.key(0), small_batch(data.train)))
    there = partition.flatten(fresh["state"])
    if lost := [p for p in adapted.variables.get("state", {}) if p not in there]:
        raise ValueError(f"statistics of the run have no place with these data: {lost[0]}; merge with the same "
                         "data= that heals")  # fmt: skip
    return fit(adapted, data, balancer=balancer, num_steps=num_steps, **arguments)

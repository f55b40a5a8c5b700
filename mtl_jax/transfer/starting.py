"""A model that starts from parameters of elsewhere: `fit` resumes its own run, then loads, then draws."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.training.arguments import check_model
from mtl_jax.training.start import Adapted, small_batch
from mtl_jax.transfer.applying import apply, prepared
from mtl_jax.transfer.class_order import OUTPUT
from mtl_jax.transfer.loading import make_plan, read
from mtl_jax.transfer.sources import of_variables, open_source, split_by_kind


def start_from(
    model: MultiTaskModel,
    source: Any,
    rules: Sequence[Sequence[Any]] = (),
    *,
    inputs: Any,
    freeze: Any = None,
    resize: Sequence[tuple[str, Any]] = (),
    unused: str | Sequence[str] | None = None,
    method: Any = None,
) -> Adapted:
    """`model` with parameters and statistics of `source`, to be given to `fit`.

    A `fit` in a workdir with a checkpoint goes on from that; else it starts with what is loaded here; what the rules
    `KEEP` is drawn by its seed.

    Args:
      model: on the new tasks.
      source, rules, resize, unused: as `load_parameters` takes them; rules decide on parameters and statistics.
      inputs: of the model: a data set, or a batch's inputs; only shapes matter.
      freeze: regex, several, or (regex, trains) rules for what `fit` leaves as it is.
      method: a fine-tuning method (`transfer.methods`) or its text; None: all trains that `freeze` does not name.

    Raises:
      DoesNotFit, ValueError, FileNotFoundError: see `load_parameters`.
    """
    check_model(model)
    how = prepared(None, method, None)
    opened = open_source(source)
    example = small_batch(inputs.train) if isinstance(inputs, Dataset) else Batch(inputs, {}, {})
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), example._replace(targets={}, masks={}, weights=None)))
    leaves = of_variables(shapes, "the model")
    plan = make_plan(leaves, opened, rules, resize=resize, unused=unused, tasks=model.tasks)
    olds = {t.name: t for t in opened.tasks}
    heads: dict[str, str] = {}
    for path, part in plan.parts.items():
        new, old = OUTPUT.fullmatch(path), OUTPUT.fullmatch(part.origin.paths[0])
        if new and old and old[1] in olds:
            heads[new[1]] = old[1]
    # A head of a run speaks in the units that it was trained in.
    tasks = tuple(
        dataclasses.replace(t, scaler=olds[heads[t.name]].scaler) if t.name in heads else t for t in model.tasks
    )
    values = split_by_kind(dict(read(plan, opened, leaves)), shapes)
    where = f"parameters of {pathlib.Path(opened.name).name}"
    plain = Adapted(model._replace(tasks=tasks), values, freeze, plan.report, 0, tuple(heads), where)
    return apply(plain, *how, example._replace(targets={}, masks={}, weights=None))

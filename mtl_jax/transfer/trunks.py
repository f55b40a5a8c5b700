"""What is carried to new tasks: a run of ours or a pretrained model, as an object or where it lies."""

import inspect
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax import encoders, partition, parts, paths, sharing
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.encoders.base import layers
from mtl_jax.inputs import check_no_bytes, place
from mtl_jax.tasks import Task
from mtl_jax.training.loading import load_run
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.transfer.adapt import adapt
from mtl_jax.transfer.pretrained import Pretrained, from_pretrained

KINDS = "a run, what mtl.transfer.from_pretrained returned, or the folder or file of one"


def open_trunk(given: Any) -> Run | Pretrained:
    """The run or pretrained model that is given, or that lies at a path.

    A folder with ``data.json`` is a run's; any other folder, and a file, are weights of another framework.

    Raises:
      FileNotFoundError, ValueError: as `load_run` and `from_pretrained` do; or for what is neither.
    """
    if isinstance(given, Run | Pretrained):
        return given
    if not isinstance(given, str | pathlib.Path):
        raise parts.no_such("source", given, KINDS)
    place = paths.local(given, "the source of a transfer")
    if not place.exists():
        raise FileNotFoundError(f"there is no {place}: give a run's folder, or a pretrained model's folder or file")
    if place.is_file():
        return from_pretrained(place)
    if (place / "data.json").exists():
        return load_run(place)
    if not any(p.name.endswith((".safetensors", ".safetensors.index.json")) for p in place.iterdir()):
        raise FileNotFoundError(f"{place} holds neither a run (data.json) nor weights (model.safetensors)")
    return from_pretrained(place)


def adapted(source: Run | Pretrained, data: Dataset, tasks: Sequence[Task] | None = None, **how: Any) -> Adapted:
    """The trunk on tasks of a data set.

    Args:
      source: as `open_trunk` returns it.
      data: with the new tasks.
      tasks: which; None for all.
      **how: arguments of `adapt`, or of `Pretrained.adapt`; None is as if it were not given.

    Raises:
      ValueError: for what is asked of the other kind, besides what `adapt` and `Pretrained.adapt` raise.
    """
    given = {k: v for k, v in how.items() if v is not None}
    function = adapt if isinstance(source, Run) else Pretrained.adapt
    if unread := [k for k in given if k not in inspect.signature(function).parameters]:
        what = "a run" if isinstance(source, Run) else f"a pretrained model ({source.source})"
        raise ValueError(f"{unread[0]} is given, and the source is {what}, which does not take it")
    tasks = data.tasks if tasks is None else tuple(tasks)
    if isinstance(source, Run):
        if "model" not in given:
            check_same_pixels(source, data)
        return adapt(source, tasks, **given)
    return source.adapt(tasks, **{"inputs": data, **given})


def check_same_pixels(run: Run, data: Dataset) -> None:
    """An error for images of bytes where the run was trained on floats."""
    wanted = partition.flatten(run.example.inputs)
    for path, leaf in partition.flatten(data.train.inputs).items():
        if path in wanted:
            check_no_bytes(np.asarray(wanted[path]).dtype, leaf, place("train")(path))


def as_run(source: Run | Pretrained, encoder: str | None = None) -> Run:
    """The trunk as a run: of a pretrained model, one without tasks.

    Args:
      source: the trunk.
      encoder: the text of the one that a pretrained model's was made in order to read its inputs; None for its own.
    """
    if isinstance(source, Run):
        return source
    own = source.encoder
    reads = own if encoder in (None, own.spec) else encoders.build(encoder)
    stages = {kind: {n: tree[n] for n, _ in layers(own) if n in tree} for kind, tree in source.variables.items()}
    variables = {k: {"shared": {"encoder": v} if v else {}, "tasks": {}} for k, v in stages.items()}
    dtype = np.int32 if len(source.example) == 1 else np.float32 if reads.prepare is None else np.uint8
    model = sharing.hard(reads, [Task("none", "regression")])._replace(tasks=())
    return Run(model, (), variables, [], Batch(np.ones((2, *source.example), dtype), {}, {}))

"""Features of a frozen trunk, computed once: a run of heads alone reads them in place of the inputs."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask, num_rows
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.data.tables import serving
from mtl_jax.gradients.reach import reached
from mtl_jax.model import NO_AUX, MultiTaskModel, no_penalty
from mtl_jax.training import arguments
from mtl_jax.training.chunks import row_pieces
from mtl_jax.training.start import Adapted

ROWS = 256  # of a piece


def why_not(adapted: Adapted, variables: Any, trainable: frozenset[str], example: Batch) -> str | None:
    """Why the features may not be computed once; None if they may.

    They may if no parameter that trains enters them, so that they are the same at every step, and if the model does
    nothing in training that it does not do in inference.

    Args:
      adapted: what is to be trained.
      variables: its shapes.
      trainable: paths that train.
      example: rows, for their shapes.
    """
    method, model = adapted.method, adapted.model
    if adapted.members:
        return "every member has a trunk of its own"
    if model.encoder is not None and getattr(model.encoder.prepare, "draws", model.encoder.prepare is not None):
        return "the encoder changes its inputs while it trains"
    if method is not None and (method.around is not None or method.penalty is not None):
        return f"{method.name} changes what a training step computes"
    early = sorted(p for p in trainable if partition.owner(p) == "shared")
    if not early:
        flat = partition.flatten(variables["params"])
        moving = {p: flat[p] for p in sorted(trainable)}

        def encoded(moving: dict[str, Any], rest: Any) -> Any:
            read = {**rest, "params": partition.unflatten(moving, rest["params"])}
            features, changed, aux = model.encode(read, rows, train=lambda path: _under(path, trainable), rng=key)
            return features, changed, aux["losses"]

        key, rows = jax.random.key(0), Batch(jax.tree.map(jnp.asarray, example.inputs), {}, {})
        enters = reached(encoded, moving, variables)[0]
        early = [p for p, yes in enters.items() if yes]
    return f"{early[0]} trains, and features depend on it" if early else None


def check_inputs_of(adapted: Adapted, model: MultiTaskModel, data: Dataset) -> None:
    """What `fit` says of a data set's inputs, which it does not see where it gets features in their place."""
    serving.warn_of_other_columns(adapted.columns, data)
    adapted.check_vocabulary(data)
    check_dataset(data)
    serving.check_encoder(data, model.encoder)
    arguments.check_readable(model, data)


def _under(path: str, trainable: frozenset[str]) -> bool:
    return any(p.startswith(path + "/") for p in trainable)


def with_features(model: MultiTaskModel, variables: Any, data: Dataset) -> Dataset:
    """The data set with the model's features, in inference, in place of its inputs.

    Args:
      model: whose `encode` gives them.
      variables: by task name.
      data: with the model's tasks.
    """

    @jax.jit
    def encode(variables: Any, inputs: Any) -> Any:
        return model.encode(variables, Batch(inputs, {}, {}), train=False)[0]

    def of(split: Batch | None) -> Batch | None:
        if split is None:
            return None
        pieces = [jax.device_get(encode(variables, x)) for x in row_pieces(split.inputs, ROWS)]
        joined = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
        if isinstance(joined, PerTask):
            rows = {t: num_rows(split, t) for t in joined}
            inputs = PerTask({t: jax.tree.map(lambda x, n=rows[t]: x[:n], joined[t]) for t in joined})
        else:
            inputs = jax.tree.map(lambda x: x[: num_rows(split)], joined)
        return split._replace(inputs=inputs)

    splits: dict[str, Any] = {k: of(getattr(data, k)) for k in SPLITS if k != "test"}
    return dataclasses.replace(data, **splits, test=None, spec=None, columns=None)


def of_heads(model: MultiTaskModel, example: Batch) -> MultiTaskModel:
    """The model behind its features: its inputs are these, and it has the tasks' own parameters only."""

    def init(rng: Any, batch: Batch) -> dict[str, Any]:
        del batch
        variables = model.init(rng, example)
        return {kind: {"shared": {}, "tasks": tree["tasks"]} for kind, tree in variables.items()}

    def encode(variables: Any, batch: Batch, *, train: Any, rng: Any = None, tasks: Any = None) -> tuple:
        del variables, train, rng
        if isinstance(batch.inputs, PerTask) and tasks is not None:
            return PerTask({t: batch.inputs[t] for t in tasks}), {}, NO_AUX
        return batch.inputs, {}, NO_AUX

    return model._replace(
        init=init, encode=encode, penalty=no_penalty, encoder=None, spec=None, start=None, base=None,
        features="common", check=None,
    )  # fmt: skip


def rules_of(paths: Any, trainable: frozenset[str]) -> partition.Rules:
    """Rules that name each path that trains."""
    rules = tuple((re.escape(p), True) for p in sorted(trainable))
    return (*rules, (".*", False)) if set(paths) - set(trainable) else ()

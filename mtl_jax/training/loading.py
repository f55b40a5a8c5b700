"""`load_run`: a run from its folder."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import files, paths, sharing
from mtl_jax.batch import Batch
from mtl_jax.data.tables.stored import read as read_columns
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.tasks import Task
from mtl_jax.training import changes, description, identity, own_functions, records
from mtl_jax.training import fallback as fallbacks
from mtl_jax.training.run import Run
from mtl_jax.uncertainty import of_run


def load_run(
    directory: str | pathlib.Path,
    model: MultiTaskModel | None = None,
    tasks: Sequence[Task] | None = None,
    encoder: Encoder | None = None,
) -> Run:
    """A run that was saved, or the newest checkpoint of a working directory, ready to predict and to adapt.

    Args:
      directory: from `Run.save`, or a `fit` with a workdir.
      model: needed only where the model was made of parts that cannot be written as text.
      tasks: give losses and metrics back that are Python functions; a warning says where one is missing.
      encoder: gives the encoder back where it is of a module of one's own (`encoders.from_module`), which a saved run
        knows by name only; a warning says if its code is not the one that was trained.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if the checkpoint does not fit the model, listing the paths; or an encoder is missing.
    """
    from mtl_jax.checkpoint import Checkpoints

    directory = paths.local_folder(directory, "the folder of a run")
    if not (directory / "data.json").exists():
        raise FileNotFoundError(f"{directory} holds no run: there is no {directory / 'data.json'}")
    content = description.read_description(directory)
    tasks = own_functions.give_back(content["tasks"], tasks)
    if model is not None and encoder is not None:
        raise ValueError("load_run is given both a model and an encoder; the model has its own")
    if model is None:
        if content["sharing"] is None:
            raise ValueError(f"the model of {directory} was not made of named parts; call load_run(..., model=model)")
        encoder = own_functions.encoder_given(content, encoder, directory)
        model = sharing.build(content["sharing"], encoder, tasks)
    example = Batch(content["inputs"], {}, {})
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
    names = [t.name for t in tasks]
    with Checkpoints(directory / "checkpoints") as checkpoints:
        found = checkpoints.newest(lambda step: _load_variables(checkpoints, step, shapes, directory, names))
    if found is None:
        raise FileNotFoundError(f"{directory / 'checkpoints'} holds no complete checkpoint")
    step, variables = found
    config = files.read_object(directory / "config.json", {})
    history = records.history_until(directory / "metrics.jsonl", step)
    rests_on = identity.read(directory) or {}
    asked = bool(rests_on.get("settings", {}).get("fallback"))
    return Run(model, tasks, variables, history, example, content["data"], config=config, identity=rests_on,
               columns=read_columns(directory), calibration=of_run.read(directory, variables),
               fallback=fallbacks.read(directory, tasks, variables, asked),
               changes=changes.until(changes.read(directory), step))  # fmt: skip


def _load_variables(
    checkpoints: Any, step: int, shapes: Any, directory: pathlib.Path, names: Sequence[str]
) -> dict[str, Any]:
    stored = checkpoints.shapes(step, "best")
    extra = {"scores", "steps", "stale", "stopped"} & stored.keys()
    if stored.get("stale"):
        raise ValueError(f"{directory} holds {stored['stale'][0]} runs side by side; save one with Run.member")
    target = dict(shapes)
    for name in extra:  # selection state of a working directory
        target[name] = jax.ShapeDtypeStruct(stored[name], _dtype(name))
    best = checkpoints.restore(step, {"best": target}, names)["best"]
    # Where nothing was selected, earlier versions left the first variables there: the training state's own count.
    if "steps" in extra and not (np.asarray(best["steps"]) > 0).any():
        best = checkpoints.restore_part(step, "train", {k: shapes[k] for k in ("params", "state")}, names)
    return {"params": best["params"], "state": best["state"]}


def _dtype(name: str) -> Any:
    return {"scores": jnp.float32, "steps": jnp.int32, "stale": jnp.int32, "stopped": bool}[name]

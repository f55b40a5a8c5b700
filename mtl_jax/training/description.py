"""What a run says of itself on disk: its tasks, the shapes of its inputs, and where it ran."""

import dataclasses
import importlib.metadata
import math
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

from mtl_jax import files, partition
from mtl_jax.batch import PerTask
from mtl_jax.data.tables import stored
from mtl_jax.scaler import Scaler
from mtl_jax.tasks import Task
from mtl_jax.training import own_functions


def write_description(directory: pathlib.Path, run: Any) -> None:
    """data.json (tasks with class names and scalers, shapes of inputs), identity.json and environment.json of a `Run`.

    Of a loss or metric that is a Python function the name is written; `load_run` asks for it.
    """
    content = {
        "data": run.data,
        "tasks": [written_task(task) for task in run.tasks],
        **written_inputs(run.example.inputs),
        "encoder": run.model.encoder.spec if run.model.encoder else None,
        "sharing": run.model.spec,
    }
    if (own := own_functions.written_encoder(run.model.encoder)) is not None:
        content["own_encoder"] = own
    files.write_json(directory / "data.json", content)
    if run.identity:
        files.write_json(directory / "identity.json", run.identity)
    files.write_json(directory / "environment.json", environment())
    stored.write(directory, run.columns)


def written_inputs(inputs: Any) -> dict[str, Any]:
    """{"inputs": shape and dtype of a row of each leaf, "per_task_inputs"} (`read_inputs`)."""
    rows = {p: {"shape": list(np.shape(x)[1:]), "dtype": str(x.dtype)} for p, x in partition.flatten(inputs).items()}
    return {"inputs": rows, "per_task_inputs": isinstance(inputs, PerTask)}


def written_task(task: Task) -> dict[str, Any]:
    """A task as data.json has it (`read_task`)."""
    entry = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    entry["scaler"] = None if task.scaler is None else dataclasses.asdict(task.scaler)
    entry["loss"] = own_functions.written(task.loss, "loss")
    if task.metrics is not None:
        entry["metrics"] = [own_functions.written(m, "metric") for m in task.metrics]
    return entry


def environment() -> dict[str, Any]:
    """Versions, devices and, in a clone, the commit."""
    packages = ("mtl_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    here = pathlib.Path(__file__).parent
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
        commit = git.stdout.strip() or None
    except OSError:
        commit = None
    devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
    return {"python": platform.python_version(), "packages": versions, "devices": devices, "commit": commit}


FIELDS = {"data": str | None, "tasks": list, "inputs": dict, "per_task_inputs": bool, "encoder": str | None,
          "sharing": str | None}  # fmt: skip
MOST = 2**28  # values in a row of inputs


def read_description(directory: pathlib.Path) -> dict[str, Any]:
    """What `write_description` wrote in data.json, its tasks as `Task`s and its inputs as two rows of zeros.

    Raises:
      ValueError: naming the file, if it holds anything else.
    """
    path = directory / "data.json"
    content = files.read_object(path, FIELDS)
    try:
        inputs = read_inputs(content)
        return {**content, "tasks": tuple(read_task(entry) for entry in content["tasks"]), "inputs": inputs}
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        why = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged: {why}") from error


def read_task(entry: Any) -> Task:
    """A task as data.json has it."""
    files.check_fields(entry, {"name": str, "kind": str, "scaler": dict | None}, "a task")
    fields = dict(entry)
    if fields["scaler"] is not None:
        if not all(isinstance(x, int | float) for v in fields["scaler"].values() for x in v):
            raise ValueError(f"the scaler of task {fields['name']!r} holds something other than numbers")
        fields["scaler"] = Scaler(**{k: tuple(v) for k, v in fields["scaler"].items()})
    for key in ("metrics", "classes", "quantiles", "class_weights"):
        if fields.get(key) is not None:
            fields[key] = tuple(map(own_functions.read, fields[key]))
    fields["loss"] = own_functions.read(fields.get("loss"))
    return Task(**fields)


def read_inputs(content: dict[str, Any]) -> Any:
    """Two rows of zeros in the shapes that data.json has."""
    for path, entry in content["inputs"].items():
        if math.prod(entry["shape"]) > MOST:
            raise ValueError(f"inputs {path!r} have shape {entry['shape']}; a row holds at most {MOST:,} values")
    arrays = {p: np.zeros((2, *i["shape"]), i["dtype"]) for p, i in content["inputs"].items()}
    if not content["per_task_inputs"]:
        return arrays[""] if "" in arrays else arrays
    by_task: dict[str, Any] = {}
    for path, array in arrays.items():
        task, _, rest = path.partition("/")
        if rest:
            by_task.setdefault(task, {})[rest] = array
        else:
            by_task[task] = array
    return PerTask(by_task)

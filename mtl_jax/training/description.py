"""What a run says of itself on disk: its tasks, the shapes of its inputs, and where it ran."""

import dataclasses
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import PerTask
from mtl_jax.data.tables import stored
from mtl_jax.tasks import Scaler, Task
from mtl_jax.training import records


def write_description(directory: pathlib.Path, run: Any) -> None:
    """data.json (tasks with class names and scalers, shapes of inputs) and environment.json of a `Run`.

    A loss or metric that is a Python function cannot be written; a loaded run evaluates with the kind's own instead.
    """
    inputs = {
        p: {"shape": list(np.shape(x)[1:]), "dtype": str(x.dtype)}
        for p, x in partition.flatten(run.example.inputs).items()
    }
    tasks = []
    for task in run.tasks:
        entry = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
        entry["scaler"] = None if task.scaler is None else dataclasses.asdict(task.scaler)
        if not isinstance(task.loss, str | None):
            entry["loss"] = None  # a function; only training needs it
        entry["metrics"] = None if task.metrics is None else [m for m in task.metrics if isinstance(m, str)]
        tasks.append(entry)
    content = {
        "data": run.data,
        "tasks": tasks,
        "inputs": inputs,
        "per_task_inputs": isinstance(run.example.inputs, PerTask),
        "encoder": run.model.encoder.spec if run.model.encoder else None,
        "sharing": run.model.spec,
    }
    records.write_json(directory / "data.json", content)
    records.write_json(directory / "environment.json", environment())
    stored.write(directory, run.columns)


def environment() -> dict[str, Any]:
    """Versions, devices and, in a clone, the commit."""
    packages = ("mtl_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {}
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


def read_task(entry: dict[str, Any]) -> Task:
    """A task as data.json has it."""
    fields = dict(entry)
    if fields["scaler"] is not None:
        fields["scaler"] = Scaler(**{k: tuple(v) for k, v in fields["scaler"].items()})
    for key in ("metrics", "classes", "quantiles"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    return Task(**fields)


def read_inputs(content: dict[str, Any]) -> Any:
    """Two rows of zeros in the shapes that data.json has."""
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

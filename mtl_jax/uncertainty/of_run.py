"""The calibration of a run: made on held-out labels, kept with the run, and refused by other variables than its own."""

import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_jax import files
from mtl_jax.batch import Batch
from mtl_jax.data.fingerprint import of_split, of_tree
from mtl_jax.data.tables.files import fingerprint
from mtl_jax.tasks import Task
from mtl_jax.uncertainty.calibration import Calibration, calibrate, can_calibrate

FILE = "calibration.json"
SURER = ("of which it is surer than of new ones: intervals and sets will be too narrow; calibrate on held-out rows, "
         "run.calibrate(data.val)")  # fmt: skip


def make(tasks: Sequence[Task], predictions: dict[str, np.ndarray], split: Batch) -> Calibration:
    """`calibrate`, or an error where the split has no labels of any task that could be calibrated."""
    if not can_calibrate(tasks, split):
        raise ValueError("the split has no label to calibrate with, of any task of kind classification, binary, "
                         "multilabel, regression or quantile")  # fmt: skip
    return calibrate(tasks, predictions, split)


def warn_of_training_rows(identity: dict[str, Any], split: Batch) -> None:
    """A warning for a split whose inputs are those of the rows that the run was trained on (`training.identity`)."""
    known = identity.get("data", {}).get("train", {})
    trained = {k: v for k, v in known.items() if k.split(" ")[0] == "inputs"}
    if trained and of_split(Batch(split.inputs, {}, {})) == trained:
        warnings.warn(f"the split to calibrate on has the rows that the run was trained on, {SURER}", UserWarning,
                      stacklevel=3)  # fmt: skip


def warn_of_training_file(columns: Any, split: Any) -> None:
    """A warning for the very file that holds the rows of training, of a run on a table with `columns`."""
    known = getattr(columns, "source", {}).get("sha256")
    path = pathlib.Path(split).expanduser() if known and isinstance(split, str | pathlib.Path) else None
    if path is not None and path.is_file() and fingerprint(path) == known:
        warnings.warn(f"{path} holds the rows that the run was trained on, {SURER}", UserWarning, stacklevel=3)


def write(directory: pathlib.Path, calibration: Calibration | None, variables: Any) -> None:
    """Writes ``calibration.json``, if there is a calibration."""
    if calibration is not None:
        files.write_json(directory / FILE, {"variables": of_tree(variables), "tasks": calibration.content()})


def read(directory: pathlib.Path, variables: Any) -> Calibration | None:
    """The calibration of a run; None where there is none, or, with a warning, where it is one of other variables."""
    path = directory / FILE
    if not path.exists():
        return None
    content = files.read_object(path, {"variables": str, "tasks": dict})
    if content["variables"] != of_tree(variables):
        warnings.warn(f"{path} was made with other variables than the run has now, and is left out; calibrate anew: "
                      "run.calibrate(data.val)", UserWarning, stacklevel=3)  # fmt: skip
        return None
    try:
        return Calibration.read(content["tasks"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error

"""Weights & Biases, offline unless asked otherwise: ``wandb sync`` uploads what was written."""

import pathlib
import uuid
from typing import Any

from mtl_jax import files, paths
from mtl_jax.training.writers.base import missing, numbers_of

FILE = "wandb.json"


class WeightsAndBiases:
    """Logs to a run of wandb, in ``workdir/wandb`` by default; a resumed run goes on in the same one (wandb.json).

    Numbers are shown over ``step``. After a resume, records since the checkpoint are logged again at their steps.

    Args:
      project: of wandb.
      mode: "offline", or "online" where you are logged in.
      name: of the run there; by default the workdir's.
      folder: where to, if not in the workdir.

    Raises:
      ImportError: without wandb, naming the extra.
    """

    def __init__(
        self, project: str = "mtl_jax", mode: str = "offline", name: str | None = None,
        folder: str | pathlib.Path | None = None,
    ):  # fmt: skip
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb", "wandb", error) from error
        self._wandb, self._id = wandb, uuid.uuid4().hex[:12]
        self._run: Any = None
        self.project, self.mode, self.name = project, mode, name
        self.workdir: pathlib.Path | None = None
        self.folder = None if folder is None else paths.local_folder(folder, "the folder of writer 'wandb'")

    def at(self, workdir: pathlib.Path | None) -> None:
        """Where to write by default."""
        if self.folder is None and workdir is None:
            raise ValueError("writer 'wandb' needs a place: a workdir, or wandb(folder='runs/wandb')")
        self.workdir, self.folder = workdir, self.folder or workdir
        self.name = self.name or (workdir.name if workdir is not None else None)

    def begin(self, run: Any, step: int) -> None:
        """Opens the run, with the config."""
        path = None if self.workdir is None else self.workdir / FILE
        if path is not None and step and path.exists():
            self._id = files.read_object(path, {"id": str})["id"]
        assert self.folder is not None  # `at` has said where
        self.folder.mkdir(parents=True, exist_ok=True)
        if path is not None:
            files.write_json(path, {"id": self._id})
        self._run = self._wandb.init(
            project=self.project, name=self.name, mode=self.mode, dir=str(self.folder), id=self._id, resume="allow",
            config=run.config,
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, record: dict) -> None:
        """All numbers of a record at once."""
        self._run.log({"step": record["step"], **numbers_of(record)})

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()

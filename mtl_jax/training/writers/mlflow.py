"""MLflow: parameters and metrics of a run of its tracking store."""

import pathlib
import time
from typing import Any

from mtl_jax import files
from mtl_jax.training.records import flat_config
from mtl_jax.training.writers.base import missing, numbers_of

FILE = "mlflow.json"
LONGEST = 500  # characters that any store takes of a parameter


class MLflow:
    """Logs to a run of MLflow; a resumed run goes on in the same one (mlflow.json in the workdir).

    Args:
      experiment: its name, which is made if need be.
      tracking_uri: of the store; by default what MLflow has (MLFLOW_TRACKING_URI).
      name: of the run there; by default the workdir's.

    Raises:
      ImportError: without mlflow, naming the extra.
    """

    def __init__(self, experiment: str = "mtl_jax", tracking_uri: str | None = None, name: str | None = None):
        try:
            import mlflow
        except ImportError as error:
            raise missing("mlflow", "mlflow", error) from error
        self._mlflow, self._client = mlflow, mlflow.MlflowClient(tracking_uri=tracking_uri)
        self._id: str | None = None
        self.experiment, self.name = experiment, name
        self.workdir: pathlib.Path | None = None

    def at(self, workdir: pathlib.Path | None) -> None:
        """Where the run's number is kept, and its name by default."""
        self.workdir, self.name = workdir, self.name or (workdir.name if workdir is not None else None)

    def begin(self, run: Any, step: int) -> None:
        """Opens the run, or the one that was begun."""
        path = None if self.workdir is None else self.workdir / FILE
        if self._id is None and path is not None and step and path.exists():
            self._id = files.read_object(path, {"run_id": str})["run_id"]
        if self._id is not None:
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(self.experiment)
        place = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(place, run_name=self.name).info.run_id
        if path is not None:
            files.write_json(path, {"run_id": self._id})
        for key, value in flat_config(run.config or {}).items():
            self._client.log_param(self._id, key, str(value)[:LONGEST])

    def write(self, record: dict) -> None:
        """All numbers of a record at once."""
        now = round(1000 * time.time())
        entries = [
            self._mlflow.entities.Metric(name, value, now, record["step"]) for name, value in numbers_of(record).items()
        ]
        self._client.log_batch(self._id, metrics=entries)

    def close(self) -> None:
        """Ends the run there."""
        self._client.set_terminated(self._id)

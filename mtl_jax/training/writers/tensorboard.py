"""TensorBoard, by tensorboardX: event files that ``tensorboard --logdir`` shows."""

import pathlib
from typing import Any

from mtl_jax import paths
from mtl_jax.training.writers.base import missing, numbers_of


class TensorBoard:
    """Writes ``workdir/tensorboard``, or another folder. After a resume, points of later steps are dropped.

    Args:
      folder: where to, if not in the workdir.

    Raises:
      ImportError: without tensorboardX, naming the extra.
    """

    def __init__(self, folder: str | pathlib.Path | None = None):
        try:
            import tensorboardX
        except ImportError as error:
            raise missing("tensorboardX", "tensorboard", error) from error
        self._make = tensorboardX.SummaryWriter
        self._events: Any = None
        self.folder = None if folder is None else paths.local_folder(folder, "the folder of writer 'tensorboard'")

    def at(self, workdir: pathlib.Path | None) -> None:
        """Where to write by default."""
        if self.folder is None:
            if workdir is None:
                raise ValueError("writer 'tensorboard' needs a place: a workdir, or tensorboard(folder='runs/events')")
            self.folder = workdir / "tensorboard"

    def begin(self, run: Any, step: int) -> None:
        """Opens an event file."""
        self._events = self._make(str(self.folder), purge_step=step + 1 if step else None)

    def write(self, record: dict) -> None:
        """A scalar for every number."""
        for name, value in numbers_of(record).items():
            self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Everything is on disk then."""
        self._events.close()

"""A trained model and what inference needs of it: predict, evaluate, save and load."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from mtl_jax import parts, paths
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.tables import serving
from mtl_jax.inputs import warn_of_nonfinite
from mtl_jax.model import MultiTaskModel
from mtl_jax.predictions import prediction
from mtl_jax.reporting import many
from mtl_jax.scaler import centred, origin_of
from mtl_jax.tasks import Missing, Task
from mtl_jax.training import fallback as fallbacks
from mtl_jax.training import saved_folder
from mtl_jax.training.arguments import check_is_split, check_no_name, check_run, read_labels
from mtl_jax.training.chunks import batch_pieces, row_pieces
from mtl_jax.training.compiled import Compiled
from mtl_jax.training.evaluation import make_measure, warn_of_losses
from mtl_jax.uncertainty import of_run
from mtl_jax.uncertainty.calibration import Calibration, regions, softened


@dataclasses.dataclass
class Run(Compiled):
    """What `fit` returns and `load_run` brings back.

    Attributes:
      model, tasks: the model, and its tasks with scalers and class names.
      variables: the best on validation; with a leading axis if there are members.
      history: a dict per record: step, split, losses, metrics, weights, norms, conflict.
      example: two rows, whose shapes the model is initialised from.
      data: the call that loads the data set again, or None.
      members: how many runs were trained side by side; None for a plain run.
      config: what identifies the run, as its caller gave it.
      identity: all that the result rests on (`training.identity`).
      state: the training state after the last step; None in a loaded run.
      best: scores and steps of what was selected; None in a loaded run.
      trainable: paths that trained.
      interrupted: the signal that ended it early, in the run of an `Interrupted`.
      resumed_from: the step that it was resumed from.
      cost: compile seconds and peak bytes of a dispatch.
      seconds: wall time of `fit`.
      engine: how per-task gradients were pulled, and why.
      without_say: {task: why its validation labels had no part in choosing the variables}, see `selection`.
      columns: of a run on a table, how its columns are encoded (`tables.Encoding`).
      calibration: what held-out labels say of its predictions, where `calibrate` was called.
      fallback: which tasks predict a constant, or are moved toward it, where `fit` was asked for it
        (`training.fallback`); ``dataclasses.replace(run, fallback=None)`` predicts with the model alone.
      changes: what was changed by hand while it trained (`training.changes`).
    """

    model: MultiTaskModel
    tasks: tuple[Task, ...]
    variables: dict[str, Any]
    history: list[dict]
    example: Batch
    data: str | None = None
    members: int | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: Any = None
    best: Any = None
    trainable: frozenset[str] = frozenset()
    interrupted: str | None = None
    resumed_from: int | None = None
    cost: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    engine: str = ""
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)
    without_say: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: Any = None
    calibration: Calibration | None = None
    fallback: fallbacks.Fallback | None = None
    changes: list[dict] = dataclasses.field(default_factory=list)
    _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Run(tasks={many.listed([t.name for t in self.tasks])}, steps={self.steps}, members={self.members})"

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self.history[-1]["step"] if self.history else 0

    @property
    def params(self) -> Any:
        """The partitioned parameters."""
        return self.variables["params"]

    def member(self, index: int) -> "Run":
        """One of several runs that were trained side by side."""
        if self.members is None or not 0 <= index < self.members:
            raise IndexError(f"there is no member {index} in a run with members={self.members}")
        take = jax.tree.map(lambda x: x[index], (self.variables, self.state, self.best))
        of_it = None if self.fallback is None else self.fallback.member(index)
        return dataclasses.replace(self, variables=take[0], state=take[1], best=take[2], members=None, fallback=of_it,
                                   _compiled={})  # fmt: skip

    def predict(self, inputs: Any, batch_size: int = 1024) -> dict[str, np.ndarray]:
        """{task: probabilities, or values in the target's units} of every row.

        Probabilities of a calibrated run are at its temperatures.

        Args:
          inputs: as in training: an array [N, ...], a dict of arrays, or `PerTask`. Of a run on a table also a path, a
            data frame, {column: values} or a list of {column: value}, with columns in any order.
          batch_size: rows per compiled call at most; the last rows are filled up to a power of two, so that few
            programs are compiled however many rows come.

        Returns:
          Arrays [N, ...]; with members [members, N, ...].

        Raises:
          ValueError: if rows are not of the shape that the model was trained on, or hold what it cannot read: text,
            nan, inf, a code or token beyond those of its encoder.
        """
        parts.check_whole("batch_size", batch_size)
        inputs = self._read(serving.inputs_for(self.columns, inputs, self.example.inputs))
        layout = self._layout(self.example)
        if "predict" not in self._compiled:

            def predict(variables: Any, batch: Batch) -> dict[str, jax.Array]:
                return layout.each(prediction, self._outputs(layout, variables, batch))

            self._compiled["predict"] = jax.jit(jax.vmap(predict, (0, None)) if self.members else predict)
        rows_axis = 1 if self.members else 0
        # To the host one by one, so that a device holds one piece whatever the number of rows.
        variables = self._predicts_with(layout)
        found = [
            layout.unstack(jax.device_get(self._compiled["predict"](variables, layout.stack_batch(piece))), rows_axis)
            for piece in (Batch(x, {}, {}) for x in row_pieces(inputs, batch_size))
        ]
        joined = {t.name: np.concatenate([f[t.name] for f in found], rows_axis) for t in self.tasks}
        rows = {
            t.name: len(jax.tree.leaves(inputs[t.name] if isinstance(inputs, PerTask) else inputs)[0])
            for t in self.tasks
        }
        found = {n: v[:, : rows[n]] if self.members else v[: rows[n]] for n, v in joined.items()}
        warn_of_nonfinite(found, rows_axis)
        if self.calibration is not None:
            found = softened(self.calibration, self.tasks, found)
        return found | {t.name: found[t.name] + o for t in self.tasks if (o := origin_of(t)) is not None}

    def calibrate(self, split: Any, batch_size: int = 1024) -> "Run":
        """The same run, calibrated: `predict` gives probabilities at their temperature, `intervals` what they promise.

        Args:
          split: held-out rows with labels, such as data.val; what `evaluate` takes.
          batch_size: of `predict`.

        Raises:
          ValueError: for what is no split, a split without labels, or several members.

        A UserWarning says where the rows are those that the run was trained on.
        """
        if self.members:
            raise ValueError(f"this run has {self.members} members; calibrate one: run.member(i).calibrate(...)")
        check_no_name(split)
        of_run.warn_of_training_file(self.columns, split)
        split = serving.split_for(self.columns, split, self.tasks)
        check_is_split(split)
        of_run.warn_of_training_rows(self.identity, split)
        split = in_order_of(self.tasks, split, getattr(split, "tasks", ()), "the split")
        plain = dataclasses.replace(self, calibration=None)
        made = of_run.make(self.tasks, plain.predict(split.inputs, batch_size), split)
        return dataclasses.replace(self, calibration=made)

    def intervals(self, inputs: Any, coverage: float = 0.9, batch_size: int = 1024) -> dict[str, Any]:
        """{task: where its label lies with probability `coverage`}, by split-conformal prediction.

        Args:
          inputs, batch_size: as `predict` takes them.
          coverage: the share of labels of rows like the held-out ones that lie inside.

        Returns:
          `uncertainty.Interval` (low, high) for numbers; bool [N, size] for classes, [N, 2] for binary and [N, size, 2]
          for multilabel tasks: which classes are in. Tasks of other kinds are left out.

        Raises:
          ValueError: for a run that is not calibrated, or a coverage outside (0, 1).
        """
        if self.calibration is None:
            raise ValueError("the run is not calibrated; run = run.calibrate(data.val) makes it so")
        return regions(self.calibration, self.tasks, self.predict(inputs, batch_size), coverage)

    def evaluate(self, split: Any, batch_size: int = 256) -> dict[str, dict[str, Any]]:
        """{task: {"loss" and each metric: value}} on a split, its rows by their weights; lists with members.

        Labels of a data set's split are matched by class name; of a `Batch`, class numbers are those of the run. A loss
        or metric that is a Python function is left out of a loaded run that it was not given back to. Losses and
        metrics are those of the outputs, without a calibration's temperatures. Of a run on a table, `split` may be a
        path or a data frame with the target columns: then it is on all its rows, encoded as in training, with classes
        by name.

        Raises:
          ValueError: for what is no split, a class that the run does not know, labels that do not fit, or inputs that
            the model cannot read (`predict`).
        """
        check_no_name(split)
        split = serving.split_for(self.columns, split, self.tasks)
        check_is_split(split)
        parts.check_whole("batch_size", batch_size)
        split = centred(self.tasks, in_order_of(self.tasks, split, getattr(split, "tasks", ()), "the split"))
        split = read_labels(self.tasks, split)
        chosen = split._replace(inputs=self._read(split.inputs))
        layout = self._layout(chosen)
        if ("evaluate", layout) not in self._compiled:
            outputs = functools.partial(self._outputs, layout)
            made = make_measure(outputs, layout, self.members is not None, in_pieces=True)
            self._compiled["evaluate", layout] = made
        pieces = (layout.stack_batch(piece, axis=1) for piece in batch_pieces(chosen, batch_size))
        losses, metrics = self._compiled["evaluate", layout](self._predicts_with(layout), pieces)
        losses = np.asarray(losses)
        warn_of_losses(self.tasks, losses, split.masks)
        return {
            t.name: ({} if isinstance(t.loss, Missing) else {"loss": _number(losses[..., i])})
            | {m: _number(v) for m, v in metrics[t.name].items()}
            for i, t in enumerate(self.tasks)
        }

    def save(self, directory: str | pathlib.Path) -> None:
        """Writes what `load_run` needs: config, description, records and a checkpoint of the variables.

        A run that was saved there before is replaced once this one is whole; a link is followed. Nothing that `save`
        did not write is removed.

        Raises:
          FileExistsError: if the directory is the workdir of a `fit`, or holds something that is no saved run, or more.
          ValueError: for a URL, or several members.
        """
        if self.members:
            raise ValueError(f"this run has {self.members} members; save one with run.member(i).save(...)")
        with saved_folder.replaced(paths.local_folder(directory, "the folder to save to")) as draft:
            saved_folder.fill(draft, self)


def _number(value: Any) -> Any:
    value = np.asarray(value)
    return value.tolist() if value.ndim else float(value)


def evaluate(run: Run, split: Any, batch_size: int = 256) -> dict[str, dict[str, Any]]:
    """{task: {"loss" and each metric: value}} of a run on a split."""
    check_run(run)
    return run.evaluate(split, batch_size)

"""A trained model and what inference needs of it: predict, evaluate, save and load."""

import dataclasses
import functools
import operator
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import encoders, files, parts, paths, sharing
from mtl_jax.alike import labels_key, layout_of
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.tables import serving
from mtl_jax.data.tables.stored import read as read_columns
from mtl_jax.encoders.base import check_inputs
from mtl_jax.inputs import in_form_of, place, read_inputs, warn_of_nonfinite
from mtl_jax.model import MultiTaskModel
from mtl_jax.reporting import many
from mtl_jax.scaler import centred, origin_of
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Missing, Task, prediction
from mtl_jax.training import description, identity, own_functions, records, saved_folder
from mtl_jax.training import fallback as fallbacks
from mtl_jax.training.arguments import check_is_split, check_no_name, check_run, read_labels
from mtl_jax.training.chunks import batch_pieces, row_pieces
from mtl_jax.training.evaluation import make_measure
from mtl_jax.uncertainty import of_run
from mtl_jax.uncertainty.calibration import Calibration, regions, softened


@dataclasses.dataclass
class Run:
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

    def _outputs(self, layout: Layout, variables: Any, batch: Batch) -> dict[str, Any]:
        """What every prediction, loss and metric is of, stacked; `variables` are `_predicts_with`."""
        return fallbacks.stood_in(layout, forward(self.model, layout, variables[0], batch)[0], variables[1])

    def _predicts_with(self, layout: Layout) -> tuple[Any, Any]:
        """(the stacked variables, `Fallback.stand_ins`)."""
        variables = self._stacked(layout)
        return variables, {} if self.fallback is None else self.fallback.stand_ins(layout, self.members is not None)

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

    def _layout(self, rows: Batch) -> Layout:
        """How tasks lie when they predict on rows of this form; one object for all forms with the same groups."""
        form = tuple(labels_key(rows, t.name) for t in self.tasks)
        if ("form", form) not in self._compiled:
            layout = layout_of(self.model, self.tasks, self.variables, self.example, also=(rows,))
            groups = tuple(layout.groups.values())
            self._compiled["form", form] = self._compiled.setdefault(("groups", groups), layout)
        return self._compiled["form", form]

    def _stacked(self, layout: Layout) -> Any:
        """The variables as tasks lie; a leaf that was exchanged since, or may have been written to, is seen."""
        leaves, form = jax.tree.flatten(self.variables)
        held = self._compiled.get(("stacked", layout))
        fixed = held is not None and held[0] == form and all(map(operator.is_, held[1], leaves))
        if not fixed or any(isinstance(x, np.ndarray) and x.flags.writeable for x in leaves):
            held = form, leaves, layout.stack_variables(self.variables, 1 if self.members else 0)
            self._compiled["stacked", layout] = held
        return held[2]

    def _read(self, inputs: Any) -> Any:
        """Inputs as arrays of the form that the model was trained on, or an error that says what is wrong with them."""
        inputs = in_form_of(self.example.inputs, read_inputs(inputs))
        if self.model.encoder is not None:
            check_inputs(self.model.encoder, inputs, place())
        return inputs

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
        names = [t.name for t in self.tasks]
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
        broken = {
            n: f"the loss of task {n!r} on this split is {losses[..., i].tolist()}; its predictions, or the "
            "parameters, are not finite"
            for i, (n, task) in enumerate(zip(names, self.tasks, strict=True))
            if not isinstance(task.loss, Missing) and split.masks[n].any() and not np.isfinite(losses[..., i]).all()
        }
        many.warn_of(broken, self.tasks, stacklevel=2)
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
        from mtl_jax.checkpoint import Checkpoints

        if self.members:
            raise ValueError(f"this run has {self.members} members; save one with run.member(i).save(...)")
        with saved_folder.replaced(paths.local_folder(directory, "the folder to save to")) as draft:
            files.write_json(draft / "config.json", self.config)
            description.write_description(draft, self)
            for record in self.history:
                records.append(draft / "metrics.jsonl", record)
            of_run.write(draft, self.calibration, self.variables)
            fallbacks.write(draft, self.fallback, self.variables)
            with Checkpoints(draft / "checkpoints") as checkpoints:
                checkpoints.save(self.steps, {"best": self.variables})


def _number(value: Any) -> Any:
    value = np.asarray(value)
    return value.tolist() if value.ndim else float(value)


def evaluate(run: Run, split: Any, batch_size: int = 256) -> dict[str, dict[str, Any]]:
    """{task: {"loss" and each metric: value}} of a run on a split."""
    check_run(run)
    return run.evaluate(split, batch_size)


def load_run(
    directory: str | pathlib.Path, model: MultiTaskModel | None = None, tasks: Sequence[Task] | None = None
) -> Run:
    """A run that was saved, or the newest checkpoint of a working directory, ready to predict and to adapt.

    Args:
      directory: from `Run.save`, or a `fit` with a workdir.
      model: needed only where the model was made of parts that cannot be written as text.
      tasks: give losses and metrics back that are Python functions; a warning says where one is missing.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if the checkpoint does not fit the model, listing the paths.
    """
    from mtl_jax.checkpoint import Checkpoints

    directory = paths.local_folder(directory, "the folder of a run")
    if not (directory / "data.json").exists():
        raise FileNotFoundError(f"{directory} holds no run: there is no {directory / 'data.json'}")
    content = description.read_description(directory)
    tasks = own_functions.give_back(content["tasks"], tasks)
    if model is None:
        if content["encoder"] is None or content["sharing"] is None:
            raise ValueError(f"the model of {directory} was not made of named parts; call load_run(..., model=model)")
        model = sharing.build(content["sharing"], encoders.build(content["encoder"]), tasks)
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
               fallback=fallbacks.read(directory, tasks, variables, asked))  # fmt: skip


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

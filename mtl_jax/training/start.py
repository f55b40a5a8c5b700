"""What a fit starts from: tasks with their scalers, first variables, and what transfer brings along."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax import callers, partition, parts, sharing
from mtl_jax.alike import before_variables
from mtl_jax.batch import Batch
from mtl_jax.class_weights import balanced
from mtl_jax.data.classes import in_order_of
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.data.tokenizing import check_vocabulary
from mtl_jax.model import MultiTaskModel
from mtl_jax.reporting import many
from mtl_jax.scaler import Scaler
from mtl_jax.tasks import Missing, Task
from mtl_jax.training.optimizers import build_optimizer


class Adapted(NamedTuple):
    """A model with variables brought from another run.

    Attributes:
      model: on the new tasks.
      variables: {"params": {path: array}, "state": {path: array}} to start from; the rest is initialised afresh.
      freeze: rules for what stays as it is.
      report: which paths were loaded, initialised afresh and left behind.
      members: length of the leading axis of `variables`, if they come from several runs; else 0.
      carried: the tasks whose heads came along: their classes and scalers are the heads' own.
      source: the run that the variables come from, in words.
      columns: how the columns of the source run's table were encoded; None if it was none.
      method: the fine-tuning method (`transfer.methods`); None for none.
      factors: the method's rules of factors on the learning rate.
      asked: what `adapt` was given as `freeze`; `freeze` has the method's rules, too.
      tokenizer: a digest of the one that the source was trained with; None if it is not known.
    """

    model: MultiTaskModel
    variables: dict[str, dict[str, Any]]
    freeze: Any
    report: dict[str, list[str]]
    members: int = 0
    carried: tuple[str, ...] = ()
    source: str = ""
    columns: Any = None
    method: Any = None
    factors: partition.Rules = ()
    asked: Any = None
    tokenizer: str | None = None

    def defaults(self, optimizer: Any, factors: partition.Rules, freeze: Any) -> tuple[Any, partition.Rules]:
        """(optimizer, factors on its rate): those that are given, and for what is not the method's.

        Raises:
          ValueError: for a method that one fit cannot run.
        """
        both = self.method is None and freeze is not None and self.freeze is not None
        if both and partition.freeze_rules(freeze) != partition.freeze_rules(self.freeze):
            raise ValueError(f"freeze={freeze!r} here, and adapt was given freeze={self.freeze!r}: say in one place "
                             "what is frozen")  # fmt: skip
        if self.method is None:
            return optimizer, factors
        if freeze is not None:
            raise ValueError(f"freeze={freeze!r} beside method {self.method.name!r}: give it to `adapt`, so that the "
                             "method's own rules come after it")  # fmt: skip
        if self.method.stages is not None or self.method.solve is not None:
            how = "in several stages" if self.method.solve is None else "in closed form"
            raise ValueError(
                f"method {self.method.name!r} trains {how}: give it to mtl.transfer.fine_tune(adapted, data)"
            )
        if optimizer is None:
            optimizer = parts.call(self.method.optimizer, {"learning_rate": self.method.learning_rate})
        if self.method.wraps is not None:
            optimizer = build_optimizer(optimizer) if isinstance(optimizer, str) else optimizer
            optimizer = self.method.wraps(optimizer)
        return optimizer, tuple(factors) or self.factors

    def check_vocabulary(self, data: Dataset) -> None:
        """An error for a data set whose token ids are not those that the source was trained on."""
        if self.tokenizer is not None:
            check_vocabulary(self.tokenizer, data.vocabulary, self.source)

    def member(self, index: int) -> dict[str, dict[str, Any]]:
        """The variables of one of several runs."""
        return jax.tree.map(lambda x: x[index], self.variables) if self.members else self.variables


def resolve_model(
    model: MultiTaskModel, data: Dataset, carried: Sequence[str] = ()
) -> tuple[MultiTaskModel, tuple[Task, ...], Dataset]:
    """(the model, its tasks with classes and scalers, the data with these tasks and class numbers), ready to train.

    Labels are matched by class name. Scalers are those of the data, but for the tasks in `carried`, whose heads were
    trained with theirs. Balanced class weights are counted.

    Raises:
      ValueError: for a task that the data set lacks, or whose kind, size or classes differ there.
    """
    tasks = resolve_tasks(model.tasks, data, carried)
    selected = data.select([t.name for t in tasks])
    if any(a.scaler not in (None, b.scaler) for a, b in zip(model.tasks, tasks, strict=True)):
        # What a head hands on to others may be read in the scaler's units.
        if model.encoder is not None and model.spec is not None:
            model = sharing.build(model.spec, model.encoder, tasks)
    splits: dict[str, Any] = numbered(tasks, selected)
    tasks = tuple(balanced(t, splits["train"]) for t in tasks)
    return model, tasks, dataclasses.replace(selected, tasks=tasks, **splits)


def numbered(tasks: Sequence[Task], data: Dataset) -> dict[str, Batch]:
    """{split: the data set's, with class numbers as the tasks have them}."""
    return {
        k: in_order_of(tasks, s, data.tasks, f"{k} of data set {data.name!r}")
        for k in SPLITS
        if (s := getattr(data, k)) is not None
    }


def resolve_tasks(tasks: Sequence[Task], data: Dataset, carried: Sequence[str] = ()) -> tuple[Task, ...]:
    """The model's tasks, with the scalers and, where they have none of their own, the classes of the data set.

    Raises:
      ValueError: for a task that the data set lacks, or whose kind, size or classes differ there.
    """
    of_data = {t.name: t for t in data.tasks}
    resolved, unlike = [], {}
    for task in tasks:
        if task.name not in of_data:
            raise parts.unknown(f"task of data set {data.name!r}", task.name, of_data)
        other = of_data[task.name]
        known = bool(other.classes) and set(other.classes) <= set(task.classes)
        if task.kind != other.kind or (task.size != other.size and not known):
            raise ValueError(
                f"task {task.name!r} is {task.kind} of size {task.size} in the model, "
                f"but {other.kind} of size {other.size} in data set {data.name!r}"
            )
        if task.classes and other.classes and not known:
            raise ValueError(
                f"task {task.name!r} has the classes {', '.join(task.classes)} in the model, but "
                f"{', '.join(other.classes)} in data set {data.name!r}; make the model on data.tasks"
            )
        loss = other.loss if isinstance(task.loss, Missing) and other.loss is not None else task.loss
        if isinstance(loss, Missing):
            raise ValueError(
                f"task {task.name!r} was loaded without its loss, the Python function {loss.function}; give it back: "
                f"load_run(..., tasks=[Task({task.name!r}, {task.kind!r}, loss=...)])"
            )
        if said := unlike_scalers(task, other, data.name, task.name in carried):
            unlike[task.name] = said
        scaler = chosen_scaler(task, other, task.name in carried)
        resolved.append(dataclasses.replace(task, scaler=scaler, classes=task.classes or other.classes, loss=loss))
    many.warn_of(unlike, tasks, stacklevel=callers.outside())
    return tuple(resolved)


def chosen_scaler(task: Task, other: Task, carried: bool) -> Scaler | None:
    """The scaler of the data, or of the head that came along: one without speaks in own units."""
    return task.scaler if carried else other.scaler or task.scaler


def unlike_scalers(task: Task, other: Task, name: str, carried: bool) -> str | None:
    """What to say where the scalers of the model and of the data set are far from each other."""
    if task.scaler is None or other.scaler is None or not far_apart(task.scaler, other.scaler):
        return None
    whose, why = "data set's", "a scaler of your own goes into the data set's task"
    if carried:
        whose, why = "model's", "its head was trained with it; leave the head out of `load` for a new one"
    return (
        f"task {task.name!r}: the model's scaler ({_shown(task.scaler)}) is far from that of data set {name!r} "
        f"({_shown(other.scaler)}). The {whose} is used: {why}"
    )


def far_apart(one: Scaler, other: Scaler) -> bool:
    """Whether means are more than two standard deviations apart in any dimension, or deviations four-fold."""
    stds = np.asarray(one.std), np.asarray(other.std)
    least = np.maximum(np.minimum(*stds), np.finfo(np.float32).tiny)
    shift = np.abs(np.subtract(one.mean, other.mean)) / least
    return bool((shift > 2).any() or (np.maximum(*stds) / least > 4).any())


def _shown(scaler: Scaler) -> str:
    mean, std = (", ".join([*(f"{v:.4g}" for v in x[:3]), *["..."] * (len(x) > 3)]) for x in (scaler.mean, scaler.std))
    return f"mean {mean}, std {std}"


def small_batch(split: Batch, rows: int = 2) -> Batch:
    """The first rows of a split, to learn shapes from."""
    return Batch(*jax.tree.map(lambda x: np.asarray(x[:rows]), split))


class Initial(NamedTuple):
    """How a model's first variables are made.

    Attributes:
      make: (key, given) -> the variables, maybe stacked.
      named: (variables, whether a leading axis of members is before) -> the same with an entry per task, on the host
        where they lay stacked.
      shapes: of the variables of one member, with an entry per task.
    """

    make: Callable
    named: Callable
    shapes: Any


def initial(model: MultiTaskModel, example: Batch, given: dict[str, Any]) -> Initial:
    """`initial_variables`, of alike tasks at once where the model can tell (`MultiTaskModel.start`)."""

    def one_by_one(key: jax.Array, given: Any) -> Any:
        return initial_variables(model, example, key, given)

    def shapes_of(make: Callable) -> Any:
        return jax.eval_shape(lambda key: make(key, given), jax.random.key(0))

    begin = model.start
    if model.alike is not None and begin is not None and not given:
        layout = before_variables(model, model.tasks, example)

        def at_once(key: jax.Array, given: Any) -> Any:
            del given
            return begin(key, example, layout)

        stacked = shapes_of(at_once)

        def of_each(tasks: dict[str, Any]) -> dict[str, Any]:
            one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tasks)
            return {n: one[first] for first in tasks for n in layout.groups[first]}

        shapes = {kind: {**tree, "tasks": of_each(tree["tasks"])} for kind, tree in stacked.items()}
        return Initial(at_once, lambda v, m: layout.unstack_variables(jax.device_get(v), int(m)), shapes)
    return Initial(one_by_one, lambda variables, _: variables, shapes_of(one_by_one))


def initial_variables(model: MultiTaskModel, example: Batch, key: jax.Array, given: dict[str, Any]) -> Any:
    """The model's initial variables with those of `given` ({"params", "state"}: {path: array}) in their place."""
    variables = model.init(key, example)
    return {
        kind: partition.unflatten(given.get(kind, {}), variables[kind]) if kind in given else variables[kind]
        for kind in variables
    }

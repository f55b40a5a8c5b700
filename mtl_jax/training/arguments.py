"""What `fit`, `describe` and `evaluate` were given, and what was meant: the usual mistakes, each said in one line."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from mtl_jax import balancing, callers, encoders, partition, parts
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.given import given_method
from mtl_jax.batch import Batch, map_weights, num_rows
from mtl_jax.data.checks import check_split
from mtl_jax.data.dataset import SPLITS, Dataset
from mtl_jax.encoders.base import check_inputs
from mtl_jax.encoders.sequences import shown
from mtl_jax.gradients.linearization import JointLoss
from mtl_jax.inputs import check_int32, place
from mtl_jax.model import MultiTaskModel
from mtl_jax.reporting.many import some
from mtl_jax.tasks import Task
from mtl_jax.training.scale import warn_of_scale
from mtl_jax.training.schedule import Schedule
from mtl_jax.training.start import Adapted

MODEL = "a model such as mtl.sharing.hard(encoder, data.tasks), or what mtl.transfer.adapt returned"
REPEATS = 4  # times that each row comes in one batch, beyond which it is waste
SMALL = 128  # rows of a batch that cost little, whatever the data
DATA = "a data set such as mtl.data.from_arrays(inputs, {task: labels})"


# What other libraries call it: {argument: how `fit` has it}.
ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "lr"), 'it is the optimizer\'s: optimizer="adam(learning_rate=0.001)"'),
    "weight_decay": 'it is the optimizer\'s: optimizer="adamw(learning_rate=0.001, weight_decay=0.01)"',
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "max_epochs"),
                    "fit counts steps: num_steps = epochs * rows / batch_size"),
    **dict.fromkeys(("steps", "max_steps", "iterations"), "it is num_steps"),
    "verbose": "it is progress",
}  # fmt: skip


def refuse_unknown(others: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """An error for an argument that `fit` does not have, with what it is called here."""
    for name in others:
        if name in ELSEWHERE:
            raise ValueError(f"fit has no argument {name!r}; {ELSEWHERE[name]}")
        raise parts.unknown("argument of fit", name, allowed)


def check_model(model: Any) -> None:
    """An error for what is no model."""
    if isinstance(model, encoders.Encoder):
        raise ValueError("model is an encoder; an architecture makes it a model: mtl.sharing.hard(encoder, data.tasks)")
    if isinstance(model, str):
        raise ValueError(f"model is the text {model!r}; build it: mtl.sharing.build({model!r}, encoder, data.tasks)")
    if isinstance(model, Dataset):
        raise ValueError("model is a data set; the model comes first, then the data")
    if hasattr(model, "encoder") and hasattr(model, "adapt"):
        raise ValueError("model is a pretrained one without tasks; model.adapt(data.tasks) makes what fit takes")
    if hasattr(model, "variables") and not isinstance(model, Adapted):
        raise ValueError(
            "model is a run; mtl.transfer.adapt(run, tasks) carries it to new tasks, run.model is its model"
        )
    if not isinstance(model, MultiTaskModel | Adapted):
        raise parts.no_such("model", model, MODEL)


def check_data(data: Any) -> None:
    """An error for what is no data set."""
    if isinstance(data, Batch):
        raise ValueError("data is one split; give the whole data set, whose splits are data.train, data.val, data.test")
    if isinstance(data, str):
        raise ValueError(f"data is the text {data!r}; load it: mtl.data.load({data!r})")
    if not isinstance(data, Dataset):
        raise parts.no_such("data", data, DATA)


def check_no_name(split: Any) -> None:
    """An error for the name of a split; a file that is called so stays what it is."""
    if isinstance(split, str) and split in SPLITS and not pathlib.Path(split).exists():
        raise ValueError(f"the split is the text {split!r}; give the split itself: data.{split}")


def check_is_split(split: Any) -> None:
    """An error for what is no split."""
    if split is None:
        raise ValueError("the split is None: the data set has none of that name; val= and test= say what is held out")
    if isinstance(split, Dataset):
        raise ValueError(f"the split is a data set, {split!r}; give one of its splits, such as data.test")
    if not isinstance(split, Batch):
        raise parts.no_such("the split", split, "a split such as data.test, or mtl.Batch(inputs, targets, masks)")


def check_run(run: Any) -> None:
    """An error for what is no run."""
    if not hasattr(run, "variables") or not hasattr(run, "tasks") or not hasattr(run, "predict"):
        raise parts.no_such("run", run, "what mtl.fit or mtl.load_run returned; it comes first")


def read_labels(tasks: Sequence[Task], split: Batch) -> Batch:
    """A split with labels and masks of these tasks alone, as arrays in the dtypes of their kinds, and checked.

    Raises:
      ValueError: for a task without labels or masks, and for labels that `data.checks` refuses.
    """
    missing = [t.name for t in tasks if t.name not in split.targets]
    if missing:
        raise ValueError(f"the split has no targets of task {missing[0]!r}; it has {some(list(split.targets))}")
    targets, masks = {}, {}
    for task in tasks:
        values = np.asarray(split.targets[task.name])
        if values.dtype.kind in "OSU":
            raise ValueError(f"task {task.name!r}: labels of the split are text; a data set turns classes into numbers")
        whole = task.of_kind.labels == "classes"
        if whole and values.dtype.kind in "iu":
            check_int32(values, f"task {task.name!r}: labels of the split", "classes are 0, 1, ...")
            values = values.astype(np.int32, copy=False)
        targets[task.name] = values if whole else values.astype(np.float32, copy=False)
        if task.name in split.masks:
            masks[task.name] = np.asarray(split.masks[task.name])
    names = {t.name for t in tasks}
    found = Batch(split.inputs, targets, masks, map_weights(lambda _, w: np.asarray(w), split.weights, names))
    check_split(tuple(tasks), found, "the split")
    return found


def check_readable(model: MultiTaskModel, data: Dataset) -> None:
    """An error for inputs or labels that the model cannot read, in any split; a warning for badly scaled inputs."""
    encoder = model.encoder
    for name in SPLITS:
        split = getattr(data, name)
        if split is not None and encoder is not None:
            check_inputs(encoder, split.inputs, place(name))
        if split is not None and model.check is not None:
            model.check(split, name)
    codes = encoder is not None and encoder.check is not None
    warn_of_scale(data.train.inputs, codes, place("train"), stacklevel=callers.outside() + 1)


def check_carried(adapted: Adapted, fresh: Any, data: Dataset) -> None:
    """An error for carried variables of other shapes than the model has on this data set's inputs (`fresh`)."""
    for kind, carried in adapted.variables.items():
        new = partition.flatten(fresh[kind])
        for path, leaf in carried.items():
            was = leaf.shape[1:] if adapted.members else leaf.shape
            if path in new and tuple(was) != tuple(new[path].shape):
                way = "from_csv(..., columns=run.columns) encodes a table as the run's was"
                raise ValueError(
                    f"the carried {path} has shape {tuple(was)}, and inputs of data set {data.name!r}, "
                    f"{shown(data.train.inputs)}, need {tuple(new[path].shape)}; give inputs of the form that the run "
                    f"was trained on" + (f": {way}" if adapted.columns is not None else "")
                )


def warn_of_repeated_rows(batch_size: int, train: Batch) -> None:
    """A warning for batches that hold each row many times, which cost as much and tell no more."""
    rows = num_rows(train)
    if batch_size > max(SMALL, REPEATS * rows):
        warnings.warn(f"batch_size={batch_size}, and train has {rows} rows: every step reads each of them about "
                      f"{batch_size // rows} times, which takes long and tells no more; batch_size={rows} reads all of "
                      "them once", UserWarning, stacklevel=callers.outside())  # fmt: skip


def read_seeds(seed: Any) -> tuple[int, ...]:
    """The seeds, one or several."""
    several = isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str) and np.ndim(seed) == 1
    seeds = tuple(seed) if several or isinstance(seed, range) else (seed,)
    if not seeds:
        raise ValueError("seed is empty; give a whole number, or several")
    for each in seeds:
        parts.check_seed(each)
    return tuple(int(s) for s in seeds)


def read_balancer(balancer: Any) -> Balancer:
    """The method, built where it is given as text; None is `balancing.equal`."""
    return balancing.equal() if balancer is None else given_method("balancer", balancer)


def check_numbers(**given: Any) -> None:
    """An error for a rate that is no finite number of at least 0."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
            raise ValueError(f"{name}={value!r} must be a number of at least 0")


def check_flag(name: str, value: Any) -> None:
    """An error for what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r} must be True or False")


def check_options(options: Any) -> None:
    """An error for options that would do something else than they say, or fail where nothing names them."""
    o = options
    parts.check_whole("batch_size", o.batch_size)
    check_flag("fallback", o.fallback)
    check_numbers(l1=o.l1, l2=o.l2, clip_norm=1.0 if o.clip_norm is None else o.clip_norm)
    if o.clip_norm == 0:
        raise ValueError("clip_norm=0 lets nothing move; give None for no bound")
    if o.patience is not None:
        parts.check_whole("patience", o.patience)
    if not isinstance(o.task_schedule, str | Schedule):
        wanted = 'a schedule of mtl.training.schedule, or its text, "joint"'
        raise parts.no_such("task_schedule", o.task_schedule, wanted)
    if isinstance(o.joint_losses, JointLoss) or not hasattr(o.joint_losses, "__iter__"):
        raise parts.no_such("joint_losses", o.joint_losses, "several, (mtl.JointLoss(name, function),)")
    for joint in o.joint_losses:
        if not isinstance(joint, JointLoss):
            raise parts.no_such("an entry of joint_losses", joint, "mtl.JointLoss(name, function)")
    if o.mesh is not None and not isinstance(o.mesh, jax.sharding.Mesh):
        raise parts.no_such("mesh", o.mesh, "a mesh of devices, such as mtl.parallel.make_mesh(2)")
    if o.config is not None and not isinstance(o.config, Mapping):
        raise parts.no_such("config", o.config, "a dict of what identifies the run")
    if o.train_step is not None:
        check_called("train_step", o.train_step, "that takes the step and returns another")
    for hook in read_several(o.hooks):
        check_called("a hook", hook, "of (record, job)")


def read_several(given: Any) -> tuple:
    """One or several, as a tuple; None is none."""
    return () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)


def check_called(what: str, given: Any, wanted: str) -> None:
    """An error for what cannot be called."""
    if not callable(given):
        raise ValueError(f"{what} is {given!r}; it must be a function {wanted}")


def check_optimizer(optimizer: Any) -> None:
    """An error for what is no optimizer."""
    if isinstance(optimizer, int | float):
        raise ValueError(f"optimizer={optimizer!r} is a number; a learning rate goes into optax.adam({optimizer!r})")
    if isinstance(optimizer, optax.GradientTransformation) or (
        hasattr(optimizer, "init") and hasattr(optimizer, "update") and not isinstance(optimizer, type)
    ):
        return
    raise parts.no_such("optimizer", optimizer, 'an optax optimizer such as optax.adam(1e-3), or its text, "adam"')

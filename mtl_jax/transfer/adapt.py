"""Carry a run's shared parameters to new tasks: frozen, or as the point to fine-tune from."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition, parts, sharing
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.reporting import many
from mtl_jax.tasks import Task
from mtl_jax.training.arguments import check_run
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.transfer.applying import apply, prepared
from mtl_jax.transfer.heads import fitting_heads, heads_carried


def adapt(
    run: Run,
    tasks: Sequence[Task] | Task,
    *,
    freeze: Any = None,
    load: partition.Rules = (("shared/.*", True),),
    model: MultiTaskModel | None = None,
    method: Any = None,
    old: Dataset | None = None,
) -> Adapted:
    """A model of the same make on `tasks`, to be given to `fit`, with parameters and statistics of `run`.

    A method that trains in several stages, or whose heads are solved for, goes to `fine_tune` instead of `fit`, which
    takes all others too and computes the features of a frozen trunk only once.

    Args:
      run: where the parameters come from; with members, each member hands on its own.
      tasks: the new tasks, or a single one; one with a name that `run` has may keep its head if `load` says so, and
        with it the order of the classes and the scaler that the head was trained with.
      freeze: regex, several, or (regex, trains) rules for what `fit` leaves as it is.
      load: ordered (regex, bool) rules over the new model's paths: which are taken from `run` if it has them.
      model: the new model, where it is of another make than the run's.
      method: a fine-tuning method (`transfer.methods`) or its text, such as "lora(rank=8)": it says what is added, what
        trains and how fast; rules of `freeze` go before its own. None: everything trains that `freeze` does not name.
      old: the data that `run` was trained on, for methods that ask for it ("ewc").

    Raises:
      ValueError: if a path to load has another shape in `run`, nothing can be loaded, or a rule matches nothing, or a
        head would come along for other classes than it was trained for.
    """
    check_run(run)
    tasks = (tasks,) if isinstance(tasks, Task) else tasks
    if model is None and not hasattr(tasks, "__iter__"):
        raise parts.no_such("tasks", tasks, "the new tasks, such as data.tasks")
    tasks, own = tuple(tasks if model is None else model.tasks), model
    spec, encoder = run.model.spec, run.model.encoder
    if model is None and (encoder is None or spec is None):
        raise ValueError("the run's model was not made of named parts; give adapt a model on the new tasks")
    method, kept = prepared(run, method, old)

    def made(tasks: tuple[Task, ...]) -> MultiTaskModel:
        if own is not None:
            return own._replace(tasks=tasks)
        assert spec is not None and encoder is not None  # asked for above
        return sharing.build(spec, encoder, tasks)

    built, example = made(tasks), Batch(inputs_for(tasks, run.example.inputs), {}, {})
    shapes = jax.eval_shape(lambda: built.init(jax.random.key(0), example))
    carried = heads_carried(run, tasks, list(partition.flatten(shapes["params"])), load)
    if (fitted := fitting_heads(run, tasks, carried)) != tasks:
        built = made(fitted)
        shapes = jax.eval_shape(lambda: built.init(jax.random.key(0), example))
    axis = 1 if run.members else 0
    given: dict[str, dict[str, Any]] = {}
    report: dict[str, list[str]] = {"loaded": [], "initialised": [], "left": []}
    reshaped = []
    for kind in ("params", "state"):
        new, old = partition.flatten(shapes[kind]), partition.flatten(run.variables[kind])
        # Statistics follow the parameters beside them; they need no rules of their own.
        wanted = (
            partition.match(load, list(new), False)
            if kind == "params"
            else {p: _follows(p, x, report["loaded"]) for p, x in new.items()}
        )
        given[kind] = {}
        for path, leaf in new.items():
            if not wanted[path] or path not in old:
                if kind == "params":
                    report["initialised"].append(path)
                continue
            if tuple(old[path].shape[axis:]) != tuple(leaf.shape):
                reshaped.append(f"{path} {tuple(old[path].shape[axis:])} -> {tuple(leaf.shape)}")
                continue
            given[kind][path] = np.asarray(old[path])
            if kind == "params":
                report["loaded"].append(path)
        if kind == "params":
            report["left"] = [p for p in old if p not in given[kind]]
    new = {p: x for p, x in partition.flatten(shapes["state"]).items() if p not in given["state"]}
    if pooled := pooled_statistics(new, partition.flatten(run.variables["state"]), report["loaded"], axis):
        given["state"] |= pooled
        report["pooled"] = list(pooled)
        who = many.listed(sorted({partition.owner(p) for p in pooled}))
        warnings.warn("this architecture keeps statistics of what is shared for each task by itself: new tasks "
                      f"{who} start from those of the run's tasks together", UserWarning, stacklevel=2)  # fmt: skip
    if reshaped:
        raise ValueError(f"the run's parameters do not fit the new model: reshaped {', '.join(reshaped)}")
    if not report["loaded"]:
        raise ValueError("nothing of the run was loaded: no path of the new model that `load` names is in the run")
    source = f"a run of {run.data or 'data of its own'}, {run.steps} steps"
    plain = Adapted(built, given, freeze, report, run.members or 0, carried, source, run.columns)
    return apply(plain, method, kept, example)


def inputs_for(tasks: Sequence[Task], example: Any) -> Any:
    """Example inputs of a run for other tasks: where each task had its own, a new one's have the first one's form."""
    if not isinstance(example, PerTask):
        return example
    first = example[next(iter(example))]
    return PerTask({t.name: example[t.name] if t.name in set(example) else first for t in tasks})


def pooled_statistics(new: dict[str, Any], old: dict[str, Any], loaded: list[str], axis: int) -> dict[str, np.ndarray]:
    """{path: statistics of the run's tasks together} for tasks that it lacks, of shared modules that were loaded.

    A mean is the mean over tasks, a variance that of the mixture: the mean of variances and the variance of means.

    Args:
      new: {path: shape} of the new model's state that nothing was found for.
      old: {path: array} of the run's.
      loaded: paths of the parameters that were loaded.
      axis: 1 where arrays have a leading axis of members, else 0.
    """
    found = {}
    for path, leaf in new.items():
        head, _, rest = path.partition("/")
        rest = rest.partition("/")[2]
        if head != "tasks" or not rest.startswith("shared/") or not _follows(path, leaf, loaded):
            continue
        beside = {p: np.asarray(x) for p, x in old.items() if p.startswith("tasks/") and p.split("/", 2)[2] == rest}
        if not beside or any(x.shape[axis:] != tuple(leaf.shape) for x in beside.values()):
            continue
        found[path] = np.mean(list(beside.values()), 0)
        if path.endswith("/var"):
            means = [np.asarray(old[p.removesuffix("var") + "mean"]) for p in beside]
            found[path] = (found[path] + np.var(means, 0)).astype(found[path].dtype)
    return found


def _follows(path: str, leaf: Any, loaded: list[str]) -> bool:
    """Whether parameters of the module that holds a statistic were loaded; of a mask that was drawn, any of its task's.

    Statistics that a task has of a shared module, ``tasks/<t>/shared/<place>``, follow that module.
    """
    if "/batch_stats/" in path:
        stage = re.sub(r"tasks/[^/]+/shared/", "shared/", path).split("/batch_stats/")[0]
        return any(p.startswith(stage + "/") for p in loaded)
    task = "/".join(path.split("/")[:2])
    return leaf.dtype == bool and any(p.startswith(f"{task}/") for p in loaded)

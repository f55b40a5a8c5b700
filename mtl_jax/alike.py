"""Which tasks are alike, and so run as one program: of equal kind, leaves, inputs and rules."""

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import losses, metrics, partition, parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.model import MultiTaskModel
from mtl_jax.stacked_model import branched
from mtl_jax.stacking import Layout, alone
from mtl_jax.tasks import Task


def layout_of(
    model: MultiTaskModel,
    tasks: Sequence[Task],
    variables: Any,
    batch: Batch,
    *,
    trainable: frozenset[str] | None = None,
    optimizer: Any = None,
    also: Sequence[Batch] = (),
) -> Layout:
    """How the tasks lie.

    Args:
      model: whose `alike` says what else tasks may differ in.
      tasks: the model's, with scalers.
      variables: by task name; arrays or their shapes.
      batch: by task name; of any number of rows, or only the inputs.
      trainable: paths of the leaves that train; None for all.
      optimizer: `optimizers.PerOwner`, which may treat paths differently; None if nothing is to be optimized.
      also: other batches that the tasks are to lie so in: only one of a split's tasks may have weights, for instance.
    """
    if (alike := model.alike) is None:
        return alone(tasks)
    factors = optimizer.factors if optimizer is not None else ()
    factor = partition.match(factors, list(partition.flatten(variables["params"])), 1.0) if factors else {}
    # A pass of a task's own reads what is shared under the task's name, which stands for no other task's.
    shared = partition.flatten(variables["params"]["shared"]) if branched(model, batch) else {}
    named = {part for path in shared for part in path.split("/")}

    def key(task: Task) -> Hashable:
        name, own = task.name, {}
        for kind in ("params", "state"):
            leaves = partition.flatten(variables[kind]["tasks"].get(name, {}))
            own[kind] = tuple((p, tuple(x.shape), jnp.dtype(x.dtype)) for p, x in leaves.items())
        paths = [f"tasks/{name}/{p}" for p, *_ in own["params"]]
        rules = tuple((trainable is None or p in trainable, factor.get(p, 1.0)) for p in paths)
        moving = [p for p in paths if trainable is None or p in trainable]
        moved = "" if optimizer is None or optimizer.optimizer is None else trace_of(optimizer.optimizer, moving)
        reads = (alike(name), name if name in named else None)
        forms = tuple(labels_key(b, name) for b in (batch, *also))
        return task_key(task), reads, own["params"], own["state"], rules, moved, forms

    return grouped(tasks, key)


def before_variables(model: MultiTaskModel, tasks: Sequence[Task], batch: Batch) -> Layout:
    """How tasks lie while they are initialised: what is of one form, but for rules, which do not matter yet."""
    alike = model.alike or (lambda name: name)
    return grouped(tasks, lambda t: (task_key(t), alike(t.name), labels_key(batch, t.name)))


def of_labels(tasks: Sequence[Task], batch: Batch) -> Layout:
    """How tasks lie where there is no model, but predictions of another kind: by the tasks and their labels alone."""
    labels = batch._replace(inputs=None)
    return grouped(tasks, lambda t: (task_key(t), labels_key(labels, t.name)))


def grouped(tasks: Sequence[Task], key: Callable[[Task], Hashable]) -> Layout:
    """The layout in which tasks of one key lie together."""
    found: dict[Hashable, list[str]] = {}
    for task in tasks:
        found.setdefault(key(task), []).append(task.name)
    return Layout(tuple(tasks), {names[0]: tuple(names) for names in found.values()})


def task_key(task: Task) -> Hashable:
    """What a task's loss, metrics and outputs depend on, besides the scaler's numbers."""
    scaler = None if task.scaler is None else len(task.scaler.mean)
    if task.scaler is not None and task.scaler.origin:
        scaler = task.scaler  # what is told the origin is made for it
    parts_of = (task.loss, task.metrics, task.head)
    told = task.classes if reads_classes(task) else ()
    key = (task.kind, task.size, *parts_of, task.quantiles, task.class_weights, scaler, told)
    try:
        hash(key)
    except TypeError:
        return task.name
    return key


def reads_classes(task: Task) -> bool:
    """Whether a loss or metric of the task is told the names of its classes."""
    kind = task.of_kind
    if kind.more_metrics and task.metrics is None:
        return True
    named: list[tuple[Any, Any]] = [(task.loss or kind.loss, losses.NAMES)]
    named += [(m, metrics.NAMES) for m in task.metrics or kind.metrics]
    return any(
        "classes" in inspect.signature(registry[parts.parse(part, "part")[0]]).parameters
        for part, registry in named
        if isinstance(part, str) and parts.parse(part, "part")[0] in registry
    )


def labels_key(batch: Batch, name: str) -> Hashable:
    """The form of a task's rows: of its labels, and of its own inputs."""

    def form(x: Any) -> Hashable:
        return None if x is None else (tuple(x.shape[1:]), str(jnp.dtype(x.dtype)))

    own = batch.inputs.get(name) if isinstance(batch.inputs, PerTask) else None
    inputs = tuple((p, form(x)) for p, x in partition.flatten(own).items()) if own is not None else ()
    return form(batch.targets.get(name)), form(batch.masks.get(name)), form((batch.weights or {}).get(name)), inputs


def trace_of(optimizer: Any, paths: Sequence[str]) -> str:
    """How an optimizer treats leaves at these paths, as the text of its program on scalars, and its constants."""
    leaves = dict.fromkeys(paths, jnp.zeros(()))

    def both(leaves: Any) -> Any:
        state = optimizer.init(leaves)
        return jax.tree.leaves(optimizer.update(leaves, state, leaves))

    if not paths:
        return ""
    program = jax.make_jaxpr(both)(leaves)
    return f"{program}{constants_of(program)}"


def constants_of(program: Any) -> list[tuple]:
    """The arrays that a program holds, which its text only names: a learning rate given as an array is one."""
    found = [(x.shape, str(x.dtype), x.tobytes()) for x in map(np.asarray, getattr(program, "consts", ()))]
    for equation in getattr(program, "jaxpr", program).eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                found += constants_of(inner)
    return found

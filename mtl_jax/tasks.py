"""What a task is: a kind (`kinds`) with its default loss, metrics and head, all replaceable."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import losses, metrics, parts
from mtl_jax.batch import Batch, aligned, labels_of
from mtl_jax.class_weights import class_factors, class_names, read_class_weights
from mtl_jax.kinds import KINDS, QUANTILES, Kind
from mtl_jax.members import Outputs, each
from mtl_jax.parallel import global_sum
from mtl_jax.scaler import Scaler, origin_of, own_units


@dataclasses.dataclass(frozen=True)
class Missing:
    """Stands in a loaded task where a loss or metric was a Python function, which a saved run cannot hold.

    Attributes:
      function: its name, ``module.name``.
      code: a digest of what it was (`training.contents.code_of`).
      part: "loss" or "metric".
    """

    function: str
    code: str
    part: str = "loss"

    def __call__(self, *args: Any) -> Any:
        raise ValueError(
            f"the {self.part} {self.function} is not saved with a run; give it back: load_run(..., tasks=[Task(..., "
            f"{'loss' if self.part == 'loss' else 'metrics'}=...)])"
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """One prediction problem.

    Attributes:
      name: unique in a model; names the task's branch of the parameter tree, so it holds no ``/`` and is not
        ``shared``.
      kind: one of `KINDS`.
      size: number of classes, tags or labels, or the length of a regression vector; None for binary, scalar regression
        and depth. Kinds with a size of their own (normals, box, quantile) fill it in. Of a ranking, the length of
        lists that all have the same items in the same order, for a head on vectors; else None.
      loss: text such as ``"huber(delta=0.5)"`` (see `losses.NAMES`), or a function (outputs, targets) -> loss per
        element; for ranking (outputs, targets, mask) -> loss per list. It runs under `vmap` where tasks are alike, so a
        ``lax.cond`` takes both ways there. None: the kind's default.
      metrics: names such as ``"top_k(k=3)"`` or `metrics.Metric` values; the first one is the task's headline.
      head: text such as ``"vector(hidden=(64,))"`` (see `heads.NAMES`); None: the kind's, a linear layer.
      classes: names of classes, tags or labels.
      scaler: fitted by the data loaders where targets are standardised; None means that they are used as they are.
      quantiles: levels in (0, 1), ascending, of the kind quantile.
      class_weights: what an element of each class weighs in the loss (see `mtl_jax.class_weights`): a number per class,
        {class: number} (1 for the others), or "balanced"; None: all alike. Metrics do not read it.
    """

    name: str
    kind: str
    size: int | None = None
    loss: str | Callable | None = None
    metrics: tuple[Any, ...] | None = None
    head: str | None = None
    classes: tuple[str, ...] = ()
    scaler: Scaler | None = None
    quantiles: tuple[float, ...] = ()
    class_weights: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "/" in self.name or not self.name.isprintable():
            raise ValueError(f"task name {self.name!r} must be text, not blank, and hold no '/' or control character")
        if self.name == "shared":
            raise ValueError("no task can be called 'shared': that is what tasks have in common; use another name")
        if not isinstance(self.kind, str):
            raise parts.no_such(f"kind of task {self.name!r}", self.kind, f"one of {', '.join(KINDS)}")
        if isinstance(self.metrics, str):
            raise ValueError(f"task {self.name!r}: metrics={self.metrics!r} is text; give several, ({self.metrics!r},)")
        if isinstance(self.classes, str):
            raise ValueError(f"task {self.name!r}: classes={self.classes!r} is text; give their names, ('no', 'yes')")
        if self.size is not None:
            parts.check_whole(f"task {self.name!r}: size", self.size)
        wanted: str | int = parts.lookup(self.kind, KINDS, f"kind of task {self.name!r}:").size
        if wanted == QUANTILES:
            wanted = self._check_quantiles()
        elif self.quantiles:
            raise ValueError(f"task {self.name!r}: kind {self.kind!r} has no quantiles; use kind 'quantile'")
        if self.classes and self.size is None and wanted == "needed":
            object.__setattr__(self, "size", len(self.classes))
        if self.classes and self.size not in (None, len(self.classes)):
            raise ValueError(f"task {self.name!r}: size={self.size}, but {len(self.classes)} classes are named")
        if isinstance(wanted, int) and self.size is None:
            object.__setattr__(self, "size", wanted)
        if wanted == "needed" and self.size is None:
            then = "; then dataclasses.replace(task, class_weights=...) of data.tasks weighs them"
            raise ValueError(
                f"task {self.name!r}: kind {self.kind!r} needs size, its number of classes or labels, or classes=; "
                f"kinds={{{self.name!r}: {self.kind!r}}} where data is loaded reads them off the labels"
                f"{'' if self.class_weights is None else then}"
            )
        if self.size is not None and self.of_kind.several:
            raise ValueError(f"task {self.name!r}: a {self.kind} task has no size; use kind {self.of_kind.several!r} "
                             "for several labels")  # fmt: skip
        if (wanted == "none" and self.size is not None) or (isinstance(wanted, int) and self.size != wanted):
            own = f"the size {wanted}" if isinstance(wanted, int) else "no size"
            raise ValueError(f"task {self.name!r}: kind {self.kind!r} has {own}, not {self.size}; leave it out")
        if self.class_weights is not None:
            read = read_class_weights(self.name, self.class_weights, class_names(self))
            object.__setattr__(self, "class_weights", read)

    def _check_quantiles(self) -> int:
        levels = self.quantiles
        if not levels or any(not 0 < q < 1 for q in levels) or sorted(set(levels)) != list(levels):
            raise ValueError(
                f"task {self.name!r}: quantiles={levels!r} must be ascending levels in (0, 1), such as (0.1, 0.5, 0.9)"
            )
        return len(levels)

    @property
    def of_kind(self) -> Kind:
        """What its kind means."""
        return KINDS[self.kind]

    @property
    def width(self) -> int | None:
        """Outputs of one element, or of one item of a list; None for a number without an axis."""
        return None if self.of_kind.lists else self.size

    @property
    def num_classes(self) -> int | None:
        """How many classes a label is one of; None where it is none."""
        return 2 if self.of_kind.two else self.size if self.of_kind.labels == "classes" else None

    @property
    def row_axes(self) -> tuple[int | str, ...]:
        """Axes of one row's target: numbers, or names of axes that may have any length."""
        axes = self.of_kind.axes
        sized = ((self.size if a == "size" else a) for a in axes)
        return tuple(a for a in sized if a is not None)


def check_names(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks as a tuple, or an error if there are none or two share a name."""
    names = [t.name for t in tasks]
    if not names:
        raise ValueError("a model needs at least one task")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two tasks are called {name!r}; names must be unique")
    return tuple(tasks)


def loss_function(task: Task) -> Callable:
    """(outputs, targets) -> loss per element, or for ranking (outputs, targets, mask); targets in their own units."""
    function = _build(task, task.loss if task.loss is not None else task.of_kind.loss, losses.NAMES, "loss")
    if (scaler := task.scaler) is None:
        return function
    return lambda outputs, targets, *mask: function(outputs, scaler.scale(targets), *mask)


def metric_functions(task: Task) -> tuple[metrics.Metric, ...]:
    """The task's metrics but `Missing` ones; they read outputs as `readable` gives them, and targets as `centred` does.

    A metric of one's own gets both in the target's own units.
    """
    kind = task.of_kind
    chosen = task.metrics if task.metrics is not None else kind.metrics
    if task.metrics is None and kind.more_metrics:
        chosen = (*kind.more_metrics(task.classes), *chosen)
    built = [(m, _build(task, m, metrics.NAMES, "metric")) for m in chosen if not isinstance(m, Missing)]
    return tuple(metric if isinstance(m, str) else _in_own_units(task, metric) for m, metric in built)


def _in_own_units(task: Task, metric: metrics.Metric) -> metrics.Metric:
    if origin_of(task) is None:
        return metric

    def measure(outputs: Array, targets: Array, *more: Array) -> Any:
        return metric.measure(own_units(task, outputs), own_units(task, targets), *more)

    return metric._replace(measure=measure)


def _build(task: Task, part: Any, registry: dict[str, Callable], kind: str) -> Any:
    """What `part` names, told the task's class names, quantiles or origin where it takes them."""
    if not isinstance(part, str):
        return part
    kind = f"{kind} of task {task.name!r}:"
    takes = inspect.signature(parts.lookup(parts.parse(part, kind)[0], registry, kind)).parameters
    origin = () if task.scaler is None else task.scaler.origin
    told = {"classes": task.classes, "quantiles": task.quantiles, "origin": origin}
    known = {k: v for k, v in told.items() if v and k in takes}
    return parts.build(part, registry, kind, **known)


def loss_sum(
    task: Task,
    outputs: Outputs,
    targets: Array,
    mask: Bool[Array, "..."],
    weights: Float[Array, " row"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum of the loss over labelled elements, number of labelled elements); of each, times its weight.

    An element's weight is its row's, times that of its class: both enter the number too, so that the quotient is a
    weighted mean, and a row of weight 2 is two rows.
    """
    loss, mask = elements(task, outputs, targets, mask)
    if weights is None and task.class_weights is None:
        return jnp.where(mask, loss, 0).sum(), mask.sum().astype(loss.dtype)
    weight = jnp.ones(loss.shape, loss.dtype)
    if weights is not None:
        weight *= aligned(weights, loss).astype(loss.dtype)
    if task.class_weights is not None:
        weight *= class_factors(task, targets).astype(loss.dtype)
    mask &= weight > 0
    return jnp.where(mask, loss * weight, 0).sum(), jnp.where(mask, weight, 0).sum()


def elements(
    task: Task, outputs: Outputs, targets: Array, mask: Bool[Array, "..."]
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    """(the loss of each element, which elements are labelled).

    Elements are rows, tokens, pixels or boxes. Of a ranking they are lists, and one without an item of grade above 0
    has nothing to say of the order and does not count. With members it is the mean of the members' losses.
    """
    labelled = jnp.broadcast_to(aligned(mask, targets), targets.shape)
    targets = jnp.where(labelled, targets, 0)  # 0 * nan is nan: what a missing label holds must not reach the loss
    if task.of_kind.lists:
        loss = each(lambda one: loss_function(task)(one, targets, labelled), outputs)
        mask = (labelled & (targets > 0)).any(-1)
    else:
        loss = each(lambda one: loss_function(task)(one, targets), outputs)
    return loss, jnp.broadcast_to(aligned(mask, loss), loss.shape)


def divisor(counts: Array) -> Array:
    """Numbers of elements, or sums of their weights, to divide by: 1 where there is none."""
    return jnp.where(counts > 0, counts, 1)


def task_losses(
    tasks: Sequence[Task], outputs: dict[str, Outputs], batch: Batch
) -> tuple[Float[Array, " task"], Float[Array, " task"]]:
    """([K] sums of losses over this device's labelled elements, [K] counts over the global batch)."""
    pairs = [loss_sum(t, outputs[t.name], *labels_of(batch, t.name)) for t in tasks]
    return jnp.stack([s for s, _ in pairs]), global_sum(jnp.stack([n for _, n in pairs]))

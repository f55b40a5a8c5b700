"""What a task is: a kind with its default loss, metrics and head, all replaceable.

| kind           | target                              | outputs                     | prediction                 |
|----------------|-------------------------------------|-----------------------------|----------------------------|
| classification | int32 [N], 0..size-1                | logits [N, size]            | probabilities [N, size]    |
| binary         | float32 [N], 0 or 1                 | logits [N]                  | probabilities [N]          |
| multilabel     | float32 [N, size], 0 or 1           | logits [N, size]            | probabilities [N, size]    |
| regression     | float32 [N], or [N, size]           | standardised, as the target | in the target's units      |
| quantile       | float32 [N]                         | standardised [N, quantiles] | in its units, ascending    |
| tagging        | int32 [N, T], 0..size-1             | logits [N, T, size]         | probabilities [N, T, size] |
| ranking        | float32 [N, L], grades >= 0         | scores [N, L]               | scores [N, L]              |
| segmentation   | int32 [N, H, W], 0..size-1          | logits [N, H, W, size]      | probabilities, as outputs  |
| depth          | float32 [N, H, W]                   | standardised [N, H, W]      | in the target's units      |
| normals        | float32 [N, H, W, 3], of any length | vectors [N, H, W, 3]        | unit vectors               |
| box            | float32 [N, 4], x0 <= x1, y0 <= y1  | standardised [N, 4]         | x0, y0, x1, y1 in its units |

| kind           | loss                 | metrics                                    | head   | best constant          |
|----------------|----------------------|--------------------------------------------|--------|------------------------|
| classification | cross_entropy        | accuracy, macro_f1                         | vector | frequencies of classes |
| binary         | binary_cross_entropy | auroc, average_precision, accuracy         | vector | frequency of 1         |
| multilabel     | binary_cross_entropy | auroc, average_precision                   | vector | frequencies of labels  |
| regression     | mse                  | mae, rmse, r2                              | vector | mean                   |
| quantile       | pinball              | pinball, coverage                          | vector | quantiles              |
| tagging        | cross_entropy        | accuracy, macro_f1; IOB2: span_f1 too      | token  | frequencies of tags    |
| ranking        | listwise_softmax     | ndcg                                       | token  | one score for all      |
| segmentation   | cross_entropy        | mean_iou, accuracy                         | dense  | frequencies of classes |
| depth          | mae                  | mae, rmse, abs_rel                         | dense  | median                 |
| normals        | cosine               | mean_angle, median_angle, angle_within     | dense  | mean direction         |
| box            | box                  | box_iou                                    | vector | mean                   |

A mask says which labels are there; its shape is a prefix of the target's: [N] of rows, [N, T] of tokens or items,
[N, H, W] of pixels. What a missing label holds, even nan, has no effect.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import losses, metrics, parts
from mtl_jax.batch import Batch, aligned, labels_of
from mtl_jax.class_weights import class_factors, class_names, read_class_weights
from mtl_jax.members import Outputs, each, joined
from mtl_jax.metrics.spans import is_iob2
from mtl_jax.parallel import global_sum
from mtl_jax.scaler import Scaler, origin_of, own_units


class Kind(NamedTuple):
    """Defaults of a kind of task, and what its targets are.

    Attributes:
      loss, metrics, head: by name.
      labels: "classes" (0..size-1), "zero_one", or "numbers".
      size: whether `Task.size` is "needed", "optional" or "none"; or the number that it is.
      axes: of a row's target: "size" (absent without size), a number, or the name of an axis of any length.
      whole: whether the last axis belongs to one element, which has a label as a whole or not at all.
      scaled: how targets are standardised: "each" dimension, "all" alike, "boxes" (x alike, y alike); None: not.
    """

    loss: str
    metrics: tuple[str, ...]
    head: str
    labels: str
    size: str | int = "none"
    axes: tuple[str | int, ...] = ()
    whole: bool = False
    scaled: str | None = None


_ANGLES = ("mean_angle", "median_angle", "angle_within(11.25)", "angle_within(22.5)", "angle_within(30)")
KINDS = {
    "classification": Kind("cross_entropy", ("accuracy", "macro_f1"), "vector", "classes", "needed"),
    "binary": Kind("binary_cross_entropy", ("auroc", "average_precision", "accuracy"), "vector", "zero_one"),
    "multilabel": Kind(
        "binary_cross_entropy", ("auroc", "average_precision"), "vector", "zero_one", "needed", ("size",)
    ),
    "regression": Kind("mse", ("mae", "rmse", "r2"), "vector", "numbers", "optional", ("size",), scaled="each"),
    "quantile": Kind("pinball", ("pinball", "coverage"), "vector", "numbers", "optional", scaled="all"),
    "tagging": Kind("cross_entropy", ("accuracy", "macro_f1"), "token", "classes", "needed", ("tokens",)),
    "ranking": Kind("listwise_softmax", ("ndcg",), "token", "numbers", "optional", ("items",)),
    "segmentation": Kind("cross_entropy", ("mean_iou", "accuracy"), "dense", "classes", "needed", ("high", "wide")),
    "depth": Kind("mae", ("mae", "rmse", "abs_rel"), "dense", "numbers", "none", ("high", "wide"), scaled="all"),
    "normals": Kind("cosine", _ANGLES, "dense", "numbers", 3, ("high", "wide", 3), whole=True),
    "box": Kind("box", ("box_iou",), "vector", "numbers", 4, (4,), whole=True, scaled="boxes"),
}


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

    def __post_init__(self):
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
        wanted = parts.lookup(self.kind, KINDS, f"kind of task {self.name!r}:").size
        if self.kind == "quantile":
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
            weighed = (
                ""
                if self.class_weights is None
                else ("; then dataclasses.replace(task, class_weights=...) of data.tasks weighs them")
            )
            raise ValueError(
                f"task {self.name!r}: kind {self.kind!r} needs size, its number of classes or labels, or classes=; "
                f"kinds={{{self.name!r}: {self.kind!r}}} where data is loaded reads them off the labels{weighed}"
            )
        if self.kind == "binary" and self.size is not None:
            raise ValueError(f"task {self.name!r}: a binary task has no size; use kind 'multilabel' for several labels")
        if (wanted == "none" and self.size is not None) or (isinstance(wanted, int) and self.size != wanted):
            own = f"the size {wanted}" if isinstance(wanted, int) else "no size"
            raise ValueError(f"task {self.name!r}: kind {self.kind!r} has {own}, not {self.size}; leave it out")
        if self.class_weights is not None:
            names = class_names(self, KINDS[self.kind].labels)
            object.__setattr__(self, "class_weights", read_class_weights(self.name, self.class_weights, names))

    def _check_quantiles(self) -> int:
        levels = self.quantiles
        if not levels or any(not 0 < q < 1 for q in levels) or sorted(set(levels)) != list(levels):
            raise ValueError(
                f"task {self.name!r}: quantiles={levels!r} must be ascending levels in (0, 1), such as (0.1, 0.5, 0.9)"
            )
        return len(levels)

    @property
    def row_axes(self) -> tuple[int | str, ...]:
        """Axes of one row's target: numbers, or names of axes that may have any length."""
        axes = KINDS[self.kind].axes
        return tuple(self.size if a == "size" else a for a in axes if a != "size" or self.size is not None)


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
    function = _build(task, task.loss if task.loss is not None else KINDS[task.kind].loss, losses.NAMES, "loss")
    if task.scaler is None:
        return function
    return lambda outputs, targets, *mask: function(outputs, task.scaler.scale(targets), *mask)


def metric_functions(task: Task) -> tuple[metrics.Metric, ...]:
    """The task's metrics but `Missing` ones; they read outputs as `readable` gives them, and targets as `centred` does.

    A metric of one's own gets both in the target's own units.
    """
    chosen = task.metrics if task.metrics is not None else KINDS[task.kind].metrics
    if task.metrics is None and task.kind == "tagging" and is_iob2(task.classes):
        chosen = ("span_f1", *chosen)
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
    if task.kind == "ranking":
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


def one_output(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """The outputs of one model; of members, those whose prediction is the mean of the members' predictions."""
    return joined(outputs, KINDS[task.kind].labels)


def readable(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """Outputs as metrics take them: logits, scores, vectors, or values in the target's own units.

    Quantiles are sorted, so that they never cross; that does not increase the pinball loss (Chernozhukov, Fernandez-Val
    and Galichon, "Quantile and probability curves without crossing", 2010). Corners of a box are sorted per axis.
    """
    outputs = one_output(task, outputs)
    outputs = outputs if task.scaler is None else task.scaler.unscale(outputs)
    if task.kind == "quantile":
        return jnp.sort(outputs, axis=-1)
    return losses.boxes.ordered(outputs) if task.kind == "box" else outputs


def prediction(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """Outputs as users take them; see the table above."""
    outputs = one_output(task, outputs)
    if KINDS[task.kind].labels == "classes":
        return jax.nn.softmax(outputs, axis=-1)
    if KINDS[task.kind].labels == "zero_one":
        return jax.nn.sigmoid(outputs)
    if task.kind == "normals":
        return outputs / jnp.maximum(jnp.linalg.norm(outputs, axis=-1, keepdims=True), jnp.finfo(outputs.dtype).tiny)
    return readable(task, outputs)

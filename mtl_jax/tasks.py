"""What a task is: a kind with its default loss, metrics and head, all replaceable.

| kind           | target                            | outputs           | prediction                          |
|----------------|-----------------------------------|-------------------|-------------------------------------|
| classification | int32 [N], 0..size-1              | logits [N, size]  | probabilities [N, size]             |
| binary         | float32 [N], 0 or 1               | logits [N]        | probabilities [N]                   |
| multilabel     | float32 [N, size], 0 or 1         | logits [N, size]  | probabilities [N, size]             |
| regression     | float32 [N], or [N, size]         | standardised, as the target | values in the target's units |
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import losses, metrics, parts
from mtl_jax.batch import Batch
from mtl_jax.parallel import global_sum


class Kind(NamedTuple):
    """Defaults of a kind of task."""

    loss: str
    metrics: tuple[str, ...]
    sized: bool  # must `size` be given?


KINDS = {
    "classification": Kind("cross_entropy", ("accuracy", "macro_f1"), True),
    "binary": Kind("binary_cross_entropy", ("auroc", "average_precision", "accuracy"), False),
    "multilabel": Kind("binary_cross_entropy", ("auroc", "average_precision"), True),
    "regression": Kind("mse", ("mae", "rmse", "r2"), False),
}


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of a regression target, from the training split, in the target's units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def scale(self, values: Any) -> Any:
        """Own units to standardised; a single entry serves targets of shape [N]."""
        return (values - self._like(self.mean, values)) / self._like(self.std, values)

    def unscale(self, values: Any) -> Any:
        """Standardised to own units."""
        return values * self._like(self.std, values) + self._like(self.mean, values)

    @staticmethod
    def _like(entries: tuple[float, ...], values: Any) -> Any:
        return jnp.asarray(entries[0] if len(entries) == 1 else entries, values.dtype)


@dataclasses.dataclass(frozen=True)
class Task:
    """One prediction problem.

    Attributes:
      name: unique in a model; names the task's branch of the parameter tree, so it holds no ``/``.
      kind: one of `KINDS`.
      size: number of classes or labels, or the length of a regression vector; None for binary and scalar regression.
      loss: text such as ``"huber(delta=0.5)"`` (see `losses.NAMES`), or a function (outputs, targets) -> loss per
        element. None: the kind's default.
      metrics: names such as ``"top_k(k=3)"`` or `metrics.Metric` values; the first one is the task's headline.
      head: text such as ``"vector(hidden=(64,))"`` (see `heads.NAMES`); None: a linear layer.
      classes: names of classes or labels.
      scaler: fitted by the data loaders for regression; None means that targets are used as they are.
    """

    name: str
    kind: str
    size: int | None = None
    loss: str | Callable | None = None
    metrics: tuple[Any, ...] | None = None
    head: str | None = None
    classes: tuple[str, ...] = ()
    scaler: Scaler | None = None

    def __post_init__(self):
        if not self.name or "/" in self.name:
            raise ValueError(f"task name {self.name!r} must be non-empty and hold no '/'")
        parts.lookup(self.kind, KINDS, f"kind of task {self.name!r}:")
        if self.classes and self.size is None and KINDS[self.kind].sized:
            object.__setattr__(self, "size", len(self.classes))
        if KINDS[self.kind].sized and self.size is None:
            raise ValueError(f"task {self.name!r}: kind {self.kind!r} needs size, its number of classes or labels")
        if self.kind == "binary" and self.size is not None:
            raise ValueError(f"task {self.name!r}: a binary task has no size; use kind 'multilabel' for several labels")

    @property
    def num_outputs(self) -> int:
        """Width of the head's last layer."""
        return self.size or 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one row of outputs."""
        return () if self.size is None else (self.size,)


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
    """(outputs, targets) -> loss per element; targets in their own units."""
    loss = task.loss if task.loss is not None else KINDS[task.kind].loss
    function = parts.build(loss, losses.NAMES, f"loss of task {task.name!r}:") if isinstance(loss, str) else loss
    if task.scaler is None:
        return function
    return lambda outputs, targets: function(outputs, task.scaler.scale(targets))


def metric_functions(task: Task) -> tuple[metrics.Metric, ...]:
    """The task's metrics; they read outputs in the target's units (see `readable`)."""
    chosen = task.metrics if task.metrics is not None else KINDS[task.kind].metrics
    kind = f"metric of task {task.name!r}:"
    return tuple(parts.build(m, metrics.NAMES, kind) if isinstance(m, str) else m for m in chosen)


def loss_sum(
    task: Task, outputs: Float[Array, "..."], targets: Array, mask: Bool[Array, "..."]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum of the loss over labelled elements, number of labelled elements)."""
    loss = loss_function(task)(outputs, targets)
    mask = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (loss.ndim - mask.ndim)), loss.shape)
    return jnp.where(mask, loss, 0).sum(), mask.sum().astype(loss.dtype)


def task_losses(
    tasks: Sequence[Task], outputs: dict[str, Array], batch: Batch
) -> tuple[Float[Array, " task"], Float[Array, " task"]]:
    """([K] sums of losses over this device's labelled elements, [K] counts over the global batch)."""
    pairs = [loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name]) for t in tasks]
    return jnp.stack([s for s, _ in pairs]), global_sum(jnp.stack([n for _, n in pairs]))


def readable(task: Task, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Outputs as metrics take them: logits, or regression values in the target's own units."""
    return outputs if task.scaler is None else task.scaler.unscale(outputs)


def prediction(task: Task, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Outputs as users take them: probabilities, or regression values in the target's own units."""
    if task.kind == "classification":
        return jax.nn.softmax(outputs, axis=-1)
    if task.kind in ("binary", "multilabel"):
        return jax.nn.sigmoid(outputs)
    return readable(task, outputs)

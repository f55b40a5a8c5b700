"""What one task tells another: soft outputs, labels in their place, and features, fitted to where they arrive."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.batch import aligned
from mtl_jax.encoders.base import values_of
from mtl_jax.encoders.positions import mean_over_positions, resampled
from mtl_jax.members import Members, Outputs
from mtl_jax.tasks import KINDS, Task


class Readable(NamedTuple):
    """How outputs and labels of some kind of labels are read by other tasks.

    Attributes:
      soft: (outputs) -> array of the same shape.
      label: (task, targets) -> array that a perfect prediction's `soft` would be.
    """

    soft: Callable
    label: Callable


CLASSES = Readable(lambda y: jax.nn.softmax(y, -1), lambda t, y: jax.nn.one_hot(y, t.size))
CHANCES = Readable(jax.nn.sigmoid, lambda t, y: y)
NUMBERS = Readable(lambda y: y, lambda t, y: y if t.scaler is None else t.scaler.scale(y))
BY_LABELS = {"classes": CLASSES, "zero_one": CHANCES, "numbers": NUMBERS}


def check_kinds(tasks: Any, sharing: str) -> None:
    """An error for a task whose outputs cannot be read by others."""
    readable = [name for name, kind in KINDS.items() if kind.read_by_others]
    for task in tasks:
        if not task.of_kind.read_by_others:
            what = f"kind of task {task.name!r}, whose outputs others read in {sharing}:"
            raise parts.unknown(what, task.kind, readable)


def soft(task: Task, outputs: Outputs) -> Float[Array, "... width"]:
    """Outputs as others read them: probabilities, or standardised values; the last axis is one of entries.

    Those of members are read member by member, as features are.
    """
    values = BY_LABELS[task.of_kind.labels].soft(outputs.values if isinstance(outputs, Members) else outputs)
    return values[..., None] if task.size is None else values


def labelled(
    task: Task, message: Float[Array, "... width"], targets: Array, mask: Bool[Array, "..."]
) -> Float[Array, "... width"]:
    """`message`, with labels (one-hot, or standardised) in its place wherever `mask` says that there is one."""
    label = BY_LABELS[task.of_kind.labels].label(task, targets)
    label = (label[..., None] if task.size is None else label).astype(message.dtype)
    # A row's label is the same at all of its positions, such as members.
    label = label.reshape(*label.shape[:1], *(1,) * (message.ndim - label.ndim), *label.shape[1:])
    return jnp.where(aligned(mask, message), label, message)


def fit_to(message: Any, like: Any) -> Float[Array, "batch ... width"]:
    """A message as it arrives at features `like`: of their positions, or of one position that broadcasts to theirs.

    A vector says the same everywhere; positions are averaged where a vector is wanted; an image is resized to the
    size of `like` (linearly, averaging when it shrinks).

    Raises:
      ValueError: where positions cannot be matched, such as those of two sequences of different lengths.
    """
    values, wanted = values_of(message), values_of(like).shape[1:-1]
    found = values.shape[1:-1]
    if found == wanted:
        return values
    if not found:
        return values.reshape(len(values), *(1,) * len(wanted), values.shape[-1])
    if not wanted:
        return mean_over_positions(message)
    if len(found) == len(wanted) == 2:
        return resampled(values, wanted)
    raise ValueError(f"a message with positions {found} cannot be read at features with positions {wanted}")


class Projection(nn.Module):
    """A linear map of the last axis: 1 x 1 for images, per token for sequences."""

    width: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch ... entry"], *, train: bool) -> Float[Array, "batch ... width"]:
        del train
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.width))
        y = x @ kernel.astype(x.dtype)
        return y + self.param("bias", nn.initializers.zeros, (self.width,)).astype(x.dtype) if self.bias else y

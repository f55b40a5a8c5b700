"""What an element of each class weighs in a task's loss: for classes that are rare, or whose errors cost more.

Weights multiply those of rows, and the loss is the mean weighted by both, as scikit-learn's ``class_weight``. The best
constant that a validation score is measured from is that of the weighted loss. Metrics keep to their names: they do
not read class weights.
"""

import dataclasses
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.batch import Batch, aligned, labelled_elements, labels_of

BALANCED = "balanced"


def class_names(task: Any) -> tuple[Any, ...]:
    """The classes of a task as a user names them: its class names, else 0, 1, ...

    Raises:
      ValueError: for a kind that has no classes.
    """
    if task.num_classes is not None:
        return task.classes if len(task.classes) == task.num_classes else tuple(range(task.num_classes))
    raise ValueError(f"task {task.name!r}: class_weights are for classes, and kind {task.kind!r} has none; weights of "
                     "rows serve any kind")  # fmt: skip


def read_class_weights(task: str, given: Any, names: tuple[Any, ...]) -> str | tuple[float, ...]:
    """A weight per class, or "balanced".

    Raises:
      ValueError: for a class that is not there, another number of weights, or weights that make no sense.
    """
    if isinstance(given, str):
        if given != BALANCED:
            raise ValueError(f"task {task!r}: class_weights={given!r} is neither 'balanced', a number per class, nor "
                             "{class: number}")  # fmt: skip
        return BALANCED
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise parts.unknown(f"class in class_weights of task {task!r}:", str(name), [str(n) for n in names])
        given = [given.get(name, 1.0) for name in names]
    given = tuple(given)
    if len(given) != len(names):
        raise ValueError(f"task {task!r}: class_weights holds {len(given)} numbers for {len(names)} classes")
    for name, weight in zip(names, given, strict=True):
        if not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
            raise ValueError(f"task {task!r}: class weight {weight!r} of {name} must be a finite number, at least 0")
    if not any(given):
        raise ValueError(f"task {task!r}: every class weight is 0; at least one must be above")
    return tuple(float(w) for w in given)


def class_factors(task: Any, targets: Array) -> Float[Array, "..."]:
    """The weight of each element's class, in the targets' shape.

    Raises:
      ValueError: while "balanced" has not been counted.
    """
    if task.class_weights == BALANCED:
        raise ValueError(f"task {task.name!r}: class_weights='balanced' is counted from training labels; call "
                         "class_weights.balanced(task, train) first, as fit does")  # fmt: skip
    return jnp.asarray(task.class_weights)[targets.astype(jnp.int32)]


def balanced(task: Any, train: Batch) -> Any:
    """The task with "balanced" counted: n / (classes n_k), n_k the (weighted) training labels of class k.

    As scikit-learn's: every class that occurs has the same part in the loss. A class that does not occur weighs 1.
    """
    if task.class_weights != BALANCED:
        return task
    target, mask, weights = labels_of(train, task.name)
    target, mask = np.asarray(target), np.asarray(mask)
    labelled = labelled_elements(target, mask)
    rows = np.ones(len(target)) if weights is None else np.asarray(weights, np.float64)
    each = np.broadcast_to(aligned(rows, target), target.shape)[labelled]
    size = task.num_classes
    counts = np.bincount(target[labelled].astype(int), each, minlength=size)
    found = np.where(counts > 0, counts.sum() / (size * np.where(counts > 0, counts, 1)), 1.0)
    return dataclasses.replace(task, class_weights=tuple(found.tolist()))

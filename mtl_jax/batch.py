"""What a model sees at a step: inputs, targets and label masks. A whole split is one long batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped


@jax.tree_util.register_pytree_with_keys_class
class PerTask(Mapping):
    """Inputs or features that each task has of its own, ``{task: array}``; a plain dict is one multi-modal input."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_by_task = dict(values) if isinstance(values, dict) else values

    def __getitem__(self, task: str) -> Any:
        return self.values_by_task[task]

    def __iter__(self):
        return iter(self.values_by_task)

    def __len__(self) -> int:
        return len(self.values_by_task)

    def __repr__(self) -> str:
        return f"PerTask({self.values_by_task!r})"

    def tree_flatten_with_keys(self):
        keys = tuple(sorted(self.values_by_task))
        return [(jax.tree_util.DictKey(k), self.values_by_task[k]) for k in keys], keys

    @classmethod
    def tree_unflatten(cls, keys, children):
        return cls(dict(zip(keys, children, strict=True)))


class Batch(NamedTuple):
    """A batch, or a whole split, of `N` rows (of `N_t` rows where each task has inputs of its own).

    Attributes:
      inputs: an array [N, ...], a dict of arrays (one multi-modal input), or `PerTask` of either.
      targets: {task: array}; classes int32, else float32 in the target's own units, in the shape that `tasks` has for
        the task's kind, such as [N] for classification or [N, dims] for regression. A missing label holds 0.
      masks: {task: bool array}, True where there is a label; its shape is a prefix of the target's.
      weights: {task: float array [N]} of the tasks whose rows count differently, or None where all count alike. A row
        of weight 2 counts as two rows, one of weight 0 as none, in losses, metrics, scalers and constants.
    """

    inputs: Any
    targets: Mapping[str, Any]
    masks: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None


def num_rows(batch: Batch, task: str | None = None) -> int:
    """Rows of a batch; of one task where each task has inputs of its own (the largest, without `task`)."""
    if isinstance(batch.inputs, PerTask):
        if task is not None:
            return jax.tree.leaves(batch.inputs[task])[0].shape[0]
        return max(num_rows(batch, t) for t in batch.inputs)
    return jax.tree.leaves(batch.inputs)[0].shape[0]


def labels_of(batch: Batch, task: str) -> tuple[Any, Any, Any]:
    """(target, mask, weights of its rows or None) of a task."""
    return batch.targets[task], batch.masks[task], (batch.weights or {}).get(task)


def aligned(x: Shaped[Any, "..."], like: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """A mask or weights, whose shape is a prefix of `like`'s, then axes of 1, so that they broadcast to it."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def labelled_elements(target: Shaped[np.ndarray, "..."], mask: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """A mask in the target's shape."""
    return np.broadcast_to(aligned(mask, target), target.shape)


def weight_of_labels(mask: Shaped[Any, "row ..."], weights: Shaped[Any, " row"] | None) -> Any:
    """The number of a task's labels, or the sum of their rows' weights."""
    return mask.sum() if weights is None else (mask * aligned(weights, mask)).sum()


def counted(batch: Batch, task: str) -> tuple[np.ndarray, np.ndarray]:
    """(where a task has labels that count, what its rows weigh [N]) as NumPy; a label of weight 0 does not count."""
    _, mask, weights = labels_of(batch, task)
    mask = np.asarray(mask)
    rows = np.ones(len(mask), np.float64) if weights is None else np.asarray(weights).astype(np.float64)
    return mask & aligned(rows > 0, mask), rows


def effective_rows(weights: Float[np.ndarray, " row"]) -> float:
    """How many rows of equal weight tell as much: (sum w)^2 / sum w^2 (Kish, "Survey Sampling", 1965)."""
    return float(weights.sum() ** 2 / max((weights**2).sum(), np.finfo(np.float32).tiny))


def map_weights(function: Callable, weights: Mapping[str, Any] | None, tasks: Any = None) -> dict[str, Any] | None:
    """{task: function(task, weights)} of the tasks that have weights, among `tasks` if given; None where none has."""
    chosen = {t: function(t, w) for t, w in (weights or {}).items() if tasks is None or t in tasks}
    return chosen or None


def select_rows(split: Batch, rows: Any, take: Callable[[Any, Any], Any]) -> Batch:
    """The rows of a split at indices, or at {task: indices} where each task has inputs of its own, by `take`.

    Args:
      split: a batch of any number of rows.
      rows: the indices.
      take: (tree, indices) -> the rows of its leaves.
    """
    if not isinstance(rows, dict):
        return take(split, rows)
    return Batch(
        PerTask({t: take(x, rows[t]) for t, x in split.inputs.items()}),
        {t: take(y, rows[t]) for t, y in split.targets.items()},
        {t: take(m, rows[t]) for t, m in split.masks.items()},
        map_weights(lambda t, w: take(w, rows[t]), split.weights),
    )


def inputs_of(inputs: Any, task: str) -> Any:
    """The inputs that `task` reads."""
    return inputs[task] if isinstance(inputs, PerTask) else inputs

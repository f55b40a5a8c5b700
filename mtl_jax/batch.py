"""What a model sees at a step: inputs, targets and label masks. A whole split is one long batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax


@jax.tree_util.register_pytree_with_keys_class
class PerTask(Mapping):
    """Inputs or features that each task has of its own, ``{task: array}``; a plain dict is one multi-modal input."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_by_task = dict(values)

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
    """

    inputs: Any
    targets: dict[str, Any]
    masks: dict[str, Any]


def num_rows(batch: Batch, task: str | None = None) -> int:
    """Rows of a batch; of one task where each task has inputs of its own (the largest, without `task`)."""
    if isinstance(batch.inputs, PerTask):
        if task is not None:
            return jax.tree.leaves(batch.inputs[task])[0].shape[0]
        return max(num_rows(batch, t) for t in batch.inputs)
    return jax.tree.leaves(batch.inputs)[0].shape[0]


def inputs_of(inputs: Any, task: str) -> Any:
    """The inputs that `task` reads."""
    return inputs[task] if isinstance(inputs, PerTask) else inputs

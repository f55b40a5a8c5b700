"""What one forward pass offers to a step: losses, and functions that pull gradients on demand."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float

MODES = ("map", "vmap", "layers", "columns")  # of pulling: see `balancing.options`
Gradient = dict[str, Array]  # {path: array}, trainable leaves only
Rows = dict[str, Any]  # {path: [K, ...]}, or `dense_factors.Factored`


class Linearization(NamedTuple):
    """A model at one batch.

    A row of the Jacobian belongs to an objective: to a task, or with ``examples=True`` to task t and example b, at
    index ``t * batch + b``.

    Attributes:
      losses: [K], the mean over the labelled elements of the global batch; 0 for a task without labels.
      labelled: [K], whether a task has labels in the batch.
      finite: [K], whether its loss is finite, and (`check_heads`) what comes back from it through its head.
        Tasks that are not labelled or not finite are cut off everywhere below.
      state: the model's state after the pass.
      metrics: what the model reports of itself.
      jacobian: (examples=False) -> {path: [K, ...]} over trainable shared leaves.
      gramian: (examples=False, unit=1) -> [K, K], the inner products of the rows of the Jacobian times `unit`.
      largest: (examples=False) -> [K], the largest magnitude in each row.
      weighted: ([K], or [K, batch] by row) -> {path: array}, the weighted sum of the rows, over all trainable shared
        leaves.
      cross: (unit=1) -> (J1 J2' [K, K] of the two interleaved halves of the batch, the rows times `unit`; which tasks
        have labels in both).
      examples: () -> the objectives task x example.
      at_features: () -> {path in the features: [K, ...]}, the Jacobian by the features that all heads read; under pmap
        of this device's rows.
      along: ({path in the features: array}) -> {path: array}, a direction at the features pulled back.
      own: () -> {path: array}, each trainable leaf under ``tasks/<t>`` by task t's own loss.
      extra: () -> {path: array} over all trainable leaves, the gradient of what is added outside the balancer:
        penalties, auxiliary and joint losses.
      notes: what the mode could not do here and does otherwise, in words; it fills as the functions are traced.
    """

    losses: Float[Array, " task"]
    labelled: Bool[Array, " task"]
    finite: Bool[Array, " task"]
    state: Any
    metrics: dict[str, Array]
    jacobian: Callable[..., Rows]
    gramian: Callable[..., Float[Array, "task task"]]
    largest: Callable[..., Float[Array, " task"]]
    weighted: Callable[[Float[Array, "task ..."]], Gradient]
    cross: Callable[..., tuple[Float[Array, "task task"], Bool[Array, " task"]]]
    examples: Callable[[], "Examples"]
    at_features: Callable[[], Gradient]
    along: Callable[[Gradient], Gradient]
    own: Callable[[], Gradient]
    extra: Callable[[], Gradient]
    notes: list[str]


class Examples(NamedTuple):
    """The objectives task x example.

    Attributes:
      losses: an example's share of its task's loss, times the task's labelled examples: their mean is that loss.
      present: whether the task is not cut off and the example has a label for it.
      scale: a task's labelled examples; weights w [K, batch] of these objectives make ``weighted(w * scale[:, None])``.
    """

    losses: Float[Array, "task batch"]
    present: Bool[Array, "task batch"]
    scale: Float[Array, " task"]


class JointLoss(NamedTuple):
    """A loss over several tasks' outputs, added outside the balancer.

    Attributes:
      name: as logged.
      function: ({task: outputs}, {task: targets}, {task: masks}) -> (sum over examples, number of examples); the loss
        is their ratio over the global batch. Weights of rows are not applied to it.
      weight: its factor.
    """

    name: str
    function: Callable
    weight: float = 1.0

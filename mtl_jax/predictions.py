"""Outputs of a task's head as metrics read them, and as users do."""

import jax
from jaxtyping import Array, Float

from mtl_jax.members import Outputs, joined
from mtl_jax.tasks import Task


def one_output(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """The outputs of one model; of members, those whose prediction is the mean of the members' predictions."""
    return joined(outputs, task.of_kind.labels)


def readable(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """Outputs as metrics take them: logits, scores, vectors, or values in the target's own units, in their order."""
    outputs = one_output(task, outputs)
    outputs = outputs if task.scaler is None else task.scaler.unscale(outputs)
    ordered = task.of_kind.ordered
    return outputs if ordered is None else ordered(outputs)


def prediction(task: Task, outputs: Outputs) -> Float[Array, "..."]:
    """Outputs as users take them; see the table of `kinds`."""
    kind = task.of_kind
    if kind.labels == "classes":
        return jax.nn.softmax(one_output(task, outputs), axis=-1)
    if kind.labels == "zero_one":
        return jax.nn.sigmoid(one_output(task, outputs))
    found = readable(task, outputs)
    return found if kind.shown is None else kind.shown(found)

"""Per-task gradients the plainest way: what the engine is tested against, and works for any model."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.model import MultiTaskModel, spread
from mtl_jax.tasks import Task, divisor, task_losses


def reference_jacobian(
    model: MultiTaskModel,
    variables: Any,
    batch: Batch,
    *,
    rng: Any = None,
    train: Any = True,
    tasks: Sequence[Task] | None = None,
) -> tuple[Float[Array, " task"], Gradient]:
    """(losses [K], {path: [K, ...]} over all leaves) by reverse mode through the whole model, the plainest way.

    The reference that the engine is tested against.
    """

    def losses(params: Any) -> tuple[Array, Array]:
        features, encoded, _ = model.encode({**variables, "params": params}, batch, train=train, rng=rng)
        outputs, _ = model.decode({**variables, "params": params}, spread(model, features), train=train, rng=rng)
        sums, counts = task_losses(tasks or model.tasks, outputs, batch)
        values = sums / divisor(counts)
        return values, values

    jacobian, values = jax.jacrev(losses, has_aux=True)(variables["params"])
    return values, partition.flatten(jacobian)

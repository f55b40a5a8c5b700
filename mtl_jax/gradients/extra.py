"""The gradient of what is added outside the balancer: penalties, auxiliary and joint losses."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax.gradients.linearization import Gradient, JointLoss
from mtl_jax.gradients.trunk import Trunk
from mtl_jax.members import Outputs, each
from mtl_jax.parallel import global_sum, num_devices
from mtl_jax.scaler import own_units


def extra_gradient(trunk: Trunk, joint: Sequence[JointLoss]) -> Gradient:
    """{path: array} over all trainable leaves, shared or of the tasks' own."""
    point = trunk.point

    def penalty(leaves: Gradient) -> Array:
        return point.model.penalty(point.layout.view_variables(point.variables_with(leaves)))

    total = jax.grad(penalty)(point.shared | point.private)
    if joint:
        total = jax.tree.map(jnp.add, total, joint_gradient(trunk, joint))
    if trunk.forward.has_losses:
        of_shared, of_private = jax.grad(lambda leaves: auxiliary(trunk, *leaves))((point.shared, point.private))
        total = jax.tree.map(jnp.add, total, global_sum(of_shared | of_private))
    return total


def auxiliary(trunk: Trunk, shared: Gradient, private: Gradient) -> Array:
    """The sum of the auxiliary losses; its own backward pass enters only what they depend on, such as gates."""
    point, found = trunk.point, []
    for branch in trunk.forward.branches:
        entering = point.layout.copies(branch.first, shared) if branch.first and branch.copies else shared
        _, (_, _, aux) = point.encode(entering, private, branch.first, branch.copies)
        found.append(aux["losses"])
    # A device reports the mean over its own rows; the mean over all is that divided by their number.
    return sum(x for losses in found for x in losses.values()) / num_devices()


def joint_gradient(trunk: Trunk, joint: Sequence[JointLoss]) -> Gradient:
    """Of the weighted sum of losses over several tasks' outputs."""
    point, heads, layout = trunk.point, trunk.heads, trunk.point.layout
    labels = layout.unstack(point.batch.targets)
    targets = {t.name: own_units(t, labels[t.name]) for t in layout.tasks}
    masks = layout.unstack(point.batch.masks)

    def value(outputs: dict[str, Outputs]) -> Array:
        total = jnp.zeros((), heads.losses.dtype)
        for loss in joint:
            part, count = each(lambda o, f=loss.function: f(o, targets, masks), layout.unstack(outputs))
            total = total + loss.weight * part / jnp.maximum(global_sum(count), 1)
        return total

    of_heads, by_group = heads.pull(jax.grad(value)(heads.outputs))
    found = trunk.pull(trunk.together(by_group))
    return global_sum(found.shared | {p: of_heads[p] + found.private[p] for p in point.private})

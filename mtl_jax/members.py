"""An ensemble inside one model: outputs with an axis of members, each of which has the loss to itself.

Averaging losses, not outputs, is what keeps members apart (Gorishniy et al., "TabM", ICLR 2025, arXiv:2410.24210): a
loss of the mean output has one gradient for all of them. What users and metrics read is the mean of predictions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Members:
    """Outputs of several members: `values` [B, member, ...], where one model's outputs are [B, ...]."""

    values: Any  # an array, or what a tree with the same places has there


Outputs = Array | Members  # of a task's head


def each(function: Callable, outputs: Any) -> Any:
    """`function` of outputs, or of a dict of them; with members of each member's outputs, and the mean of the results.

    Whatever has no members is the same for all.
    """
    flat, tree = jax.tree.flatten(outputs, is_leaf=lambda x: isinstance(x, Members))
    axes = [1 if isinstance(x, Members) else None for x in flat]
    if not any(axes):
        return function(outputs)

    def of_one(values: list[Array]) -> Any:
        return function(jax.tree.unflatten(tree, values))

    values = [x.values if isinstance(x, Members) else x for x in flat]
    return jax.tree.map(lambda x: x.mean(0), jax.vmap(of_one, (axes,))(values))


def joined(outputs: Array | Members, labels: str) -> Array:
    """One model's outputs [B, ...] whose prediction is the mean of the members' predictions.

    Args:
      outputs: of one model (returned as they are), or of members.
      labels: what they predict, as `tasks.Kind` has it: logits of probabilities that are averaged, or numbers that are.
    """
    if not isinstance(outputs, Members):
        return outputs
    values = outputs.values
    if labels == "classes":  # the logarithm of a mean is taken without leaving logarithms
        return jax.nn.logsumexp(jax.nn.log_softmax(values, -1), 1) - jnp.log(values.shape[1])
    if labels == "zero_one":
        return jax.nn.logsumexp(jax.nn.log_sigmoid(values), 1) - jax.nn.logsumexp(jax.nn.log_sigmoid(-values), 1)
    return values.mean(1)

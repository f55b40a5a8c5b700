"""Everything a step changes, in one pytree: checkpointed, restored, vmapped and sharded as a whole."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mtl_jax import partition
from mtl_jax.balancing.balance import start
from mtl_jax.balancing.base import Balancer, Needs
from mtl_jax.balancing.options import ONE_BY_ONE, Options
from mtl_jax.training.optimizers import PerOwner


class TrainState(NamedTuple):
    """The state of training.

    Attributes:
      step: int32 scalar, steps taken.
      params, state: the model's variables, frozen leaves included.
      opt_state: {owner: state of the optimizer over its trainable leaves}.
      balancer_state: of the balancing method.
      key: the run's random key; step i draws from ``fold_in(key, i)``.
    """

    step: Int[Array, ""]
    params: Any
    state: Any
    opt_state: Any
    balancer_state: Any
    key: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the model's functions take."""
        return {"params": self.params, "state": self.state}


def create(
    variables: Any,
    num_tasks: int,
    optimizer: PerOwner,
    balancer: Balancer,
    trainable: frozenset[str],
    key: Any,
    options: Options = ONE_BY_ONE,
    num_objectives: int | None = None,
) -> TrainState:
    """The state before the first step. Optimizer and balancer hold nothing for frozen leaves.

    Raises:
      ValueError: if the balancer needs gradients of shared parameters and none trains.
    """
    # A buffer of its own for every leaf, as a step that donates its state needs: two leaves may start as one array.
    variables = jax.tree.map(jnp.copy, variables)
    leaves = {p: v for p, v in partition.flatten(variables["params"]).items() if p in trainable}
    template = {p: v for p, v in leaves.items() if partition.owner(p) == "shared"}
    if balancer.needs not in (Needs.LOSSES, Needs.ORACLE) and not template:
        raise ValueError(
            f"balancer {balancer.spec or 'given'} combines the tasks' gradients of shared parameters, and none trains "
            "here (they are frozen, or the model has none); use 'equal', 'fixed' or 'uncertainty'"
        )
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        variables["state"],
        optimizer.init(leaves),
        start(balancer, num_objectives or num_tasks, num_tasks, template, options),
        jax.random.clone(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key,
    )

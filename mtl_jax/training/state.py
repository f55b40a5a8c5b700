"""Everything a step changes, in one pytree: checkpointed, restored, vmapped and sharded as a whole."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mtl_jax import partition
from mtl_jax.balancing.balance import start
from mtl_jax.balancing.base import Balancer, Needs
from mtl_jax.balancing.options import ONE_BY_ONE, Options
from mtl_jax.stacking import Layout
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
    layout: Layout | None = None,
) -> TrainState:
    """The state before the first step. Optimizer and balancer hold nothing for frozen leaves.

    Where a `layout` is given, the variables are stacked, and so is what the optimizer holds for tasks.

    Raises:
      ValueError: if the balancer needs gradients of shared parameters and none trains.
    """
    # A buffer of its own for every leaf, as a step that donates its state needs: two leaves may start as one array.
    variables = jax.tree.map(jnp.copy, variables)
    leaves = {p: v for p, v in partition.flatten(variables["params"]).items() if p in trainable}
    template = {p: v for p, v in leaves.items() if partition.owner(p) == "shared"}
    if not (balancer.needs is Needs.LOSSES or balancer.needs.functions or template):
        raise ValueError(
            f"balancer {balancer.spec or 'given'} combines the tasks' gradients of shared parameters, and none trains "
            "here (they are frozen, or the model has none); use 'equal', 'fixed' or 'uncertainty'"
        )
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        variables["state"],
        optimizer.init(leaves, layout.groups if layout else ()),
        start(balancer, num_objectives or num_tasks, num_tasks, template, options),
        jax.random.clone(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key,
    )


def unstacked(state: TrainState, layout: Layout, axis: int = 0) -> TrainState:
    """A training state with an entry per task in its variables and in the optimizer's state.

    Args:
      state: stacked.
      layout: how its tasks lie.
      axis: of tasks; 1 where a leading axis of runs is before it.
    """
    variables = layout.unstack_variables(state.variables, axis)
    opt_state = {name: x for name, x in state.opt_state.items() if name not in layout.groups}
    for name, x in layout.unstack({n: x for n, x in state.opt_state.items() if n in layout.groups}, axis).items():
        opt_state[name] = of_other_task(x, layout.group_of[name][0], name)
    return state._replace(params=variables["params"], state=variables["state"], opt_state=opt_state)


def restacked(state: TrainState, layout: Layout, axis: int = 0) -> TrainState:
    """A training state with an entry per task, stacked."""
    variables = layout.stack_variables(state.variables, axis)
    opt_state = {name: x for name, x in state.opt_state.items() if name not in layout.group_of}
    owned = {n: x for n, x in state.opt_state.items() if n in layout.group_of}
    opt_state |= layout.stack({n: of_other_task(x, n, layout.group_of[n][0]) for n, x in owned.items()}, axis)
    return state._replace(params=variables["params"], state=variables["state"], opt_state=opt_state)


def of_other_task(opt_state: Any, old: str, new: str) -> Any:
    """An optimizer's state over {path: leaf} of one task as that of another: the same leaves under its paths."""
    prefix = f"tasks/{old}/"

    def renamed(tree: Any) -> Any:
        nodes, outer = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, dict))
        return jax.tree.unflatten(outer, [
            {f"tasks/{new}/{k.removeprefix(prefix)}" if str(k).startswith(prefix) else k: renamed(v)
             for k, v in x.items()} if isinstance(x, dict) else x for x in nodes
        ])  # fmt: skip

    return opt_state if old == new else renamed(opt_state)


def variables_of(part: Any, layout: Layout, axis: int, stack: bool) -> Any:
    """`part`, which has params and state (`selection.Best`), with its variables stacked, or an entry per task."""
    change = layout.stack_variables if stack else layout.unstack_variables
    found = change({"params": part.params, "state": part.state}, axis)
    return part._replace(params=found["params"], state=found["state"])

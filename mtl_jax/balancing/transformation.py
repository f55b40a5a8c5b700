"""Balancing alone: per-task gradients of any pytree, combined by any method, for a loop of one's own.

balanced = mtl.balanced(losses, mtl.balancing.upgrad())   # losses(params, batch) -> [K], or {name: scalar}
state = balanced.init(params)
grads, state, info = balanced(params, state, batch)
updates, opt_state = tx.update(grads, opt_state, params)  # any optax optimizer
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_jax import parts
from mtl_jax.balancing import options
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.given import given_method
from mtl_jax.balancing.options import Options
from mtl_jax.balancing.own_step import Balanced
from mtl_jax.gradients.given import read_tasks
from mtl_jax.gradients.own_losses import read_losses

NONFINITE = ("stop", "skip_task")


def balanced(
    losses: Callable | Mapping[str, Callable] | None = None,
    balancer: Balancer | str | None = None,
    *,
    features: Callable | None = None,
    heads: Callable | Mapping[str, Callable] | None = None,
    shared: Any = None,
    tasks: int | Sequence[str] | None = None,
    has_aux: bool = False,
    has_mask: bool = False,
    engine: str | int = "auto",
    level: str = "parameters",
    balance_paths: str | Sequence[str] = (),
    update_every: int = 1,
    monitor: bool = True,
    nonfinite: str = "stop",
    axis_name: str | None = None,
) -> Balanced:
    """A gradient transformation for several losses of one tree of parameters: `init`, a call, `after` (`Balanced`).

    All of it are pure functions, which run under `jax.jit`, `vmap`, `lax.scan`, `shard_map` and `pmap`.

    Args:
      losses: (params, batch) -> [K], or {name: scalar}; or {name: (params, batch of its own) -> scalar}, each of which
        is pulled by itself, so that no task pays for another. A dict's own order is the order of the tasks, unless
        `tasks` says otherwise (a jitted function's dict is sorted by name).
      balancer: a method of `balancing.NAMES` or its text; None for equal weights.
      features, heads: in place of `losses`: (params, batch) -> features, a pytree that heads read, and
        (params, features, batch) -> losses, in one function or {name: function}. The trunk runs once and is pulled once
        per task; heads with a function each run forward and backward once.
      shared: which leaves are balanced: all; those that a regex over paths, or one of several, matches; ordered
        (regex, bool) rules; a function of a path; or a tree of bools. The others follow their own losses' sum, weighted
        where the method weights losses.
      tasks: how many tasks, or their names in order. What a method draws for a task depends on its name.
      has_aux: each function, `features` too, returns (what it returns else, aux).
      has_mask: losses come as (losses, mask): [K] bool or {name: bool}, a scalar for functions of the tasks' own. A
        task that is not there has weight 0, and its part of the state stays. In one function of all losses its gradient
        has to be finite nevertheless, as 0 * nan is nan: divide by max(count, 1).
      engine: how rows of the Jacobian are pulled: "map" one by one, "vmap" at once, a number at once; "columns": the
        Gramian is made without holding the Jacobian; "auto".
      level: gradients by the shared "parameters", or by the common "features".
      balance_paths: regexes of the shared leaves that the method sees; its weights apply to all.
      update_every: steps between updates of the weights.
      monitor: whether `Info` has norms, cosines and conflict where the method has a Gramian.
      nonfinite: "stop": where a loss, gradient or new state is not finite, all gradients are nan, and the state stays;
        "skip_task": a task whose loss or gradient is not finite is left out, for which all rows are pulled one by one,
        whatever the method. In one function of all losses, a derivative that is not finite may reach all rows, and
        stops all; functions of the tasks' own, or heads, keep it to its task.
      axis_name: of the axis of `pmap` or `shard_map` over which devices share a batch: losses and gradients are means
        over it, so that devices with equally many rows compute what one does. With masks, divide by the mean count
        over the axis.

    Raises:
      ValueError: for functions, rules or options that do not fit; calls check what they are given.

    Source: the engine of `fit`, for losses that are functions of one's own.
    """
    balancer = given_method("balancer", "equal" if balancer is None else balancer)
    if nonfinite not in NONFINITE:
        raise parts.unknown("nonfinite", nonfinite, NONFINITE)
    if engine == "layers":
        raise ValueError("engine 'layers' reads the layers of a model of mtl.sharing; use 'map', 'columns' or 'auto'")
    if nonfinite == "skip_task" and engine == "columns":
        raise ValueError("nonfinite='skip_task' looks at every row, which engine 'columns' never holds; use 'map'")
    found = read_losses(losses, features, heads, has_aux, has_mask, read_tasks(tasks))
    how = Options(engine, level, None, update_every, "tasks", monitor)
    options.check(how, balancer, features is not None)
    paths = (balance_paths,) if isinstance(balance_paths, str) else tuple(balance_paths)
    return Balanced(found, balancer, shared, how, paths, nonfinite, axis_name)

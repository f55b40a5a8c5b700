"""A balancing method as an optax transformation of a Jacobian: from the gradients of K tasks to one direction.

jacobian = jax.jacrev(losses)(params)                     # every leaf [K, ...]
tx = optax.chain(mtl.balancing.aggregator(mtl.balancing.upgrad()), optax.adam(1e-3))
updates, opt_state = tx.update(jacobian, opt_state, params)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from mtl_jax import parts
from mtl_jax.balancing import balance, kept
from mtl_jax.balancing.base import Balancer, Needs, method_name
from mtl_jax.balancing.kept import State
from mtl_jax.balancing.options import ONE_BY_ONE
from mtl_jax.gradients.finite import all_finite
from mtl_jax.gradients.given import check_floats, in_order, leaves_of, read_mask, read_tasks
from mtl_jax.gradients.own_linearization import of_rows
from mtl_jax.partition import unflatten

HOW = ONE_BY_ONE._replace(monitor=False)


def aggregator(balancer: Balancer, tasks: int | Sequence[str] | None = None) -> optax.GradientTransformationExtraArgs:
    """Combines a tree of Jacobians, each leaf [K, ...], to a tree like the parameters.

    ``update`` takes, besides what optax has, ``losses`` [K] or {name: scalar}, ``mask`` [K] bool or {name: bool},
    ``key``, and ``second``, the Jacobian of another sample, for methods that read them.

    Args:
      balancer: a method of `balancing.NAMES` that reads losses, a Gramian, a Jacobian or two samples.
      tasks: how many tasks, or their names in order. Without them, a method that keeps something per task starts at the
        first update, so that its state takes another form there.

    Raises:
      ValueError: for a method that learns from validation batches or looks at losses after the step (`balanced` serves
        both), and at an update for leaves of different lengths or something that the method reads and was not given.
    """
    if not isinstance(balancer, Balancer):
        raise parts.no_such("balancer", balancer, "a method such as mtl.balancing.upgrad()")
    name, names = method_name(balancer), read_tasks(tasks)
    if balancer.needs.functions or balancer.after is not None:
        what = balancer.needs.value if balancer.needs.functions else "losses after the step"
        raise ValueError(f"{name} reads {what}, which a Jacobian does not have; use mtl.balanced(losses, ...)")

    def init(params: Any) -> State:
        return kept.first(balancer, names, leaves_of(params), HOW)

    def update(
        updates: Any,
        state: State,
        params: Any = None,
        *,
        losses: Any = None,
        mask: Any = None,
        key: Array | None = None,
        second: Any = None,
        **extra: Any,
    ) -> tuple[Any, State]:
        del params, extra
        rows = leaves_of(updates)
        count = _count(rows)
        found = tuple(map(str, range(count))) if names is None else names
        if len(found) != count:
            raise ValueError(f"the Jacobian has {count} rows, and there are {len(found)} tasks: {', '.join(found)}")
        template = {p: x[0] for p, x in rows.items()}
        reads = kept.reads(balancer, count, template, HOW)
        for given, needed, what in ((losses, reads.losses, "losses"), (key, reads.key, "key"),
                                    (second, balancer.needs is Needs.CROSS, "second")):  # fmt: skip
            if needed and given is None:
                raise ValueError(f"{name} reads {what}, which was not given: update(jacobian, state, {what}=...)")
        if second is not None:
            second = leaves_of(second)
            if balancer.needs is not Needs.CROSS or jax.tree.map(jnp.shape, second) != jax.tree.map(jnp.shape, rows):
                raise ValueError("second is the Jacobian of another sample, of the shapes of the first, for methods "
                                 f"that read two; {name} reads {balancer.needs.value}")  # fmt: skip
        dtype = jnp.result_type(jnp.float32, *rows.values())
        values = jnp.ones(count, dtype) if losses is None else check_floats(in_order(losses, names)[1])
        present = read_mask(mask, found)
        rows, second = (_cut(present, x) for x in (rows, second))
        state = kept.started(state, balancer, found, template, HOW)
        key = jax.random.key(0) if key is None else key
        ids = balance.task_ids(found)
        line = of_rows(rows, values, present, second)
        direction, _, inner, _ = balance.balance(balancer, line, state.inner, present, key, state.step, HOW, ids)
        applied = all_finite(direction) & all_finite(inner, state.inner)
        new = state.moved(applied, inner, values, present)
        like = jax.tree.map(lambda x: x[0], updates)
        return unflatten({p: direction[p].astype(x.dtype) for p, x in template.items()}, like), new

    return optax.GradientTransformationExtraArgs(init, update)


def _count(rows: dict[str, Array]) -> int:
    lengths = {p: x.shape[0] if x.ndim else 0 for p, x in rows.items()}
    path, count = next(iter(lengths.items()))
    for other, length in lengths.items():
        if length != count or not length:
            raise ValueError(f"leaf {other!r} of the Jacobian has shape {rows[other].shape} and {path!r} "
                             f"{rows[path].shape}; each must be [K, ...], a row per task")  # fmt: skip
    return count


def _cut(present: Array, rows: Any) -> Any:
    """Rows of absent tasks, which may hold anything, as zeros."""
    return jax.tree.map(lambda x: jnp.where(present.reshape(-1, *(1,) * (x.ndim - 1)), x, 0), rows)

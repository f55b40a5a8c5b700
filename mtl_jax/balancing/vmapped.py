"""Several methods of one shape in one program: each run of a `vmap` is balanced by a method of its own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax import parts
from mtl_jax.balancing.base import Balancer, Result, Signal


def family(balancer: Balancer) -> str | int:
    """What balancers with the same `update` have in common; those that nothing describes stand alone."""
    if balancer.spec is None:
        return id(balancer)
    name, args, keywords = parts.parse(balancer.spec, "balancer")
    return repr((name, args, {k: v for k, v in sorted(keywords.items()) if k not in balancer.carried}))


def shape(balancer: Balancer, num_tasks: int) -> Any:
    """What balancers must have in common to train side by side: what they read, and the form of their state."""
    state = jax.eval_shape(lambda: balancer.init(num_tasks, {"shared/w": jnp.zeros(3)}))
    leaves, form = jax.tree.flatten(state)
    # What looks at losses as functions, which no custom batching takes, runs with its own kind alone.
    alone = balancer.after is not None or balancer.needs.functions
    after = family(balancer) if alone else None
    return balancer.needs, balancer.directs, after, form, tuple((x.shape, x.dtype) for x in leaves)


def complete(balancer: Balancer, signal: Signal, state: Any, mask: Any, key: Any) -> tuple[Result, Any]:
    """One update, whose head weights are ones where the method gives none."""
    result, state = balancer.update(signal, state, mask=mask, key=key)
    heads = jnp.ones_like(signal.losses) if result.head_weights is None else result.head_weights
    return result._replace(head_weights=heads), state


def side_by_side(balancers: Sequence[Balancer], copies: int, num_tasks: int) -> Balancer:
    """One balancer for ``len(balancers) * copies`` runs under one `jax.vmap`: run ``m * copies + c`` is method m's.

    Every method's `update` is applied to its own runs only, and calls that differ in what the state carries (a
    preference) are one call over all their runs. `init` is the first method's; the states of all come from their own.

    Raises:
      ValueError: if the methods read different signals or keep states of different forms.
    """
    first = balancers[0]
    if len(balancers) == 1:
        return first
    for other in balancers[1:]:
        if shape(other, num_tasks) != shape(first, num_tasks):
            raise ValueError(
                f"{first.spec or 'a given balancer'} and {other.spec or 'another'} cannot train side by side: "
                "they read different signals, or keep states of different forms; train them in runs of their own"
            )
    if len({family(b) for b in balancers}) == 1:
        return first
    spans, at = [], 0
    for i, balancer in enumerate(balancers):
        if not spans or family(spans[-1][0]) != family(balancer):
            spans.append((balancer, at * copies, at * copies))
        at = i + 1
        spans[-1] = (*spans[-1][:2], at * copies)

    @jax.custom_batching.custom_vmap
    def update(signal, state, mask, key):
        return complete(first, signal, state, mask, key)  # traced for its shapes; by_run is what is used

    @update.def_vmap
    def by_run(axis_size, in_batched, signal, state, mask, key):
        if axis_size != len(balancers) * copies:
            raise ValueError(f"{len(balancers)} methods x {copies} runs cannot balance {axis_size} runs")
        arguments = jax.tree.map(
            lambda x, batched: x if batched else jnp.broadcast_to(jnp.asarray(x)[None], (axis_size, *jnp.shape(x))),
            (signal, state, mask, key), tuple(in_batched),
        )  # fmt: skip
        found = [
            jax.vmap(lambda *of_run, b=balancer: complete(b, *of_run))(
                *jax.tree.map(lambda x, low=low, high=high: x[low:high], arguments)
            )
            for balancer, low, high in spans
        ]
        joined = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
        return joined, jax.tree.map(lambda _: True, joined)

    unit_free = all(b.unit_free for b in balancers)
    return first._replace(
        update=lambda signal, state, *, mask, key: update(signal, state, mask, key), spec=None, unit_free=unit_free
    )

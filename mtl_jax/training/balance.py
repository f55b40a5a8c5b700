"""Within a step: what a balancing method is shown, and what its decision means for trunk and heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtl_jax import partition
from mtl_jax.balancing.base import Balancer, Needs, Signal
from mtl_jax.balancing.engine import Gradient, Linearization
from mtl_jax.balancing.gramian import combine, gramian
from mtl_jax.balancing.options import Options
from mtl_jax.parallel import global_sum

Record = dict[str, Array]


class Kept(NamedTuple):
    """What stays in use between updates, where a method is not asked at every step."""

    inner: Any  # the method's own state
    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    record: Record


def start(balancer: Balancer, num_tasks: int, shared: Gradient, options: Options) -> Any:
    """The balancer's first state; `shared` are the trainable shared leaves."""
    template = shared if options.paths is None else {p: x for p, x in shared.items() if p in options.paths}
    inner = balancer.init(num_tasks, {} if options.level == "features" else template)
    if options.update_every == 1:
        return inner
    none = jnp.zeros((num_tasks,), jnp.float32)
    record = {"norms": none, "conflict": jnp.zeros(())} if balancer.needs is Needs.GRAMIAN else {}
    return Kept(inner, none, none, record)


def read(balancer: Balancer, line: Linearization, present: Bool[Array, " task"], options: Options) -> tuple:
    """(signal, record, the Jacobian if it is held whole)."""
    losses = jnp.where(present, line.losses, 0)
    if balancer.needs is Needs.LOSSES:
        return Signal(losses), {}, None
    if options.level == "features":
        rows = line.at_features()
        if balancer.needs is Needs.JACOBIAN:
            return Signal(losses, jacobian=rows), {}, None
        gram = global_sum(gramian(rows))
        return Signal(losses, gramian=gram), conflict(gram, present), None
    if balancer.needs is Needs.JACOBIAN:
        held = line.jacobian()
        return Signal(losses, jacobian=held), {}, held
    # Without a whole Jacobian in memory the direction costs one pull more; with it, a product.
    held = None if options.mode == "columns" or options.paths is not None else line.jacobian()
    gram = line.gramian() if held is None else gramian(held)
    return Signal(losses, gramian=gram), conflict(gram, present), held


def balance(
    balancer: Balancer,
    line: Linearization,
    state: Any,
    present: Bool[Array, " task"],
    key: Array,
    step: Int[Array, ""],
    options: Options,
) -> tuple[Gradient, Float[Array, " task"] | None, Any, Record]:
    """(gradient of the shared leaves, head weights, balancer state, record) of one method at one linearization."""
    if options.update_every > 1:

        def ask(kept: Kept) -> Kept:
            signal, record, _ = read(balancer, line, present, options)
            result, inner = balancer.update(signal, kept.inner, mask=present, key=key)
            heads = jnp.ones_like(result.weights) if result.head_weights is None else result.head_weights
            like = kept._replace(inner=None)
            new = Kept(None, result.weights, heads, record)
            return jax.tree.map(lambda n, o: n.astype(o.dtype), new, like)._replace(inner=inner)

        state = jax.lax.cond(step % options.update_every == 0, ask, lambda kept: kept, state)
        weights = jnp.where(present, state.weights, 0).astype(line.losses.dtype)
        return line.weighted(weights), state.head_weights, state, {"weights": weights, **state.record}
    signal, record, held = read(balancer, line, present, options)
    result, state = balancer.update(signal, state, mask=present, key=key)
    if result.direction is not None:
        shared = line.along(result.direction) if options.level == "features" else result.direction
    else:
        shared = line.weighted(result.weights) if held is None else combine(result.weights, held)
    weights = jnp.full_like(line.losses, jnp.nan) if result.weights is None else result.weights
    return shared, result.head_weights, state, {"weights": weights, **record}


def after(
    balancer: Balancer, before: Array, later: Array, state: Any, present: Bool[Array, " task"], options: Options
) -> Any:
    """The balancer's state once the losses of the same batch after the step are known."""
    if options.update_every == 1:
        return balancer.after(before, later, state, present)
    return state._replace(inner=balancer.after(before, later, state.inner, present))


def conflict(gram: Float[Array, "task task"], present: Bool[Array, " task"]) -> Record:
    """Gradient norms [K] and the share of pairs of present tasks whose gradients have a negative inner product."""
    pairs = jnp.triu(present[:, None] & present[None, :], 1)
    return {
        "norms": jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0)),
        "conflict": (pairs & (gram < 0)).sum() / jnp.maximum(pairs.sum(), 1),
    }


def scale_heads(own: dict[str, Array], weights: Float[Array, " task"] | None, names: Sequence[str]) -> dict[str, Array]:
    """Each task's own gradients times its head weight."""
    if weights is None:
        return own
    factor = {n: weights[i] for i, n in enumerate(names)}
    return {p: g * factor[partition.owner(p)].astype(g.dtype) for p, g in own.items()}

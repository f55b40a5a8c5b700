"""Within a step: what a balancing method is shown, and what its decision means for trunk and heads."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtl_jax import partition
from mtl_jax.balancing.base import Balancer, Needs, Signal
from mtl_jax.balancing.gramian import combine, cosines, gramian
from mtl_jax.balancing.linearization import Gradient, Linearization
from mtl_jax.balancing.options import Options
from mtl_jax.balancing.oracle import Oracle
from mtl_jax.parallel import global_sum

Record = dict[str, Array]


class Kept(NamedTuple):
    """What stays in use between updates, where a method is not asked at every step."""

    inner: Any  # the method's own state
    weights: Float[Array, " task"]
    head_weights: Float[Array, " task"]
    record: Record


def task_ids(names: Sequence[str]) -> np.ndarray:
    """uint32 [K], from the names alone."""
    return np.asarray([zlib.crc32(n.encode()) for n in names], np.uint32)


class Reading(NamedTuple):
    """What the method is shown at a step."""

    signal: Signal
    mask: Bool[Array, " objective"]
    record: Record
    held: Gradient | None = None  # the Jacobian, if it is held whole
    scale: Float[Array, " task"] | None = None  # of the objectives task x example


def start(balancer: Balancer, num_objectives: int, num_tasks: int, shared: Gradient, options: Options) -> Any:
    """The balancer's first state; `shared` are the trainable shared leaves."""
    template = shared if options.paths is None else {p: x for p, x in shared.items() if p in options.paths}
    inner = balancer.init(num_objectives, {} if options.level == "features" else template)
    if options.update_every == 1:
        return inner
    record = {}
    if balancer.needs is Needs.GRAMIAN and options.monitor:
        record = jax.tree.map(jnp.zeros_like, conflict(jnp.zeros((num_tasks, num_tasks)), jnp.ones(num_tasks, bool)))
    # Arrays of their own: a step that donates its state cannot take one buffer twice.
    return Kept(inner, *(jnp.zeros((num_objectives,), jnp.float32) for _ in range(2)), record)


def read(
    balancer: Balancer,
    line: Linearization,
    present: Bool[Array, " task"],
    options: Options,
    ids: np.ndarray,
    oracle: Oracle | None = None,
) -> Reading:
    """The signal that a method needs, and what is logged of it."""
    losses = jnp.where(present, line.losses, 0)
    plain = Signal(losses, ids=ids)
    if balancer.needs is Needs.LOSSES:
        return Reading(plain, present, {})
    if balancer.needs is Needs.ORACLE:
        return Reading(plain._replace(oracle=oracle), present & oracle.validation.labelled, {})
    if balancer.needs is Needs.CROSS:
        cross, both = line.cross()
        return Reading(plain._replace(cross=cross), present & both, {})
    if options.objectives == "examples":
        return read_examples(balancer, line, options, ids)
    # Without a whole Jacobian in memory the direction costs one pull more; with it, a product.
    whole = options.mode != "columns" and options.paths is None
    if options.level == "features":
        rows, held = line.at_features(), None
    elif balancer.needs is Needs.JACOBIAN or whole:
        rows = held = line.jacobian()
    else:
        rows = held = None
    if balancer.needs is Needs.JACOBIAN:
        return Reading(plain._replace(jacobian=rows), present, {}, held)
    gram = line.gramian() if rows is None else gramian(rows)
    gram = global_sum(gram) if options.level == "features" else gram
    record = conflict(gram, present) if options.monitor else {}
    return Reading(plain._replace(gramian=gram), present, record, held)


def read_examples(balancer: Balancer, line: Linearization, options: Options, ids: np.ndarray) -> Reading:
    """The signal where every task on every example is an objective, [K * batch]."""
    found = line.examples()
    count, size = found.losses.shape
    each = (ids[:, None] * np.uint32(2654435761) + np.arange(size, dtype=np.uint32)).ravel()
    plain = Signal(found.losses.ravel(), ids=each)
    mask = found.present.ravel()
    held = line.jacobian(examples=True) if options.mode != "columns" and options.paths is None else None
    if balancer.needs is Needs.JACOBIAN:
        return Reading(plain._replace(jacobian=held), mask, {}, held, found.scale)
    gram = gramian(held) if held is not None else line.gramian(examples=True)
    record = {}
    if options.monitor:
        mean = jnp.where(found.present, 1 / jnp.maximum(found.scale, 1)[:, None], 0)
        by_task = jnp.einsum("ib,ibjc,jc->ij", mean, gram.reshape(count, size, count, size), mean)
        record = conflict(by_task, found.present.any(1))
    return Reading(plain._replace(gramian=gram), mask, record, held, found.scale)


def balance(
    balancer: Balancer,
    line: Linearization,
    state: Any,
    present: Bool[Array, " task"],
    key: Array,
    step: Int[Array, ""],
    options: Options,
    ids: np.ndarray,
    oracle: Oracle | None = None,
) -> tuple[Gradient, Float[Array, " task"] | None, Any, Record]:
    """(gradient of the shared leaves, head weights, balancer state, record) of one method at one linearization.

    A method that reads an oracle may give gradients of the tasks' own leaves too.
    """
    count = len(line.losses)

    def by_task(weights: Array, scale: Array | None) -> tuple[Array, Array]:
        """(weights of the tasks' gradients, as logged [K]; the same as `Linearization.weighted` takes them)."""
        if scale is None:
            return weights, weights
        each = weights.reshape(count, -1)
        return each.sum(1), each * scale[:, None]

    if options.update_every > 1:

        def ask(kept: Kept) -> Kept:
            reading = read(balancer, line, present, options, ids, oracle)
            result, inner = balancer.update(reading.signal, kept.inner, mask=reading.mask, key=key)
            heads = jnp.ones_like(result.weights) if result.head_weights is None else result.head_weights
            like = kept._replace(inner=None)
            new = Kept(None, result.weights, heads, reading.record)
            return jax.tree.map(lambda n, o: n.astype(o.dtype), new, like)._replace(inner=inner)

        state = jax.lax.cond(step % options.update_every == 0, ask, lambda kept: kept, state)
        weights = jnp.where(present, state.weights, 0).astype(line.losses.dtype)
        return line.weighted(weights), state.head_weights, state, {"weights": weights, **state.record}
    reading = read(balancer, line, present, options, ids, oracle)
    result, state = balancer.update(reading.signal, state, mask=reading.mask, key=key)
    weights = jnp.full_like(line.losses, jnp.nan)
    if result.weights is not None:
        weights, pulled = by_task(result.weights, reading.scale)
    if result.direction is not None:
        shared = line.along(result.direction) if options.level == "features" else result.direction
    else:
        shared = line.weighted(pulled) if reading.held is None else combine(result.weights, reading.held)
    return shared, result.head_weights, state, {"weights": weights, **reading.record}


def after(
    balancer: Balancer, before: Array, later: Array, state: Any, present: Bool[Array, " task"], options: Options
) -> Any:
    """The balancer's state once the losses of the same batch after the step are known."""
    if options.update_every == 1:
        return balancer.after(before, later, state, present)
    return state._replace(inner=balancer.after(before, later, state.inner, present))


def conflict(gram: Float[Array, "task task"], present: Bool[Array, " task"]) -> Record:
    """Of the task gradients: norms [K], cosines [K, K] (nan for absent tasks), and the share of pairs in conflict."""
    pairs = jnp.triu(present[:, None] & present[None, :], 1)
    cosine, norms = cosines(gram, present)
    return {
        "norms": norms,
        "cosines": jnp.where(present[:, None] & present[None, :], cosine, jnp.nan),
        "conflict": (pairs & (gram < 0)).sum() / jnp.maximum(pairs.sum(), 1),
    }


def scale_heads(own: dict[str, Array], weights: Float[Array, " task"] | None, names: Sequence[str]) -> dict[str, Array]:
    """Each task's own gradients times its head weight."""
    if weights is None:
        return own
    factor = {n: weights[i] for i, n in enumerate(names)}
    return {p: g * factor[partition.owner(p)].astype(g.dtype) for p, g in own.items()}

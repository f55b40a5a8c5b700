"""Within a step: what a balancing method is shown, and what its decision means for trunk and heads.

`fit` and `balanced`, which serves other loops, ask a method in the same way.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtl_jax.balancing.base import Balancer, Needs, Signal, given, method_name
from mtl_jax.balancing.options import Options
from mtl_jax.batch import aligned
from mtl_jax.gradients.dense_factors import is_factored
from mtl_jax.gradients.gramian import combine, cosines, gramian
from mtl_jax.gradients.linearization import Gradient, Linearization
from mtl_jax.gradients.oracle import Oracle
from mtl_jax.gradients.units import in_range, largest_entries, times
from mtl_jax.parallel import data_axis, global_sum

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
    kept: Bool[Array, " task"] | None = None  # tasks whose rows are finite, where that was looked at


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
    weights, head_weights = (jnp.zeros((num_objectives,), jnp.float32) for _ in range(2))
    return Kept(inner, weights, head_weights, record)


def read(
    balancer: Balancer,
    line: Linearization,
    present: Bool[Array, " task"],
    options: Options,
    ids: np.ndarray,
    oracle: Oracle | None = None,
    leave_out: bool = False,
) -> Reading:
    """The signal that a method needs, and what is logged of it."""
    losses = jnp.where(present, line.losses, 0)
    plain = Signal(losses, ids=ids)
    if balancer.needs is Needs.LOSSES:
        return Reading(plain, present, {})
    if balancer.needs.functions:
        validation = given(oracle).validation
        there = present if validation is None else present & validation.labelled
        return Reading(plain._replace(oracle=oracle), there, {})
    if balancer.needs is Needs.CROSS:
        cross, both = line.cross()
        if balancer.unit_free:
            cross, _ = in_range(cross, line.largest, lambda unit: line.cross(unit)[0])
        kept = jnp.isfinite(jnp.diagonal(cross)) if leave_out else True
        return Reading(plain._replace(cross=cross), present & both & kept, {}, kept=present & kept)
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
    if leave_out and rows is not None:
        rows, present = finite_rows(rows, present, options.level == "features")
        held = None if held is None else rows
    if balancer.needs is Needs.JACOBIAN:
        return Reading(plain._replace(jacobian=rows), present, {}, held, kept=present)

    def measured(unit: Array | None = None) -> Array:
        if rows is None:
            return line.gramian() if unit is None else line.gramian(unit=unit)
        found = gramian(rows if unit is None else times(rows, unit))
        return global_sum(found) if options.level == "features" else found

    def largest() -> Array:
        return line.largest() if rows is None else over_devices(largest_entries(rows))

    gram, unit = measured(), jnp.ones(())
    if balancer.unit_free:
        gram, unit = in_range(gram, largest, measured)
    if leave_out:
        present = present & jnp.isfinite(jnp.diagonal(gram))
    record = conflict(gram, present, unit) if options.monitor else {}
    return Reading(plain._replace(gramian=gram), present, record, held, kept=present)


def finite_rows(rows: Any, present: Bool[Array, " task"], of_device: bool) -> tuple[Any, Bool[Array, " task"]]:
    """(the rows, those that are not finite cut off; which tasks are left); `of_device` where each has its own rows."""
    found = largest_entries(rows)
    there = present & jnp.isfinite(over_devices(found) if of_device else found)

    def cut(x: Array) -> Array:
        return jnp.where(aligned(there, x), x, 0)

    return {
        p: x._replace(cotangents=cut(x.cotangents)) if is_factored(x) else cut(x) for p, x in rows.items()
    }, there  # fmt: skip


def over_devices(found: Float[Array, " task"]) -> Float[Array, " task"]:
    """The largest of what the devices found."""
    return jax.lax.pmax(found, data_axis()) if data_axis() else found


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
    gram, unit = gramian(held) if held is not None else line.gramian(examples=True), jnp.ones(())
    if balancer.unit_free:
        gram, unit = in_range(gram, lambda: line.largest(True), lambda unit: line.gramian(True, unit))
    record = {}
    if options.monitor:
        mean = jnp.where(found.present, 1 / jnp.maximum(found.scale, 1)[:, None], 0)
        by_task = jnp.einsum("ib,ibjc,jc->ij", mean, gram.reshape(count, size, count, size), mean)
        record = conflict(by_task, found.present.any(1), unit)
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
    leave_out: bool = False,
) -> tuple[Gradient, Float[Array, " task"] | None, Any, Record]:
    """(gradient of the shared leaves, head weights, balancer state, record) of one method at one linearization.

    With `leave_out`, a task whose row of the Jacobian is not finite is left out, where the method reads rows at every
    step; the record says by ``kept`` [K] which tasks are left. A method that reads an oracle may give gradients of the
    tasks' own leaves too.
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
            reading = read(balancer, line, present, options, ids, oracle, leave_out)
            result, inner = balancer.update(reading.signal, kept.inner, mask=reading.mask, key=key)
            if result.weights is None:
                raise ValueError(f"{method_name(balancer)} decides on a direction, which update_every cannot use "
                                 "again, and does not say so: Balancer(..., directs=True)")  # fmt: skip
            heads = jnp.ones_like(result.weights) if result.head_weights is None else result.head_weights
            like = kept._replace(inner=None)
            new = Kept(None, result.weights, heads, reading.record)
            return jax.tree.map(lambda n, o: n.astype(o.dtype), new, like)._replace(inner=inner)

        state = jax.lax.cond(step % options.update_every == 0, ask, lambda kept: kept, state)
        weights = jnp.where(present, state.weights, 0).astype(line.losses.dtype)
        return line.weighted(weights), state.head_weights, state, {"weights": weights, **state.record}
    reading = read(balancer, line, present, options, ids, oracle, leave_out)
    result, state = balancer.update(reading.signal, state, mask=reading.mask, key=key)
    weights = jnp.full_like(line.losses, jnp.nan)
    if result.weights is not None:
        weights, pulled = by_task(result.weights, reading.scale)
    if result.direction is not None:
        shared = line.along(result.direction) if options.level == "features" else result.direction
    else:
        shared = line.weighted(pulled) if reading.held is None else combine(given(result.weights), reading.held)
    record = {"weights": weights, **reading.record}
    if leave_out and reading.kept is not None:
        record["kept"] = reading.kept
    return shared, result.head_weights, state, record


def after(
    balancer: Balancer, before: Array, later: Array, state: Any, present: Bool[Array, " task"], options: Options
) -> Any:
    """The balancer's state once the losses of the same batch after the step are known."""
    look = given(balancer.after)
    if options.update_every == 1:
        return look(before, later, state, present)
    return state._replace(inner=look(before, later, state.inner, present))


def conflict(gram: Float[Array, "task task"], present: Bool[Array, " task"], unit: Any = 1.0) -> Record:
    """Of the task gradients: norms [K], cosines [K, K] (nan for absent tasks), and the share of pairs in conflict.

    The Gramian is that of the gradients times `unit`.
    """
    pairs = jnp.triu(present[:, None] & present[None, :], 1)
    cosine, norms = cosines(gram, present)
    return {
        "norms": norms / unit,
        "cosines": jnp.where(present[:, None] & present[None, :], cosine, jnp.nan),
        "conflict": (pairs & (gram < 0)).sum() / jnp.maximum(pairs.sum(), 1),
    }

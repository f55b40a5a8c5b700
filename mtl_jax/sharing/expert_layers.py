"""Layers of experts with a gate per task: what MMoE, CGC, PLE and DSelect-k have in common.

A layer holds experts that all tasks read and, per task, experts of its own. A task goes on with its gate's mixture of
its own and the shared experts; in front of a further layer a shared gate mixes all experts of all tasks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.batch import PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.keys import named_keys
from mtl_jax.model import MANY, MultiTaskModel
from mtl_jax.sharing.gates import Gate, Groups, OfEach, check_reads, gate_inputs
from mtl_jax.sharing.places import Rows
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task, check_names


def mix(weights: Float[Array, "batch expert"], *experts: Any) -> Any:
    """Features weighted row by row; each group of `experts` is stacked in front, or None.

    Group by group, so that what all tasks read is not copied for each.
    """
    total: Any = 0
    rest = weights
    for group in experts:
        if group is not None:
            values = values_of(group)
            mine, rest = rest[:, : len(values)], rest[:, len(values) :]
            total = total + jnp.einsum("be,eb...->b...", mine.astype(values.dtype), values)
    return with_values(jax.tree.map(lambda x: x[0], experts[-1]), total)


def joined(*experts: Any) -> Any:
    """Groups of stacked experts one behind the other; None for no group."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *(e for e in experts if e is not None))


def extraction(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    *,
    shared: int,
    own: int,
    gate: Gate,
    reads: str,
    layers: int | None = None,
) -> MultiTaskModel:
    """A model of one layer of experts (`layers` None), or of several over groups of the encoder's stages.

    With several, experts of a layer that is not the last reach all tasks through the shared gate, and so do task gates
    of layers before the last two: these are under ``shared/layer_<i>/experts_of`` and ``gates``, stacked in the tasks'
    order. What only task t reaches is under ``tasks/<t>``.

    Args:
      encoder: an expert of layer i is a copy of its i-th group of stages; the pool goes with the last.
      tasks: on common inputs, or each on its own, in a pass of its own.
      sharing: named in errors.
      shared, own: number of experts in common and of each task's own, in every layer.
      gate: makes weights of what it reads.
      reads: what gates read, one of `gates.READS`.
      layers: how many.
    """
    check_reads(reads, sharing)
    names = tuple(t.name for t in check_names(tasks))
    last, stages = (layers or 1) - 1, len(encoder.stages)
    edges = [round(stages * i / (last + 1)) for i in range(last + 2)]
    groups = [base.layers(encoder, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    levels = [""] if layers is None else [f"layer_{i}/" for i in range(layers)]
    of_task: Groups = {"own": own, "shared": shared}
    of_all: Groups = {"of": OfEach(names, own), "shared": shared}
    if not own:
        of_task = of_all = {"shared": shared}
    in_common, of_own = tuple(map(str, range(shared))), tuple(map(str, range(own)))

    def reading(x: Any, mine: Any, of_shared: Any) -> Any:
        """What a task's gate reads."""
        return gate_inputs(reads, x, joined(mine, of_shared), sharing)

    def through(params: Any, x: Any, mine: Any, of_shared: Any) -> tuple[Any, Any, dict[str, Any]]:
        """(the features that a task's gate mixes, the mean weights of its experts, its auxiliary losses)."""
        weights, losses = gate.apply(params, reading(x, mine, of_shared), of_task)
        return mix(weights, mine, of_shared), weights.mean(0), losses

    def of_one(at: Any, x: Any, mine: Any, of_shared: Any, index: int) -> tuple[Any, Any, dict[str, Any]]:
        """`through` a gate of the task's own."""
        if own and index == last:
            mine = at.columns(groups[index], f"own/{levels[index]}experts", of_own, x)
        begin = functools.partial(gate.start, x=reading(x, mine, of_shared), groups=of_task)
        return through(at.leaf(f"own/{levels[index]}gate", begin), x, mine, of_shared)

    def of_all_tasks(at: Any, xs: Any, mine: Any, of_shared: Any, index: int) -> tuple[Rows, PerTask, PerTask]:
        """`through` the gate of every task, which other tasks reach too."""
        x, axis = (xs.tree, 0) if isinstance(xs, Rows) else (xs, None)
        first = jax.tree.map(lambda leaf: leaf[0], (xs, mine) if axis == 0 else (None, mine))
        begin = functools.partial(
            gate.start, x=reading(first[0].tree if axis == 0 else x, first[1], of_shared), groups=of_task
        )
        place = f"shared/{levels[index]}gates"
        params = at.leaf(place, lambda _: jax.vmap(begin)(named_keys(at.key, [f"{place}/{n}" for n in names])))
        x, share, losses = jax.vmap(through, (0, axis, 0, None))(params, x, mine, of_shared)
        return Rows(x), at.apart(share), at.apart(losses)

    def walk(at: Any, inputs: Any) -> PerTask:
        xs: Any = inputs  # what tasks read, one value or their own
        common = inputs  # what the experts in common read
        for index, (named, level) in enumerate(zip(groups, levels, strict=True)):
            of_shared, mine = at.columns(named, f"shared/{level}experts", in_common, common), None
            if own and index < last:
                mine = at.columns_of_each(named, f"shared/{level}experts_of", of_own, xs)
            if index < last - 1:
                xs, share, losses = of_all_tasks(at, xs, mine, of_shared, index)
            else:
                one = functools.partial(of_one, index=index)
                xs, share, losses = at.each(
                    one, xs, mine if mine is None else Rows(mine), of_shared, few=None if own else 0
                )
            report(at, level, share, losses, of_task)
            if index < last:
                every = mine if mine is None else jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), mine)
                read = gate_inputs(reads, common, joined(every, of_shared), sharing)
                begin = functools.partial(gate.start, x=read, groups=of_all)
                weights, losses = gate.apply(at.leaf(f"shared/{level}gate", begin), read, of_all)
                common = mix(weights, every, of_shared)
                at.losses |= {f"{level}{name}/shared": value for name, value in losses.items()}
                at.metrics |= load(level, "shared", weights.mean(0), of_all)
        return xs

    return walked(sharing, encoder, tasks, walk)


def report(at: Any, level: str, share: PerTask, losses: PerTask, groups: Groups) -> None:
    """Notes the auxiliary losses and the use of experts, task by task; of many tasks, of all together."""
    if len(at.wanted) > MANY:
        at.losses |= {f"{level}{name}/tasks": values.sum() for name, values in at.rows(losses).items()}
        at.metrics |= load(level, "tasks", at.rows(share).mean(0), groups)
        return
    for t in at.wanted:
        at.losses |= {f"{level}{name}/{t}": value for name, value in losses[t].items()}
        at.metrics |= load(level, t, share[t], groups)


def load(level: str, who: str, share: Float[Array, " expert"], groups: Groups) -> dict[str, Float[Array, ""]]:
    """Each expert's mean share of the weights, and the entropy of these shares: 0 where one is used alone."""
    found, rest = {}, share
    for group, own in groups.items():
        count = own if isinstance(own, int) else own.count * len(own.names)
        mine, rest = rest[:count], rest[count:]
        if isinstance(own, OfEach) and len(own.names) > MANY:
            found[f"{level}load/{who}/of_tasks"] = mine.sum()
            continue
        labels = [group] if isinstance(own, int) else [f"{group}_{name}" for name in own.names]
        places = [f"{label}_{i}" for label in labels for i in range(count // len(labels))]
        found |= {f"{level}load/{who}/{place}": x for place, x in zip(places, mine, strict=True)}
    return found | {f"{level}gate_entropy/{who}": -(share * jnp.log(jnp.maximum(share, 1e-12))).sum()}

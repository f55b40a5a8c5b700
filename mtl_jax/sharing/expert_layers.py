"""Layers of experts with a gate per task: what MMoE, CGC, PLE and DSelect-k have in common.

A layer holds experts that all tasks read and, per task, experts of its own. A task goes on with its gate's mixture of
its own and the shared experts; in front of a further layer a shared gate mixes all experts of all tasks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.keys import TaskKey, named_key
from mtl_jax.model import MultiTaskModel, Train, by_kind, merge, no_penalty
from mtl_jax.sharing.encoder_copies import apply_columns, common_inputs, init_columns, one_by_one
from mtl_jax.sharing.gates import Gate, check_reads, gate_inputs
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.own_inputs import on_own_inputs
from mtl_jax.stacking import as_one, lying_as
from mtl_jax.tasks import Task, check_names

Path = tuple[str, ...]
SHARED = None  # the reader that no task is
MANY = 20  # tasks; of more, one number says how all of them use an expert, where their gates lie stacked


def nest(path: Path, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for ("a", "b")."""
    for name in reversed(path):
        value = {name: value}
    return value


def entry(tree: Any, path: Path) -> Any:
    """What `tree` holds at `path`, or an empty dict."""
    for name in path:
        tree = tree.get(name, {})
    return tree


def mix(weights: Float[Array, "batch expert"], stacked: Any) -> Any:
    """Features weighted row by row; `stacked` has the experts in front."""
    values = values_of(stacked)
    mixed = jnp.einsum("be,eb...->b...", weights.astype(values.dtype), values)
    return with_values(jax.tree.map(lambda x: x[0], stacked), mixed)


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
    of layers before the last two: these are under ``shared/layer_<i>/experts_of/<t>`` and ``gates/<t>``. What only task
    t reaches is under ``tasks/<t>``.

    Args:
      encoder: an expert of layer i is a copy of its i-th group of stages; the pool goes with the last.
      tasks: on common inputs, or each on its own, in a pass of its own.
      sharing: named in errors.
      shared, own: number of experts in common and of each task's own, in every layer.
      gate: makes weights of what it reads.
      reads: what gates read, one of `gates.READS`.
      layers: how many.
    """
    tasks = check_names(tasks)
    check_reads(reads, sharing)
    last = (layers or 1) - 1
    stages = len(encoder.stages)
    edges = [round(stages * i / (last + 1)) for i in range(last + 2)]
    groups = [base.layers(encoder, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}
    names = tuple(modules)

    def within(index: int) -> Path:
        return () if layers is None else (f"layer_{index}",)

    def experts_of(reader: str | None, index: int) -> Path:
        if reader is SHARED:
            return ("shared", *within(index), "experts")
        if index == last:
            return ("tasks", reader, *within(index), "experts")
        return ("shared", *within(index), "experts_of", reader)

    def gate_of(reader: str | None, index: int) -> Path:
        if reader is SHARED:
            return ("shared", *within(index), "gate")
        if index >= last - 1:
            return ("tasks", reader, *within(index), "gate")
        return ("shared", *within(index), "gates", reader)

    def read_by(reader: str | None) -> dict[str, str | None]:
        """{group of experts: who owns it} that a reader's gate mixes, in order."""
        owners = names if reader is SHARED else (reader,)
        own_groups = {f"of_{t}" if reader is SHARED else "own": t for t in owners} if own else {}
        return own_groups | {"shared": SHARED}

    def copies(owner: str | None) -> tuple[str, ...]:
        return tuple(map(str, range(shared if owner is SHARED else own)))

    def owners(index: int, chosen: Sequence[str]) -> list[str | None]:
        return [*((chosen if index == last else names) if own else ()), SHARED]

    def readers(index: int, chosen: Sequence[str]) -> list[str | None]:
        return list(chosen) if index == last else [*(chosen if index == last - 1 else names), SHARED]

    def gated(reader: str | None, x: Any, outputs: dict) -> tuple[Any, dict[str, int], Any]:
        """(what the gate reads, its groups, their experts stacked)."""
        mine = {g: outputs[owner] for g, owner in read_by(reader).items()}
        stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *mine.values())
        sizes = {g: len(values_of(out)) for g, out in mine.items()}
        return gate_inputs(reads, x, stacked, sharing), sizes, stacked

    def through(params: Any, read: Any, sizes: dict[str, int], stacked: Any) -> tuple[Any, Any, dict[str, Any]]:
        """(a gate's weights, the features that it mixes, its auxiliary losses)."""
        weights, more = gate.apply(params, read, sizes)
        return weights, mix(weights, stacked), more

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        inputs = common_inputs(batch, sharing)
        variables = {kind: {"shared": {}, "tasks": {}} for kind in ("params", "state")}
        xs = dict.fromkeys([*names, SHARED], inputs)
        for index, named in enumerate(groups):
            outputs = {}
            for owner in owners(index, names):
                path = experts_of(owner, index)
                weights, state, outputs[owner] = init_columns(named, rng, xs[owner], "/".join(path), copies(owner))
                new = {"params": nest(path, weights), "state": nest(path, state) if state else {}}
                variables = merge(variables, new)
            for reader in readers(index, names):
                read, sizes, stacked = gated(reader, xs[reader], outputs)
                path = gate_of(reader, index)
                weights = gate.start(named_key(rng, "/".join(path)), read, sizes)
                variables = merge(variables, {"params": nest(path, weights)})
                xs[reader] = jax.tree.map(lambda x: x[0], stacked)
        return merge(variables, {"params": {"tasks": init_heads(modules, rng, xs)}})

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        inputs, chosen = common_inputs(batch, sharing), names if tasks is None else tuple(tasks)
        xs = dict.fromkeys([*names, SHARED], inputs)
        changed, losses, use = {}, {}, {}
        for index, named in enumerate(groups):
            outputs, mixed, level = {}, {}, "".join(f"{n}/" for n in within(index))
            for owner in owners(index, chosen):
                path = experts_of(owner, index)
                outputs[owner], new = apply_columns(
                    named, entry(variables["params"], path), entry(variables["state"], path), xs[owner], train=train,
                    key=rng, prefix="/".join(path), names=copies(owner),
                )  # fmt: skip
                changed = merge(changed, nest(path, new)) if new else changed
            group = readers(index, chosen)
            gates = {reader: entry(variables["params"], gate_of(reader, index)) for reader in group}
            if not own and index == 0:  # all gates read and mix the same
                read, sizes, stacked = gated(group[0], inputs, outputs)
                together = jax.vmap(functools.partial(through, read=read, sizes=sizes, stacked=stacked))
                whole = as_one(variables["params"]["tasks"], group)
                if whole is not None and len(group) > MANY and index == last:
                    weights, x, more = together(entry(whole, gate_of(group[0], index)[2:]))
                    losses = {f"{level}{name}/tasks": value.sum() for name, value in more.items()}
                    every = weights.reshape(-1, weights.shape[-1])
                    use = load(f"{level}load/tasks", f"{level}gate_entropy/tasks", every, sizes)
                    features = PerTask(lying_as(variables["params"]["tasks"], group, x))
                    return features, changed, {"losses": losses, "metrics": use}
                every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gates.values())
                found = one_by_one(together(every), group)
            for reader in group:
                if own or index > 0:
                    read, sizes, stacked = gated(reader, xs[reader], outputs)
                    found = {reader: through(gates[reader], read, sizes, stacked)}
                weights, mixed[reader], more = found[reader]
                who = "shared" if reader is SHARED else reader
                losses |= {f"{level}{name}/{who}": value for name, value in more.items()}
                use |= load(f"{level}load/{who}", f"{level}gate_entropy/{who}", weights, sizes)
            xs |= mixed
        return PerTask({t: xs[t] for t in chosen}), changed, {"losses": losses, "metrics": use}

    model = MultiTaskModel(tasks, "per_task", init, encode, decode_heads(modules), no_penalty, encoder, alike=by_kind)
    if not own and layers is None:
        model = model._replace(of_tasks=lambda some: extraction(
            encoder, some, sharing, shared=shared, own=own, gate=gate, reads=reads
        ))  # fmt: skip
    return on_own_inputs(model, sharing)


def load(
    prefix: str, entropy: str, weights: Float[Array, "batch expert"], sizes: dict[str, int]
) -> dict[str, Float[Array, ""]]:
    """Each expert's mean share of the weights, and the entropy of these shares: 0 where one is used alone."""
    share = weights.mean(0)
    labels = [f"{prefix}/{group}_{i}" for group, count in sizes.items() for i in range(count)]
    return dict(zip(labels, share, strict=True)) | {entropy: -(share * jnp.log(jnp.maximum(share, 1e-12))).sum()}

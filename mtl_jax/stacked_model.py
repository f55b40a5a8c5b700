"""A model whose tasks lie stacked: its functions for a group of alike tasks at once, by `vmap` over their leaves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask
from mtl_jax.keys import TaskKey
from mtl_jax.model import MANY, MultiTaskModel, Train, merge
from mtl_jax.stacking import Layout, Standing, View


def branched(model: MultiTaskModel, batch: Batch) -> bool:
    """Whether each task's features are a computation of their own."""
    return model.features == "branched" or isinstance(batch.inputs, PerTask)


def encode(
    model: MultiTaskModel, layout: Layout, variables: Any, batch: Batch, *, train: Train = False, rng: Any = None
) -> tuple[Any, dict, dict]:
    """(features, new state, aux) of one computation for all tasks; features in common, or {first: leaves [task, ...]}.

    Args:
      model, layout: the model, and how its tasks lie.
      variables, batch: stacked.
      train, rng: as `MultiTaskModel.encode` takes them.
    """
    whole, changed, aux = model.encode(
        layout.view_variables(variables), layout.view_batch(batch), train=train, rng=rng, tasks=None
    )
    if isinstance(whole, PerTask):
        whole = PerTask(layout.stack(whole))
    return whole, restacked(layout, variables["state"], changed), aux


def encode_group(
    model: MultiTaskModel,
    layout: Layout,
    first: str,
    variables: Any,
    batch: Batch,
    shared: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
    *,
    train: Train = False,
    rng: Any = None,
    copies: bool = False,
) -> tuple[Any, dict, dict]:
    """`encode` of the branches of one group: features are leaves [task, ...].

    Args:
      model, layout, variables, batch, train, rng: as in `encode`.
      first: the group.
      shared, own: {path: leaf} in place of those in `variables`.
      copies: whether leaves of `shared` are [task, ...], a copy for each task.
    """
    size = layout.size(first)

    def one(shared: Any, mine: Any, index: Any) -> tuple:
        return encode_one(model, layout, first, variables, batch, shared, mine, index, train=train, rng=rng)

    x, own_state, common, aux = jax.vmap(one, (0 if copies else None, 0, 0), axis_size=size)(
        dict(shared or {}), own_of(first, variables, batch, own), jnp.arange(size)
    )
    changed = {"tasks": {first: own_state}} if own_state else {}
    if common:  # as branches one after the other would leave it
        changed["shared"] = jax.tree.map(lambda x: x[-1], common)
    names = layout.groups[first]
    if len(names) > MANY and len(names) == len(layout.names):
        losses = {_of_task(key, first, "tasks"): v.sum() for key, v in aux["losses"].items()}
        metrics = {_of_task(key, first, "tasks"): v.mean(0) for key, v in aux["metrics"].items()}
        return x, changed, {"losses": losses, "metrics": metrics}
    named = {
        kind: {_of_task(key, first, n): v[i] for key, v in found.items() for i, n in enumerate(names)}
        for kind, found in aux.items()
    }
    return x, changed, named


def _of_task(key: str, first: str, name: str) -> str:
    """What a task reports, such as ``gate_entropy/<task>``, by its own name."""
    return "/".join(name if part == first else part for part in key.split("/"))


class Own(NamedTuple):
    """What a group has of its own, with leaves [task, ...], or one task of it has."""

    weights: Any
    state: Any
    inputs: Any
    labels: dict[str, Any]


def own_of(first: str, variables: Any, batch: Batch, own: Mapping[str, Any] | None = None) -> Own:
    """What a group has of its own; `own` {path: leaf} go before what `variables` hold."""
    weights = {"tasks": {first: variables["params"]["tasks"].get(first, {})}}
    return Own(
        partition.unflatten(own or {}, weights)["tasks"][first],
        variables["state"]["tasks"].get(first, {}),
        batch.inputs[first] if isinstance(batch.inputs, PerTask) else None,
        {k: x[first] for k in ("targets", "masks") if first in (x := getattr(batch, k))},
    )


def encode_one(
    model: MultiTaskModel,
    layout: Layout,
    first: str,
    variables: Any,
    batch: Batch,
    shared: Mapping[str, Any],
    own: Own,
    index: Any,
    *,
    train: Train,
    rng: Any,
) -> tuple[Any, dict, dict, dict]:
    """(features, new state of its own, new state in common, aux) of the branch of one task, whose index is traced."""
    found = of_one(layout, first, variables, own.weights, own.state)
    found["params"]["shared"] = partition.unflatten(shared, {"shared": found["params"]["shared"]})["shared"]
    seen = layout.view_batch(batch)
    for kind, labels in own.labels.items():
        seen = seen._replace(**{kind: layout.view(getattr(batch, kind), {first: labels})})
    if own.inputs is not None:
        seen = seen._replace(inputs=PerTask({first: own.inputs}))
    about, key = Standing.of(layout, first, index), key_of(layout, first, rng, index)
    x, changed, aux = model.encode(found, seen, train=train, rng=key, tasks=about)
    x = x[first] if isinstance(x, PerTask) else x
    return x, changed.get("tasks", {}).get(first, {}), changed.get("shared", {}), aux


def decode(
    model: MultiTaskModel,
    layout: Layout,
    variables: Any,
    features: Mapping[str, Any],
    *,
    train: Train = False,
    rng: Any = None,
    in_common: bool = False,
) -> tuple[dict[str, Any], dict]:
    """({first: outputs [task, ...]}, new state) of stacked features, or (`in_common`) of one value for all tasks."""
    outputs, changed = {}, {}
    for first, x in features.items():

        def one(weights: Any, state: Any, x: Any, index: Any, first: str = first) -> tuple:
            return decode_one(model, layout, first, variables, weights, state, x, index, train=train, rng=rng)

        weights = variables["params"]["tasks"].get(first, {})
        state = variables["state"]["tasks"].get(first, {})
        size = layout.size(first)
        outputs[first], new = jax.vmap(one, (0, 0, None if in_common else 0, 0), axis_size=size)(
            weights, state, x, jnp.arange(size)
        )
        if new:
            changed[first] = new
    return outputs, {"tasks": changed} if changed else {}


def decode_one(
    model: MultiTaskModel,
    layout: Layout,
    first: str,
    variables: Any,
    weights: Any,
    state: Any,
    x: Any,
    index: Any,
    *,
    train: Train,
    rng: Any,
) -> tuple[Any, dict]:
    """(outputs, new state) of one task of a group, from its own weights, state and features."""
    outputs, changed = model.decode(
        of_one(layout, first, variables, weights, state), {first: x}, train=train, rng=key_of(layout, first, rng, index)
    )
    return outputs[first], changed.get("tasks", {}).get(first, {})


def forward(
    model: MultiTaskModel, layout: Layout, variables: Any, batch: Batch, *, train: Train = False, rng: Any = None
) -> tuple[dict[str, Any], Any]:
    """({first: outputs [task, ...]}, variables["state"] after it) of all tasks, in one pass."""
    if branched(model, batch):
        features, new_state, in_common = {}, {}, False
        for first in layout.groups:
            features[first], changed, _ = encode_group(model, layout, first, variables, batch, train=train, rng=rng)
            new_state = merge(new_state, changed)
    else:
        whole, new_state, _ = encode(model, layout, variables, batch, train=train, rng=rng)
        in_common = not isinstance(whole, PerTask)
        features = dict.fromkeys(layout.groups, whole) if in_common else dict(whole)
    outputs, decoded = decode(model, layout, variables, features, train=train, rng=rng, in_common=in_common)
    return outputs, merge(merge(variables["state"], new_state), decoded)


def of_one(layout: Layout, first: str, variables: Any, weights: Any, state: Any) -> Any:
    """The variables as the task that stands for a group reads them: its own are those of one task of the group."""

    def with_own(kind: str, own: Any) -> dict:
        tree = variables[kind]
        return {"shared": tree["shared"], "tasks": layout.view(tree["tasks"], {first: own} if own else {})}

    return {"params": with_own("params", weights), "state": with_own("state", state)}


def key_of(layout: Layout, first: str, rng: Any, index: Any) -> Any:
    """The key of a task of a group."""
    return None if rng is None else TaskKey(rng, layout.groups[first], index)


def restacked(layout: Layout, state: Any, changed: dict) -> dict:
    """What `encode` changed of the state, stacked; tasks of a group whose state did not change keep theirs."""
    tasks = changed.get("tasks", {})
    if not tasks:
        return changed
    stood, named = (tasks.stacked, tasks.own) if isinstance(tasks, View) else ({}, tasks)
    found = {first: merge(state["tasks"][first], new) for first, new in stood.items()}
    whole = layout.view(state["tasks"])
    groups = {first for first, names in layout.groups.items() if any(n in named for n in names)}
    full = {n: merge(whole[n], named.get(n, {})) for first in groups for n in layout.groups[first]}
    return {**changed, "tasks": found | layout.stack(full)}

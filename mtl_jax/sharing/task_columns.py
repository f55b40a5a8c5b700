"""A column of stages per task whose features are mixed after every stage: cross-stitch, NDDR and sluice networks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.keys import named_key
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind, no_penalty
from mtl_jax.sharing.encoder_copies import apply_columns, common_inputs, init_columns, one_by_one
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.tasks import Task, check_names


class Unit(NamedTuple):
    """What mixes the columns after a stage. Values are [task, B, ..., width].

    Attributes:
      start: (key, stage's name, values of the shape to come) -> (params, state).
      apply: (params, state, values, on) -> (values, new state); `on` says whether statistics are taken.
    """

    start: Callable
    apply: Callable


class Reading(NamedTuple):
    """What the columns' tops are made of, in front of the pool.

    Attributes:
      start: (key, [features after each stage, stacked by task; of the shape to come]) -> params.
      apply: (params, [features]) -> features.
    """

    start: Callable
    apply: Callable


def mixed_columns(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    unit: Unit,
    reading: Reading | None = None,
    penalty: Callable = no_penalty,
) -> MultiTaskModel:
    """A copy of the encoder per task; `unit` mixes them after each stage, `reading` makes their tops.

    Everything is under ``shared``: ``columns`` (stacked in the tasks' order), ``units/<stage>`` and ``reading``.
    """
    tasks = check_names(tasks)
    names = tuple(t.name for t in tasks)
    stages = [(f"stage_{i}", stage) for i, stage in enumerate(encoder.stages)]
    pool = [("pool", encoder.pool)] if encoder.pool is not None else []
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        inputs = common_inputs(batch, sharing)
        columns, statistics, x = init_columns([*stages, *pool], rng, inputs, "shared/columns", names)
        tops = one_by_one(x, names)
        units, unit_state = {}, {}
        shapes = jax.eval_shape(stages_of, columns, statistics, inputs)
        behind = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        for (name, _), x in zip(stages, behind, strict=True):
            units[name], new = unit.start(named_key(rng, f"shared/units/{name}"), name, values_of(x))
            unit_state |= {name: new} if new else {}
        shared = {"columns": columns, "units": units}
        if reading is not None:
            shared["reading"] = reading.start(named_key(rng, "shared/reading"), behind)
        state = {"columns": statistics} if statistics else {}
        state |= {"units": unit_state} if unit_state else {}
        return {
            "params": {"shared": shared, "tasks": init_heads(modules, rng, tops)},
            "state": {"shared": state, "tasks": {}},
        }

    def columns_of(
        params: dict, state: dict, named: list, x: Any, train: Train, key: Any, stacked: bool
    ) -> tuple[Any, dict]:
        return apply_columns(
            named, params, state, x, train=train, key=key, prefix="shared/columns", names=names, stacked=stacked
        )

    def stages_of(params: dict, state: dict, x: Any) -> list:
        behind = []
        for layer in stages:
            x, _ = columns_of(params, state, [layer], x, False, None, bool(behind))
            behind.append(x)
        return behind

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        x, behind, changed = common_inputs(batch, sharing), [], {}
        shared, state = variables["params"]["shared"], variables["state"]["shared"]
        columns, statistics = shared["columns"], state.get("columns", {})
        for i, layer in enumerate(stages):
            name = layer[0]
            x, new = columns_of(columns, statistics, [layer], x, train, rng, i > 0)
            if new:
                changed.setdefault("columns", {}).update(new)
            on = train(f"shared/units/{name}") if callable(train) else train
            values, new = unit.apply(shared["units"][name], state.get("units", {}).get(name, {}), values_of(x), on)
            if new:
                changed.setdefault("units", {})[name] = new
            x = with_values(x, values)
            behind.append(x)
        if reading is not None:
            x = reading.apply(shared["reading"], behind)
        x, new = columns_of(columns, statistics, pool, x, train, rng, True)
        if new:
            changed.setdefault("columns", {}).update(new)
        features = one_by_one(x, names)
        chosen = names if tasks is None else tasks
        return PerTask({t: features[t] for t in chosen}), {"shared": changed} if changed else {}, NO_AUX

    return MultiTaskModel(tasks, "per_task", init, encode, decode_heads(modules), penalty, encoder, alike=by_kind)


def own_and_others(count: int, own: float, sharing: str) -> Array:
    """[count, count]: `own` on the diagonal, the rest of 1 spread evenly over the others; 1 for a lone column.

    Raises:
      ValueError: if `own` is not a share.
    """
    if not 0 <= own <= 1:
        raise ValueError(f"{sharing}: own={own} must lie in [0, 1]")
    return jnp.where(jnp.eye(count, dtype=bool), own if count > 1 else 1.0, (1 - own) / max(count - 1, 1))

"""Cross-stitch networks (Misra et al., CVPR 2016, arXiv:1604.03539)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads, parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders.base import Encoder, Train
from mtl_jax.sharing.columns import apply_columns, common_inputs, init_columns
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.model import NO_AUX, MultiTaskModel, no_penalty
from mtl_jax.tasks import Task, check_names


@parts.recorded("encoder", "tasks")
def cross_stitch(encoder: Encoder, tasks: Sequence[Task], own: float = 0.9) -> MultiTaskModel:
    """A column of stages per task; behind each stage a learned matrix mixes the columns' features.

    Column t goes on with sum_s A_ts x_s. Columns and matrices are stacked under ``shared``, in the tasks' order.

    Args:
      encoder: of each column.
      tasks: on common inputs.
      own: first value of A_tt; the rest is spread evenly over the other columns. 1 starts as independent networks.
    """
    tasks = check_names(tasks)
    count, names = len(tasks), tuple(t.name for t in tasks)
    if not 0 <= own <= 1:
        raise ValueError(f"cross_stitch: own={own} must lie in [0, 1]")
    stages = [(f"stage_{i}", stage) for i, stage in enumerate(encoder.stages)]
    pool = [("pool", encoder.pool)] if encoder.pool is not None else []
    modules = {t.name: heads.build(t) for t in tasks}

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        inputs = common_inputs(batch, "cross_stitch")
        weights, state, x = init_columns([*stages, *pool], rng, inputs, "shared/columns", names)
        spread = (1 - own) / max(count - 1, 1)
        unit = jnp.where(jnp.eye(count, dtype=bool), own if count > 1 else 1.0, spread)
        shared = {"columns": weights, "units": {name: unit for name, _ in stages}}
        return {
            "params": {"shared": shared, "tasks": init_heads(modules, rng, dict(zip(names, x, strict=True)))},
            "state": {"shared": {"columns": state} if state else {}, "tasks": {}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        x, changed = common_inputs(batch, "cross_stitch"), {}
        shared, state = variables["params"]["shared"], variables["state"]["shared"].get("columns", {})
        for i, layer in enumerate([*stages, *pool]):
            x, new = apply_columns([layer], shared["columns"], state, x, train=train, key=rng, prefix="shared/columns",
                                   names=names, stacked=i > 0)  # fmt: skip
            changed |= new
            if layer[0] in shared["units"]:
                x = jnp.einsum("ts,s...->t...", shared["units"][layer[0]].astype(x.dtype), x)
        features = dict(zip(names, x, strict=True))
        chosen = names if tasks is None else tasks
        new_state = {"shared": {"columns": changed}} if changed else {}
        return PerTask({t: features[t] for t in chosen}), new_state, NO_AUX

    return MultiTaskModel(tasks, "per_task", init, encode, decode_heads(modules), no_penalty, encoder)

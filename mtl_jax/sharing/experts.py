"""Mixtures of experts: MMoE (Ma et al., KDD 2018, "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts").
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads, parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder, Train
from mtl_jax.sharing.columns import apply_columns, common_inputs, init_columns
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.model import MultiTaskModel, no_penalty
from mtl_jax.tasks import Task, check_names


@parts.recorded("encoder", "tasks")
def mmoe(encoder: Encoder, tasks: Sequence[Task], experts: int = 4) -> MultiTaskModel:
    """Every task reads its own mixture of the same experts: sum_e softmax(W_t x)_e expert_e(x).

    Experts are whole copies of the encoder, stacked under ``shared/experts``; a task's gate, linear in the flattened
    input, is under ``tasks/<t>/gate``. Logged: the entropy of each gate's mean use of the experts, 0 where one is used
    alone.

    Args:
      encoder: of each expert.
      tasks: on common inputs.
      experts: how many.
    """
    tasks = check_names(tasks)
    if experts < 1:
        raise ValueError(f"mmoe: experts={experts} must be at least 1")
    named = base.layers(encoder)
    modules = {t.name: heads.build(t) for t in tasks}
    names = tuple(map(str, range(experts)))
    gate = nn.Dense(experts, name="gate")

    def flat(inputs: Any) -> Array:
        return jnp.concatenate([layers.flat(x).astype(jnp.float32) for x in jax.tree.leaves(inputs)], -1)

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        inputs = common_inputs(batch, "mmoe")
        weights, state, x = init_columns(named, rng, inputs, "shared/experts", names)
        own = init_heads(modules, rng, {t: x[0] for t in modules})
        for t in modules:
            own[t]["gate"] = gate.init(base.named_key(rng, f"tasks/{t}/gate"), flat(inputs))["params"]
        return {
            "params": {"shared": {"experts": weights}, "tasks": own},
            "state": {"shared": {"experts": state} if state else {}, "tasks": {}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        inputs = common_inputs(batch, "mmoe")
        shared, state = variables["params"]["shared"]["experts"], variables["state"]["shared"].get("experts", {})
        x, changed = apply_columns(named, shared, state, inputs, train=train, key=rng, prefix="shared/experts",
                                   names=names)  # fmt: skip
        features, use = {}, {}
        for t in modules if tasks is None else tasks:
            own = variables["params"]["tasks"][t]["gate"]
            share = jax.nn.softmax(gate.apply({"params": own}, flat(inputs)), -1)
            features[t] = jnp.einsum("be,eb...->b...", share.astype(x.dtype), x)
            mean = share.mean(0)
            use[f"gate_entropy/{t}"] = -(mean * jnp.log(jnp.maximum(mean, 1e-12))).sum()
        new_state = {"shared": {"experts": changed}} if changed else {}
        return PerTask(features), new_state, {"losses": {}, "metrics": use}

    return MultiTaskModel(tasks, "per_task", init, encode, decode_heads(modules), no_penalty, encoder)

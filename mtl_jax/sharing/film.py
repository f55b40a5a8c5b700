"""Feature-wise linear modulation by task (Perez et al., AAAI 2018, arXiv:1709.07871)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads, parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder, Train
from mtl_jax.sharing.columns import common_inputs
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.model import NO_AUX, MultiTaskModel, no_penalty
from mtl_jax.tasks import Task, check_names


@parts.recorded("encoder", "tasks")
def film(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """One trunk whose features each task scales and shifts behind every stage: gamma_t x + beta_t, channel by channel.

    gamma starts at 1 and beta at 0, under ``tasks/<t>/film``: the model starts as hard sharing. Each task is a pass
    through the trunk of its own. Batch statistics are those of each task's own pass, under ``state/tasks``.
    """
    tasks = check_names(tasks)
    named = base.layers(encoder)
    stages = {f"stage_{i}" for i in range(len(encoder.stages))}
    modules = {t.name: heads.build(t) for t in tasks}

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        x, weights, state, widths = common_inputs(batch, "film"), {}, {}, {}
        for layer in named:
            new, statistics, x = base.init_layers([layer], rng, x, "shared/encoder")
            weights, state = weights | new, state | statistics
            widths[layer[0]] = x.shape[-1]
        own = init_heads(modules, rng, dict.fromkeys(modules, x))
        for t in modules:
            own[t]["film"] = {n: {"gamma": jnp.ones(w), "beta": jnp.zeros(w)} for n, w in widths.items() if n in stages}
        return {
            "params": {"shared": {"encoder": weights}, "tasks": own},
            "state": {"shared": {}, "tasks": {t: {"encoder": state} for t in modules} if state else {}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        features, changed = {}, {}
        shared = variables["params"]["shared"]["encoder"]
        for t in modules if tasks is None else tasks:
            x, key = common_inputs(batch, "film"), None if rng is None else base.named_key(rng, t)
            state = variables["state"]["tasks"].get(t, {}).get("encoder", {})
            for layer in named:
                x, new = base.apply_layers([layer], shared, state, x, train=train, key=key, prefix="shared/encoder")
                if new:
                    changed.setdefault(t, {"encoder": {}})["encoder"] |= new
                if layer[0] in stages:
                    own = variables["params"]["tasks"][t]["film"][layer[0]]
                    x = own["gamma"].astype(x.dtype) * x + own["beta"].astype(x.dtype)
            features[t] = x
        return PerTask(features), {"tasks": changed} if changed else {}, NO_AUX

    return MultiTaskModel(tasks, "branched", init, encode, decode_heads(modules), no_penalty, encoder)

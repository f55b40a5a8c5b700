"""Multi-task attention network (MTAN; Liu, Johns and Davison, CVPR 2019, arXiv:1803.10704)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder, Train, values_of, with_values
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.columns import common_inputs
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.model import NO_AUX, MultiTaskModel, no_penalty
from mtl_jax.sharing.own_inputs import on_own_inputs
from mtl_jax.sharing.positions import at_positions_of
from mtl_jax.tasks import Task, check_names


class Attention(nn.Module):
    """x * sigmoid(h(g([x; f(before)]))): maps channel by channel, g and f with norm and ReLU, f resampled to x."""

    norm: str

    @nn.compact
    def __call__(self, read: Any, *, train: bool) -> Any:
        x, before = read["x"], read.get("before")
        values = values_of(x)
        # A bias in front of batch normalisation has no effect, and its gradient is only noise.
        dense = functools.partial(nn.Dense, values.shape[-1], dtype=values.dtype)
        before_norm = functools.partial(dense, use_bias=self.norm != "batch")
        joined = values
        if before is not None:
            carried = before_norm(name="carry")(at_positions_of(before, x))
            carried = layers.Finish(self.norm, "relu", name="carry_finish")(carried, train=train)
            joined = jnp.concatenate([values, carried], -1)
        inner = before_norm(name="inner")(joined)
        inner = layers.Finish(self.norm, "relu", name="inner_finish")(inner, train=train)
        return with_values(x, values * nn.sigmoid(dense(name="mask")(inner)))


@architecture
def mtan(encoder: Encoder, tasks: Sequence[Task], norm: str = "batch") -> MultiTaskModel:
    """One trunk; behind each stage every task masks its features softly, and reads the last ones it kept.

    A task's mask sees the stage's features and what the task kept behind the stage before. Stages are
    not split as the paper's blocks are: mask and masked features come from the stage's one output, and the mask's last
    map has no norm. Attention is under ``tasks/<t>/attention``, with its statistics.

    Args:
      encoder: the trunk; vectors, sequences or images between stages.
      tasks: on common inputs, or each on its own.
      norm: "batch" as in the paper, "layer" or "none".
    """
    tasks = check_names(tasks)
    layers.check(1, norm, "relu", 0.0, "mtan")
    stages = [(f"stage_{i}", stage) for i, stage in enumerate(encoder.stages)]
    pool = [("pool", encoder.pool)] if encoder.pool is not None else []
    attention = {name: [(name, Attention(norm))] for name, _ in stages}
    modules = {t.name: heads.build(t) for t in tasks}

    def read(x: Any, before: Any) -> dict[str, Any]:
        return {"x": x} if before is None else {"x": x, "before": before}

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        x, kept = common_inputs(batch, "mtan"), dict.fromkeys(modules)
        trunk, state = {}, {}
        own = {t: {"attention": {}} for t in modules}
        own_state = {t: {} for t in modules}
        for layer in stages:
            new, statistics, x = base.init_layers([layer], rng, x, "shared/encoder")
            trunk, state = trunk | new, state | statistics
            for t in modules:
                new, statistics, kept[t] = base.init_layers(
                    attention[layer[0]], rng, read(x, kept[t]), f"tasks/{t}/attention"
                )
                own[t]["attention"] |= new
                if statistics:
                    own_state[t].setdefault("attention", {}).update(statistics)
        for t in modules:
            new, statistics, kept[t] = base.init_layers(pool, rng, kept[t], "shared/encoder")
            trunk = trunk | new
            if statistics:
                own_state[t]["encoder"] = statistics
        last = init_heads(modules, rng, kept)
        return {
            "params": {"shared": {"encoder": trunk}, "tasks": {t: own[t] | last[t] for t in modules}},
            "state": {
                "shared": {"encoder": state} if state else {},
                "tasks": {t: s for t, s in own_state.items() if s},
            },
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        chosen = list(modules) if tasks is None else list(tasks)
        x, kept = common_inputs(batch, "mtan"), dict.fromkeys(chosen)
        trunk = variables["params"]["shared"]["encoder"]
        own, own_state = variables["params"]["tasks"], variables["state"]["tasks"]
        state, changed, own_changed = variables["state"]["shared"].get("encoder", {}), {}, {}

        def run(named: list, t: str, branch: str, params: dict, x: Any, prefix: str) -> Any:
            statistics = own_state.get(t, {}).get(branch, {})
            x, new = base.apply_layers(named, params, statistics, x, train=train, key=rng, prefix=prefix)
            if new:
                own_changed.setdefault(t, {}).setdefault(branch, {}).update(new)
            return x

        for layer in stages:
            x, new = base.apply_layers([layer], trunk, state, x, train=train, key=rng, prefix="shared/encoder")
            changed |= new
            for t in chosen:
                kept[t] = run(attention[layer[0]], t, "attention", own[t]["attention"], read(x, kept[t]),
                              f"tasks/{t}/attention")  # fmt: skip
        features = {t: run(pool, t, "encoder", trunk, kept[t], "shared/encoder") for t in chosen}
        new_state = {"shared": {"encoder": changed}} if changed else {}
        return PerTask(features), new_state | ({"tasks": own_changed} if own_changed else {}), NO_AUX

    model = MultiTaskModel(tasks, "per_task", init, encode, decode_heads(modules), no_penalty, encoder)
    return on_own_inputs(model, "mtan")

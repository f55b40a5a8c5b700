"""A network per task whose parameters are made of what tasks share and what each has: GO-MTL, DMTRL and TAPS."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey, task_key
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.own_inputs import check_same_shapes
from mtl_jax.tasks import Task, check_names


def split_kernels(tree: Any, stacked: int) -> tuple[dict, dict]:
    """(the kernels of a nested dict, its other leaves); leaves have `stacked` axes in front."""
    kernels, others = {}, {}
    for name, value in tree.items():
        if isinstance(value, dict):
            below = split_kernels(value, stacked)
            kernels |= {name: below[0]} if below[0] else {}
            others |= {name: below[1]} if below[1] else {}
        else:
            (kernels if value.ndim - stacked >= 2 else others)[name] = value
    return kernels, others


def composed(
    encoder: Encoder, tasks: Sequence[Task], sharing: str, first: Callable, weights: Callable, penalty: Callable
) -> MultiTaskModel:
    """Each task is a pass through an encoder of its own making, with statistics of its own.

    Args:
      encoder: of each task's network.
      tasks: on common inputs, or each on its own of one shape.
      sharing: named in errors.
      first: (key, inputs, task) -> (what is under ``shared/encoder``, what is under ``tasks/<t>`` besides the head, the
        state of the pass, features).
      weights: (variables, task) -> the parameters that the encoder runs with.
      penalty: of the model.
    """
    tasks = check_names(tasks)
    named, modules = base.layers(encoder), {t.name: heads.build(t, encoder.members) for t in tasks}

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        firsts = {t: first(rng, inputs_of(batch.inputs, t), t) for t in modules}
        check_same_shapes({t: {"shared": {"encoder": f[0]}} for t, f in firsts.items()}, sharing)
        last = init_heads(modules, rng, {t: f[3] for t, f in firsts.items()})
        return {
            "params": {
                "shared": {"encoder": next(iter(firsts.values()))[0]},
                "tasks": {t: last[t] | f[1] for t, f in firsts.items()},
            },
            "state": {"shared": {}, "tasks": {t: {"encoder": f[2]} for t, f in firsts.items() if f[2]}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        features, changed = {}, {}
        for t in modules if tasks is None else tasks:
            state = variables["state"]["tasks"].get(t, {}).get("encoder", {})
            features[t], new = base.apply_layers(
                named, weights(variables, t), state, inputs_of(batch.inputs, t), train=train,
                key=None if rng is None else task_key(rng, t), prefix="shared/encoder",
            )  # fmt: skip
            if new:
                changed[t] = {"encoder": new}
        return PerTask(features), {"tasks": changed} if changed else {}, NO_AUX

    return MultiTaskModel(
        tasks, "branched", init, encode, decode_heads(modules), penalty, encoder, alike=by_kind,
        of_tasks=lambda some: composed(encoder, some, sharing, first, weights, penalty),
    )  # fmt: skip

"""Everything shared, the output layer too: tasks differ in their inputs, or in what they read off the outputs."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.members import Outputs
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind, no_penalty
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.encoder_copies import common_inputs
from mtl_jax.sharing.own_inputs import on_own_inputs
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="a baseline, no paper",
    when="tasks that are one task, such as languages or sites",
)
def fully_shared(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """One trunk and one head, ``shared/encoder`` and ``shared/head``; every task has its own loss on the same outputs.

    The head is as wide as the widest task, and a narrower one reads the first of the outputs: tasks of one width share
    every parameter. ``tasks`` is empty. The head runs in `encode`, so the features are the outputs.

    Source: a baseline, no paper.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.

    Raises:
      ValueError: if tasks ask for different heads.
    """
    tasks = check_names(tasks)
    asked = {t.head or t.of_kind.head: t.name for t in reversed(tasks)}
    if len(asked) > 1:
        text = ", ".join(f"{name!r} asks for {head!r}" for head, name in reversed(asked.items()))
        raise ValueError(f"fully_shared: all tasks share one head, and {text}")
    sizes = {t.name: t.width for t in tasks}
    widest = Task("widest", "regression", max(size or 1 for size in sizes.values()), head=next(iter(asked)))
    named, head = base.layers(encoder), [("head", heads.build(widest, encoder.members))]

    def init(rng: Key[Array, ""], batch: Batch) -> dict[str, Any]:
        weights, state, x = base.init_layers(named, rng, common_inputs(batch, "fully_shared"), "shared/encoder")
        last, _, _ = base.init_layers(head, rng, x, "shared")
        return {
            "params": {"shared": {"encoder": weights, **last}, "tasks": {}},
            "state": {"shared": {"encoder": state} if state else {}, "tasks": {}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Outputs, dict, dict]:
        inputs, shared = common_inputs(batch, "fully_shared"), variables["params"]["shared"]
        state = variables["state"]["shared"].get("encoder", {})
        x, changed = base.apply_layers(
            named, shared["encoder"], state, inputs, train=train, key=rng, prefix="shared/encoder"
        )
        x, _ = base.apply_layers(head, shared, {}, x, train=train, key=rng, prefix="shared")
        return x, {"shared": {"encoder": changed}} if changed else {}, NO_AUX

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Outputs], dict]:
        def own(t: str, x: Array) -> Array:
            return x[..., 0] if sizes[t] is None else x[..., : sizes[t]]

        return {t: jax.tree.map(functools.partial(own, t), x) for t, x in features.items()}, {}

    model = MultiTaskModel(tasks, "common", init, encode, decode, no_penalty, encoder, alike=by_kind)
    return on_own_inputs(model, "fully_shared")

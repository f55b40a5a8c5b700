"""A pass through one trunk per task, in which the task changes features on the way: FiLM, adapters, task embeddings."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey, named_key, task_key
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind, no_penalty
from mtl_jax.sharing.heads_only import decode_heads, init_heads
from mtl_jax.sharing.own_inputs import check_same_shapes
from mtl_jax.tasks import Task, check_names


class Step(NamedTuple):
    """One module of a pass.

    Attributes:
      owner: "shared", or "tasks" for a module that each task has for itself.
      branch: where its parameters are within its owner's, such as "encoder".
      name, module: called with (x, train=...).
      told: whether x is {"x": the features, "task": the task's vector}.
      before: whether x is {"x": the features, "before": what the encoder's last layer read}.
    """

    owner: str
    branch: str
    name: str
    module: nn.Module
    told: bool = False
    before: bool = False


def task_passes(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    steps: Sequence[Step],
    vector: Callable[[Key[Array, ""]], Array] | None = None,
    penalty: Callable = no_penalty,
) -> MultiTaskModel:
    """A model whose tasks each run `steps` in order. Statistics are those of each task's own pass, ``state/tasks``.

    Args:
      encoder: recorded in the model.
      tasks: on common inputs, or each on its own.
      sharing: named in errors.
      steps: the encoder's layers, and what acts between them.
      vector: (key) -> a first ``tasks/<t>/embedding`` for the steps that are told the task.
      penalty: of the model.
    """
    tasks = check_names(tasks)
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def called(step: Step, x: Any, own: dict, before: Any) -> Any:
        more = {"task": own["embedding"]} if step.told else {}
        more |= {"before": before} if step.before else {}
        return {"x": x, **more} if more else x

    def first_pass(rng: Key[Array, ""] | TaskKey, x: Any, t: str) -> tuple[dict, dict, dict, Any]:
        """(shared params, the task's params, the state of its pass, features)."""
        shared, state, before = {}, {}, None
        own = {} if vector is None else {"embedding": vector(named_key(rng, f"tasks/{t}/embedding"))}
        for step in steps:
            prefix = f"shared/{step.branch}" if step.owner == "shared" else f"tasks/{t}/{step.branch}"
            read, before = called(step, x, own, before), x if step.branch == "encoder" else before
            weights, statistics, x = base.init_layers([(step.name, step.module)], rng, read, prefix)
            if weights:
                (shared if step.owner == "shared" else own).setdefault(step.branch, {}).update(weights)
            if statistics:
                state.setdefault(step.branch, {}).update(statistics)
        return shared, own, state, x

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        passes = {t: first_pass(rng, inputs_of(batch.inputs, t), t) for t in modules}
        check_same_shapes({t: {"shared": p[0]} for t, p in passes.items()}, sharing)
        last = init_heads(modules, rng, {t: p[3] for t, p in passes.items()})
        return {
            "params": {
                "shared": next(iter(passes.values()))[0],
                "tasks": {t: last[t] | p[1] for t, p in passes.items()},
            },
            "state": {"shared": {}, "tasks": {t: p[2] for t, p in passes.items() if p[2]}},
        }

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        features, changed = {}, {}
        for t in modules if tasks is None else tasks:
            x, key = inputs_of(batch.inputs, t), None if rng is None else task_key(rng, t)
            own, state = variables["params"]["tasks"][t], variables["state"]["tasks"].get(t, {})
            before = None
            for step in steps:
                read, before = called(step, x, own, before), x if step.branch == "encoder" else before
                mine = step.owner == "tasks"
                weights = (own if mine else variables["params"]["shared"]).get(step.branch, {})
                x, new = base.apply_layers(
                    [(step.name, step.module)], weights, state.get(step.branch, {}), read, train=train, key=key,
                    prefix=f"tasks/{t}/{step.branch}" if mine else f"shared/{step.branch}",
                )  # fmt: skip
                if new:
                    changed.setdefault(t, {}).setdefault(step.branch, {}).update(new)
            features[t] = x
        return PerTask(features), {"tasks": changed} if changed else {}, NO_AUX

    return MultiTaskModel(
        tasks, "branched", init, encode, decode_heads(modules), penalty, encoder, alike=by_kind,
        of_tasks=lambda some: task_passes(encoder, some, sharing, steps, vector, penalty),
    )  # fmt: skip


def behind_stages(encoder: Encoder, step: Callable[[str], Step]) -> list[Step]:
    """The encoder's layers under ``shared/encoder``, each stage followed by `step` of its name."""
    steps = []
    for name, module in base.layers(encoder):
        steps.append(Step("shared", "encoder", name, module))
        if name != "pool":
            steps.append(step(name))
    return steps

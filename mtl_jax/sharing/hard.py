"""Hard parameter sharing (Caruana 1993): a common trunk, then what each task has for itself.

How many stages are common is a choice. With none, the tasks are independent networks in one program, which is the
single-task baseline.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from mtl_jax import heads
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey, task_key
from mtl_jax.members import Outputs
from mtl_jax.model import NO_AUX, MultiTaskModel, Train, by_kind, no_penalty
from mtl_jax.sharing.architecture import architecture
from mtl_jax.tasks import Task, check_names


def trunk_and_branches(encoder: Encoder, tasks: Sequence[Task], shared_stages: int) -> MultiTaskModel:
    """Stages ``:shared_stages`` in common; the rest, and a head, per task. The pool goes with the last stage."""
    tasks = check_names(tasks)
    trunk = base.layers(encoder, 0, shared_stages) if shared_stages else []
    branch = base.layers(encoder, shared_stages) if shared_stages < len(encoder.stages) else []
    modules = {t.name: heads.build(t, encoder.members) for t in tasks}

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        params: dict[str, Any] = {"shared": {}, "tasks": {}}
        state: dict[str, Any] = {"shared": {}, "tasks": {}}
        trunks: dict[Any, tuple] = {}  # by the form of what it reads; its keys, and so its draws, are the same for all
        for t in tasks:
            prefix, inputs = f"tasks/{t.name}", inputs_of(batch.inputs, t.name)
            form = jax.tree.structure(inputs), tuple((x.shape, x.dtype) for x in jax.tree.leaves(inputs))
            if form not in trunks:
                trunks[form] = base.init_layers(trunk, rng, inputs, "shared/encoder")
            weights, trunk_state, x = trunks[form]
            own, own_state, x = base.init_layers(branch, rng, x, f"{prefix}/encoder")
            head, _, _ = base.init_layers([("head", modules[t.name])], rng, x, prefix)
            if weights:
                params["shared"]["encoder"] = weights
            params["tasks"][t.name] = {**({"encoder": own} if own else {}), **head}
            # Inputs of each task's own have statistics of each task's own.
            if isinstance(batch.inputs, PerTask):
                own_state = {**trunk_state, **own_state}
            elif trunk_state:
                state["shared"]["encoder"] = trunk_state
            if own_state:
                state["tasks"][t.name] = {"encoder": own_state}
        return {"params": params, "state": state}

    def run_trunk(variables: Any, x: Any, owner: str, train: Train, rng: Any) -> tuple[Any, dict]:
        params = variables["params"]["shared"].get("encoder", {})
        state = variables["state"]
        state = (state["shared"] if owner == "shared" else state["tasks"].get(owner, {})).get("encoder", {})
        return base.apply_layers(trunk, params, state, x, train=train, key=rng, prefix="shared/encoder")

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        if not isinstance(batch.inputs, PerTask):
            x, changed = run_trunk(variables, batch.inputs, "shared", train, rng)
            return x, {"shared": {"encoder": changed}} if changed else {}, NO_AUX
        features, new_state = {}, {}
        for name in modules if tasks is None else tasks:
            key = None if rng is None else task_key(rng, name)
            features[name], changed = run_trunk(variables, batch.inputs[name], name, train, key)
            if changed:
                new_state[name] = {"encoder": changed}
        return PerTask(features), {"tasks": new_state} if new_state else {}, NO_AUX

    def decode(
        variables: Any, features: dict[str, Any], *, train: Train, rng: Any = None
    ) -> tuple[dict[str, Outputs], dict]:
        outputs, new_state = {}, {}
        for name, x in features.items():
            params, prefix = variables["params"]["tasks"][name], f"tasks/{name}"
            state = variables["state"]["tasks"].get(name, {}).get("encoder", {})
            x, changed = base.apply_layers(
                branch, params.get("encoder", {}), state, x, train=train, key=rng, prefix=f"{prefix}/encoder"
            )
            outputs[name], _ = base.apply_layers(
                [("head", modules[name])], params, {}, x, train=train, key=rng, prefix=prefix
            )
            if changed:
                new_state[name] = {"encoder": changed}
        return outputs, {"tasks": new_state} if new_state else {}

    return MultiTaskModel(
        tasks, "common", init, encode, decode, no_penalty, encoder, alike=by_kind,
        of_tasks=lambda some: trunk_and_branches(encoder, some, shared_stages),
    )  # fmt: skip


@architecture(
    paper='Caruana, "Multitask learning: a knowledge-based source of inductive bias", ICML 1993',
    when="always the first; related tasks, and many of them",
)
def hard(encoder: Encoder, tasks: Sequence[Task], shared_stages: int | None = None) -> MultiTaskModel:
    """A trunk that all tasks share and a head per task.

    Where it departs from the paper: the paper has one hidden layer in common; here any number of an encoder's stages.

    Source: Caruana, "Multitask learning: a knowledge-based source of inductive bias", ICML 1993.

    Args:
      encoder: its first `shared_stages` stages are the trunk; each task has the others for itself.
      tasks: the tasks, on common inputs or (`PerTask`) each on inputs of its own.
      shared_stages: how many stages are shared; None for all, with the pool.

    Raises:
      ValueError: if `shared_stages` is not between 1 and the number of stages, or two tasks share a name.
    """
    count = len(encoder.stages)
    shared_stages = count if shared_stages is None else shared_stages
    if not 1 <= shared_stages <= count:
        raise ValueError(
            f"hard: shared_stages={shared_stages} must lie in 1..{count}, the encoder's stages; "
            "for none use sharing 'independent'"
        )
    return trunk_and_branches(encoder, tasks, shared_stages)


@architecture(
    paper="a baseline, no paper",
    when="the baseline that sharing has to beat",
)
def independent(encoder: Encoder, tasks: Sequence[Task]) -> MultiTaskModel:
    """A network of its own for every task, all in one program: the single-task baseline. ``shared`` is empty.

    Source: a baseline, no paper.
    """
    return trunk_and_branches(encoder, tasks, 0)

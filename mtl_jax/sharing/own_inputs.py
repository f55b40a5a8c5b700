"""Inputs of each task's own for architectures that are written for common ones: a pass per task.

Task t's pass runs the whole architecture on t's inputs and keeps t's features. Statistics of a pass are its task's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Array, Key

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask, inputs_of
from mtl_jax.keys import TaskKey, task_key
from mtl_jax.model import MultiTaskModel, Train


def check_same_shapes(shared: Mapping[str, Any], sharing: str) -> None:
    """An error if {task: leaves in common, as this task's inputs need them} differ in a shape."""
    (first, leaves), *others = shared.items()
    expected = {p: x.shape for p, x in partition.flatten(leaves).items()}
    for task, leaves in others:
        for path, x in partition.flatten(leaves).items():
            if x.shape != expected[path]:
                raise ValueError(
                    f"{sharing}: {path} would be {expected[path]} for the inputs of task {first!r} and {x.shape} for "
                    f"those of {task!r}; give tasks inputs of one shape, or use sharing 'independent'"
                )


def on_own_inputs(model: MultiTaskModel, sharing: str) -> MultiTaskModel:
    """`model`, which takes inputs in common, so that it takes `PerTask` inputs too; else it is as before."""
    names = [t.name for t in model.tasks]

    def init(rng: Key[Array, ""] | TaskKey, batch: Batch) -> dict[str, Any]:
        if not isinstance(batch.inputs, PerTask):
            return model.init(rng, batch)
        own = {t: model.init(rng, batch._replace(inputs=batch.inputs[t])) for t in names}
        check_same_shapes({t: {"shared": v["params"]["shared"]} for t, v in own.items()}, sharing)
        params = {t: v["params"]["tasks"][t] for t, v in own.items() if t in v["params"]["tasks"]}
        state = {
            t: {"shared": v["state"]["shared"], "tasks": {k: s for k, s in v["state"]["tasks"].items() if k == t}}
            for t, v in own.items()
        }
        kept = {t: s for t, s in state.items() if s["shared"] or s["tasks"]}
        shared = own[names[0]]["params"]["shared"]
        return {"params": {"shared": shared, "tasks": params}, "state": {"shared": {}, "tasks": kept}}

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        if not isinstance(batch.inputs, PerTask):
            return model.encode(variables, batch, train=train, rng=rng, tasks=tasks)
        features, changed, aux = {}, {}, {"losses": {}, "metrics": {}}
        for t in names if tasks is None else tasks:
            state = variables["state"]["tasks"].get(t, {"shared": {}, "tasks": {}})
            x, new, more = model.encode(
                {"params": variables["params"], "state": state}, batch._replace(inputs=batch.inputs[t]), train=train,
                rng=None if rng is None else task_key(rng, t), tasks=(t,),
            )  # fmt: skip
            features[t] = inputs_of(x, t)
            aux = {kind: aux[kind] | more[kind] for kind in aux}
            if new:
                changed[t] = new
        return PerTask(features), {"tasks": changed} if changed else {}, aux

    return model._replace(init=init, encode=encode)

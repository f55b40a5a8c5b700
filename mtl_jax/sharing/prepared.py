"""A model whose encoder prepares its inputs (`Encoder.prepare`): once a step, before any task or trunk reads them.

It stands around the architecture, not inside the trunk: a frozen trunk runs as in inference, and is shown images that
are changed at random all the same.
"""

from collections.abc import Sequence
from typing import Any

from mtl_jax.batch import Batch, PerTask
from mtl_jax.keys import named_key, task_key
from mtl_jax.model import MultiTaskModel, Train


def prepared(model: MultiTaskModel) -> MultiTaskModel:
    """`model`, or the same on inputs that its encoder prepares, once however often it is said."""
    if model.encoder is None or model.encoder.prepare is None or hasattr(model.encode, "prepares"):
        return model
    prepare = model.encoder.prepare

    def changed(batch: Batch, key: Any) -> Batch:
        if not isinstance(batch.inputs, PerTask):
            return batch._replace(inputs=prepare(batch.inputs, None if key is None else named_key(key, "augmented")))
        own = {
            t: prepare(x, None if key is None else named_key(task_key(key, t), "augmented"))
            for t, x in batch.inputs.items()
        }
        return batch._replace(inputs=PerTask(own))

    def init(rng: Any, batch: Batch) -> dict[str, Any]:
        return model.init(rng, changed(batch, None))

    def encode(
        variables: Any, batch: Batch, *, train: Train, rng: Any = None, tasks: Sequence[str] | None = None
    ) -> tuple[Any, dict, dict]:
        batch = changed(batch, None if train is False else rng)
        return model.encode(variables, batch, train=train, rng=rng, tasks=tasks)

    marked: Any = encode
    marked.prepares = prepare
    begin = model.start
    start = None if begin is None else lambda rng, batch, layout: begin(rng, changed(batch, None), layout)
    return model._replace(init=init, encode=encode, start=start)

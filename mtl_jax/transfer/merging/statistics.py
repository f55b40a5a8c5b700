"""Running statistics of merged models: they belong to the parameters, and those of the parts fit no longer."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.sampling import Sampler
from mtl_jax.keys import named_key
from mtl_jax.model import MultiTaskModel, forward
from mtl_jax.on_disk import rows_of

BATCHES, ROWS = 60, 64  # with momentum 0.9 nothing is left of where the statistics began


def pooled(states: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """{path: the statistics of all together}: means of means, and of a variance that of the mixture."""
    found = {}
    for path, first in states[0].items():
        leaves = np.stack([np.asarray(s[path]) for s in states])
        if not np.issubdtype(leaves.dtype, np.floating):
            found[path] = np.asarray(first)
            continue
        value = leaves.mean(0)
        mean = f"{path.removesuffix('var')}mean"
        if path.endswith("/var") and mean in states[0]:
            value = value + np.var([np.asarray(s[mean]) for s in states], 0)
        found[path] = value.astype(leaves.dtype)
    return found


def has_statistics(variables: Any) -> bool:
    """Whether a model keeps running statistics."""
    return any("/batch_stats/" in f"/{p}" for p in partition.flatten(variables["state"]))


def refreshed(model: MultiTaskModel, variables: Any, train: Batch, seed: int = 0) -> Any:
    """The variables with statistics of their own on training rows, from 60 batches of 64."""
    rows = {t: len(jax.tree.leaves(x)[0]) for t, x in train.inputs.items()} if isinstance(train.inputs, PerTask) else (
        {"": len(jax.tree.leaves(train.inputs)[0])})  # fmt: skip
    drawn = {t: Sampler(n, min(ROWS, n), seed).indices(0, BATCHES) for t, n in rows.items()}

    @jax.jit
    def step(state: Any, inputs: Any, key: Any) -> Any:
        return forward(model, {**variables, "state": state}, Batch(inputs, {}, {}), train=True, rng=key)[1]

    state, key = variables["state"], jax.random.key(seed)
    for i in range(BATCHES):
        if isinstance(train.inputs, PerTask):
            inputs: Any = PerTask(
                {t: jax.tree.map(lambda x, at=drawn[t][i]: rows_of(x, at), x) for t, x in train.inputs.items()}
            )
        else:
            inputs = jax.tree.map(lambda x, at=drawn[""][i]: rows_of(x, at), train.inputs)
        state = step(state, inputs, named_key(key, f"batch {i}"))
    return {**variables, "state": jax.device_get(state)}

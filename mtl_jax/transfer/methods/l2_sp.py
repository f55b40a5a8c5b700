"""Penalties on the distance from where training began: L2-SP, and EWC, which weighs it by what old tasks need."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition, parts
from mtl_jax.batch import Batch, num_rows
from mtl_jax.model import MultiTaskModel, forward, merge
from mtl_jax.on_disk import rows_of
from mtl_jax.scaler import centred
from mtl_jax.tasks import loss_sum
from mtl_jax.training.start import numbered
from mtl_jax.transfer.methods import base
from mtl_jax.transfer.methods.base import EVERYTHING, START, Leaves, Method

FISHER = "fisher"


@parts.recorded()
def l2_sp(alpha: float = 0.01, beta: float = 0.01, paths: str | Sequence[str] = "shared/.*") -> Method:
    """Full fine-tuning with alpha / 2 |w - w0|^2 on what was loaded, and beta / 2 |w|^2 on new heads.

    Source: Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks",
    ICML 2018, arXiv:1802.01483.

    Args:
      alpha: of the distance from the start.
      beta: of the size of the heads' parameters.
      paths: regexes of the parameters that are held to their start.
    """
    paths = base.regexes("l2_sp: paths", paths)
    base.check_between("l2_sp: alpha", alpha, 0, float("inf"))
    base.check_between("l2_sp: beta", beta, 0, float("inf"))

    def penalty(params: Leaves, start: Leaves, state: Any) -> Any:
        del state
        held = sum(((params[p] - w) ** 2).sum() for p, w in start.items())
        new = sum((x**2).sum() for p, x in params.items() if p.startswith("tasks/") and p not in start)
        return alpha / 2 * held + beta / 2 * new

    return Method(3e-4, EVERYTHING, named=paths, keeps=paths, penalty=penalty)


@parts.recorded()
def ewc(strength: float = 100.0, paths: str | Sequence[str] = "shared/.*", rows: int = 512) -> Method:
    """Full fine-tuning with strength / 2 sum F (w - w0)^2, where F says how much old tasks depend on a parameter.

    F is the diagonal of the empirical Fisher information of the old tasks' losses, on labelled rows of the old data,
    which `adapt` is given as `old`.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv:1612.00796.

    Args:
      strength: of the penalty.
      paths: regexes of the parameters that are held to their start.
      rows: of the old data's training split that F is taken on, at most.
    """
    paths = base.regexes("ewc: paths", paths)
    base.check_between("ewc: strength", strength, 0, float("inf"))
    parts.check_whole("ewc: rows", rows)

    def penalty(params: Leaves, start: Leaves, state: Any) -> Any:
        weights = partition.flatten(state.get(START, {}).get(FISHER, {}))
        return strength / 2 * sum((w * (params[p] - start[p]) ** 2).sum() for p, w in weights.items())

    def around(model: MultiTaskModel, plain: MultiTaskModel) -> MultiTaskModel:
        del plain

        def init(rng: Any, batch: Batch) -> dict[str, Any]:
            variables = model.init(rng, batch)
            held = variables["state"]["shared"][START]
            zeros = jax.tree.map(jnp.zeros_like, held)
            return {**variables, "state": merge(variables["state"], {"shared": {START: {FISHER: zeros}}})}

        return model._replace(init=init)

    def prepare(run: Any, old: Any) -> tuple[Leaves, Method | None]:
        if old is None:
            raise ValueError("ewc: it weighs parameters by what old tasks need, so give adapt the old data, old=data")
        found = fisher(run, old, rows)
        wanted = base.settled([(r, True) for r in paths], list(found), False)
        return {f"shared/{START}/{FISHER}/{p}": x for p, x in found.items() if wanted[p]}, None

    return Method(3e-4, EVERYTHING, named=paths, keeps=paths, penalty=penalty, around=around, prepare=prepare)


def fisher(run: Any, data: Any, rows: int = 512) -> Leaves:
    """{path of a shared parameter: mean over labelled rows of the squared gradient of the row's losses}.

    Args:
      run: whose tasks and parameters they are.
      data: a data set that has the run's tasks.
      rows: of its training split, the first ones.

    Raises:
      ValueError: if the data lack a task of the run.
    """
    data = data.select([t.name for t in run.tasks])
    split = centred(run.tasks, numbered(run.tasks, data)["train"])
    count = min(rows, num_rows(split))
    split = jax.tree.map(lambda x: jnp.asarray(rows_of(x, np.arange(count))), split._replace(weights=None))
    shared = {p: x for p, x in partition.flatten(run.params).items() if partition.owner(p) == "shared"}

    def loss(shared: Leaves, row: Batch) -> Any:
        row = jax.tree.map(lambda x: x[None], row)
        variables = {**run.variables, "params": partition.unflatten(shared, run.params)}
        outputs, _, _ = forward(run.model, variables, row)
        return sum(loss_sum(t, outputs[t.name], row.targets[t.name], row.masks[t.name])[0] for t in run.tasks)

    @jax.jit
    def total(split: Batch) -> Leaves:
        def add(sums: Leaves, row: Batch) -> tuple[Leaves, None]:
            gradient = jax.grad(loss)(shared, row)
            return jax.tree.map(lambda s, g: s + g**2, sums, gradient), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shared), split)[0]

    return {p: np.asarray(x) / count for p, x in total(split).items()}

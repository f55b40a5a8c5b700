"""One compiled step: model, per-task gradients, balancing, optimizer and records in one program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax.balancing.base import Balancer, Needs, Signal
from mtl_jax.balancing.engine import JointLoss, Linearization, linearize, task_losses
from mtl_jax.balancing.gramian import combine, gramian
from mtl_jax.batch import Batch
from mtl_jax.parallel import global_sum, local_key
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.tasks import Task
from mtl_jax.training.optimizers import PerOwner, keep_unless
from mtl_jax.training.state import TrainState

Record = dict[str, Array]


def make_train_step(
    model: MultiTaskModel,
    optimizer: PerOwner,
    balancer: Balancer,
    trainable: frozenset[str],
    *,
    tasks: Sequence[Task] | None = None,
    mode: str | int = "map",
    l1: float = 0.0,
    l2: float = 0.0,
    joint: Sequence[JointLoss] = (),
    nonfinite: str = "stop",
) -> Callable[[TrainState, Batch], tuple[TrainState, Record]]:
    """The pure function (state, batch) -> (state, record) of one step; jit, scan, vmap or pmap it as needed.

    Args:
      model: what to train.
      optimizer: from `optimizers.per_owner`.
      balancer: how task gradients become one direction.
      trainable: paths of the leaves that train (`partition.trainable_paths`).
      tasks: the model's tasks with scalers, where the model's own lack them.
      mode: how the Jacobian is pulled (`engine.linearize`).
      l1, l2: factors of sum |w| and of half sum w^2 over trainable leaves of more than one axis (kernels).
      joint: losses over several tasks' outputs.
      nonfinite: "stop": a step in which a task's loss is not finite changes nothing; "skip_task": that task is left
        out of the step, as if it had no labels.

    The record holds ``losses``, ``weights`` [K] (nan where a method has none), ``labelled`` and ``finite`` [K], and,
    where a Gramian exists, ``norms`` [K] and ``conflict``: the share of task pairs with a negative cosine.
    """
    if nonfinite not in ("stop", "skip_task"):
        raise ValueError(f"unknown nonfinite {nonfinite!r}; (stop, skip_task)")
    tasks = tuple(tasks or model.tasks)
    names = [t.name for t in tasks]

    def runs_in_training(path: str) -> bool:
        # Freezing parameters does not stop batch statistics: a frozen module has to run as in inference.
        return any(p.startswith(path + "/") for p in trainable)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Record]:
        key = jax.random.fold_in(state.key, state.step)
        model_key, balancer_key = jax.random.split(key)
        line = linearize(
            model, state.variables, batch, rng=model_key, train=runs_in_training, trainable=trainable, mode=mode,
            tasks=tasks, joint=joint,
        )  # fmt: skip
        present = line.labelled & line.finite
        shared, head_weights, balancer_state, record = balance(
            balancer, line, state.balancer_state, present, balancer_key, mode
        )
        gradients = shared | scale_heads(line.own(), head_weights, names)
        leaves = {p: v for p, v in partition.flatten(state.params).items() if p in trainable}
        for p, g in line.extra().items():
            gradients[p] = gradients[p] + g
            if leaves[p].ndim > 1 and (l1 or l2):
                gradients[p] = gradients[p] + l1 * jnp.sign(leaves[p]) + l2 * leaves[p]

        # Tasks without labels keep head, optimizer state and batch statistics; the trunk waits if there are none.
        moves = {n: present[i] for i, n in enumerate(names)} | {"shared": present.any()}
        updated, opt_state = optimizer.update(gradients, state.opt_state, leaves, moves)
        params = partition.unflatten(updated, state.params)
        model_state = {
            "shared": keep_unless(moves["shared"], line.state["shared"], state.state["shared"]),
            "tasks": {n: keep_unless(moves[n], s, state.state["tasks"][n]) for n, s in line.state["tasks"].items()},
        }
        if balancer.after is not None:
            balancer_state = balancer.after(
                line.losses, losses_at(params, model_state, batch, model_key), balancer_state, present
            )
        new = state._replace(params=params, state=model_state, opt_state=opt_state, balancer_state=balancer_state)
        if nonfinite == "stop":
            new = keep_unless((line.finite | ~line.labelled).all(), new._replace(key=None), state._replace(key=None))
        record |= {"losses": line.losses, "labelled": line.labelled, "finite": line.finite | ~line.labelled}
        record |= {f"aux/{k}": v for k, v in line.metrics.items()}
        return new._replace(step=state.step + 1, key=state.key), record

    def losses_at(params: Any, model_state: Any, batch: Batch, key: Array) -> Float[Array, " task"]:
        variables = {"params": params, "state": model_state}
        outputs, _, _ = forward(model, variables, batch, train=runs_in_training, rng=local_key(key))
        sums, counts = task_losses(tasks, outputs, batch)
        return global_sum(sums) / jnp.maximum(counts, 1)

    return step


def balance(
    balancer: Balancer,
    line: Linearization,
    state: Any,
    present: Bool[Array, " task"],
    key: Array,
    mode: str | int,
) -> tuple[dict[str, Array], Float[Array, " task"] | None, Any, Record]:
    """(gradient of the shared leaves, head weights, balancer state, record) of one method at one linearization."""
    losses = jnp.where(present, line.losses, 0)
    signal, record = Signal(losses), {}
    if balancer.needs is Needs.GRAMIAN:
        # Without a Jacobian in memory the direction costs one pull more; with it, a product.
        held = None if mode == "columns" else line.jacobian()
        gram = line.gramian() if held is None else gramian(held)
        signal, record = Signal(losses, gramian=gram), conflict(gram, present)
    elif balancer.needs is Needs.JACOBIAN:
        held = line.jacobian()
        signal = Signal(losses, jacobian=held)
    result, state = balancer.update(signal, state, mask=present, key=key)
    if result.direction is not None:
        shared = result.direction
    elif balancer.needs is Needs.LOSSES or held is None:
        shared = line.weighted(result.weights)
    else:
        shared = combine(result.weights, held)
    weights = jnp.full_like(losses, jnp.nan) if result.weights is None else result.weights
    return shared, result.head_weights, state, {"weights": weights, **record}


def conflict(gram: Float[Array, "task task"], present: Bool[Array, " task"]) -> Record:
    """Gradient norms [K] and the share of pairs of present tasks whose gradients have a negative inner product."""
    pairs = jnp.triu(present[:, None] & present[None, :], 1)
    return {
        "norms": jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0)),
        "conflict": (pairs & (gram < 0)).sum() / jnp.maximum(pairs.sum(), 1),
    }


def scale_heads(own: dict[str, Array], weights: Float[Array, " task"] | None, names: Sequence[str]) -> dict[str, Array]:
    """Each task's own gradients times its head weight."""
    if weights is None:
        return own
    factor = {n: weights[i] for i, n in enumerate(names)}
    return {p: g * factor[partition.owner(p)].astype(g.dtype) for p, g in own.items()}

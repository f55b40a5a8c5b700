"""One compiled step: model, per-task gradients, balancing, optimizer and records in one program."""

import functools
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition
from mtl_jax.alike import layout_of
from mtl_jax.balancing.balance import Record, after, balance, task_ids
from mtl_jax.balancing.base import Balancer, Needs
from mtl_jax.balancing.options import ONE_BY_ONE, Options
from mtl_jax.batch import Batch, aligned
from mtl_jax.gradients.engine import JointLoss, linearize_stacked
from mtl_jax.gradients.finite import all_finite, finite_each, squared_lengths
from mtl_jax.gradients.oracle import Oracle
from mtl_jax.model import MultiTaskModel
from mtl_jax.parallel import global_sum, local_key
from mtl_jax.stacked_model import forward
from mtl_jax.stacking import Layout, task_losses
from mtl_jax.tasks import Task, divisor
from mtl_jax.training.looking_ahead import losses_on
from mtl_jax.training.optimizers import PerOwner, groups, keep_unless
from mtl_jax.training.schedule import Active
from mtl_jax.training.state import TrainState, restacked, unstacked

# What a step looks at besides the tasks' losses and gradients, as errors say what is wrong with it; {} is the method.
NOT_FINITE = "is not finite although all losses are"
TOO_LARGE = "is too large although all losses are finite: the sum of its squares is inf (clip_norm brings it down)"
PARTS = (
    f"the direction of balancer {{}} {NOT_FINITE}",
    f"the direction of balancer {{}} {TOO_LARGE}",
    f"the gradient of a task's own parameters {NOT_FINITE}",
    f"the gradient of a task's own parameters {TOO_LARGE}",
    f"the model's new state (such as batch statistics) {NOT_FINITE}",
    f"the state of balancer {{}} {NOT_FINITE}",
    f"the state of balancer {{}} after the step {NOT_FINITE}",
)
AFTERWARDS = len(PARTS) - 1  # the one that is known only once the step was applied


def make_train_step(
    model: MultiTaskModel,
    optimizer: PerOwner,
    balancer: Balancer,
    trainable: frozenset[str],
    *,
    tasks: Sequence[Task] | None = None,
    options: Options = ONE_BY_ONE,
    l1: float = 0.0,
    l2: float = 0.0,
    joint: Sequence[JointLoss] = (),
    nonfinite: str = "stop",
    active: Active | None = None,
    tell: Callable[[tuple[str, ...]], None] | None = None,
    layout: Layout | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Record]]:
    """The pure function (state, batch) -> (state, record) of one step; jit, scan, vmap or pmap it as needed.

    Args:
      model: what to train.
      optimizer: from `optimizers.per_owner`.
      balancer: how task gradients become one direction.
      trainable: paths of the leaves that train (`partition.trainable_paths`).
      tasks: the model's tasks with scalers, where the model's own lack them.
      options: how per-task gradients are taken; its mode is not "auto".
      l1, l2: factors of sum |w| and of half sum w^2 over trainable leaves of more than one axis (kernels).
      joint: losses over several tasks' outputs.
      nonfinite: "stop": a step in which a task's loss or gradient is not finite changes nothing; "skip_task": that task
        is left out of the step, as if it had no labels. Whichever: a step whose gradients, their squares, new model
        state or new state of the balancer are not finite changes nothing. What the optimizer makes of finite gradients
        is not looked at here (`finiteness.Watch`).
      active: which tasks train at a step (`schedule.bind`); the others are left out, as if they had no labels.
      tell: called while the step is traced with what the engine could not do as `options` say, and does otherwise.
      layout: how tasks lie in the states and batches that the step is given. None: by name, with an entry per task;
        then alike tasks are stacked within every step, which costs what lying so saves.

    A method that learns from validation batches makes it (state, batch, validation batch) -> (state, record).

    The record holds ``losses``, ``weights`` [K] (nan where a method has none), ``labelled`` and ``finite`` [K] (of a
    task's loss and gradient), ``sound`` [len(PARTS)] (whether each of `PARTS` is not so), ``applied`` (a scalar), and,
    where a Gramian exists, ``norms`` [K], ``cosines`` [K, K] and ``conflict``: the share of task pairs with a negative
    cosine.
    """
    if nonfinite not in ("stop", "skip_task"):
        raise ValueError(f"unknown nonfinite {nonfinite!r}; (stop, skip_task)")
    if optimizer.trunk_states > 1 and active is None:
        raise ValueError("an optimizer state of the trunk for each task needs a schedule that says whose turn it is")
    skip = nonfinite == "skip_task"
    if layout is None:
        given = {"options": options, "l1": l1, "l2": l2, "joint": joint, "nonfinite": nonfinite, "active": active}
        return _by_name(model, optimizer, balancer, trainable, tuple(tasks or model.tasks), tell=tell, **given)
    ids, by_rows = task_ids(layout.names), not (balancer.needs is Needs.LOSSES or balancer.needs.functions)

    def runs_in_training(path: str) -> bool:
        # Freezing parameters does not stop batch statistics: a frozen module has to run as in inference.
        return any(p.startswith(path + "/") for p in trainable)

    def step(state: TrainState, batch: Batch, validation: Batch | None = None) -> tuple[TrainState, Record]:
        key = jax.random.fold_in(state.key, state.step)
        model_key, balancer_key = jax.random.split(key)
        if active is not None:
            on = active(state.step, jax.random.fold_in(key, 2))
            masks = {n: m & aligned(layout.part(on, n), m) for n, m in batch.masks.items()}
            batch = batch._replace(masks=masks)
        line = linearize_stacked(
            model, layout, state.variables, batch, rng=model_key, train=runs_in_training, trainable=trainable,
            mode=options.mode, paths=options.paths, joint=joint, check_heads=skip, rows_wanted=by_rows,
        )  # fmt: skip
        present = line.labelled & line.finite
        leaves = {p: v for p, v in partition.flatten(state.params).items() if p in trainable}
        oracle = None
        if balancer.needs.functions:
            train, *other = (
                losses_on(model, layout, state.variables, b, train=runs_in_training, rng=local_key(model_key))
                for b in ((batch,) if validation is None else (batch, validation))
            )
            shared_paths = frozenset(p for p in leaves if partition.owner(p) == "shared")
            oracle = Oracle(leaves, train, other[0] if other else None, shared_paths)
        shared, head_weights, balancer_state, record = balance(
            balancer, line, state.balancer_state, present, balancer_key, state.step, options, ids, oracle, skip
        )
        present = record.pop("kept", present)
        gradients = scale_heads(line.own(), head_weights, layout) | shared
        for p, g in line.extra().items():
            gradients[p] = gradients[p] + g
            kernel = leaves[p].ndim > (1 if partition.owner(p) == "shared" else 2)
            if kernel and (l1 or l2):
                gradients[p] = gradients[p] + l1 * jnp.sign(leaves[p]) + l2 * leaves[p]

        lengths = squared_lengths(groups(gradients), layout.groups)
        fine = {n: jnp.isfinite(x) for n, x in lengths.items()}
        if optimizer.clips:
            fine = finite_if_long(gradients, fine, layout.groups)
        not_nan = {n: ~jnp.isnan(x) for n, x in lengths.items()}
        not_large = {n: fine[n] | jnp.isnan(x) for n, x in lengths.items()}
        own = fine if skip else not_nan
        present &= layout.join({n: own.get(n, jnp.ones(layout.size(n), bool)) for n in layout.groups})

        # Tasks without labels keep head, optimizer state and batch statistics; the trunk waits if there are none.
        moves = {n: layout.part(present, n) for n in layout.groups} | {"shared": present.any()}
        changed = {"shared": line.state["shared"], **line.state["tasks"]}
        before = {"shared": state.state["shared"], **state.state["tasks"]}

        def good(of: dict[str, Array], *owners: str) -> Bool[Array, ""]:
            found = ((of[n] | ~moves[n]).all() for n in owners if n in of)
            return functools.reduce(operator.and_, found, jnp.ones((), bool))

        def settled(name: str, new: Any) -> Bool[Array, "*task"]:
            return (all_finite if name == "shared" else finite_each)(new, before[name])

        sound = [
            good(not_nan, "shared"),
            good(not_large, "shared"),
            good(not_nan, *layout.groups),
            good(not_large, *layout.groups),
            good({n: settled(n, s) for n, s in changed.items() if jax.tree.leaves(s)}, *changed),
            all_finite(balancer_state, state.balancer_state),
            jnp.ones((), bool),
        ]
        # A step that is not applied moves no one; said here, every leaf is selected once.
        finite = present | ~line.labelled
        applied = functools.reduce(operator.and_, sound) & (True if skip else finite.all())
        turn = jnp.argmax(on) if optimizer.trunk_states > 1 else None
        if skip and optimizer.clips:  # whose norm is that of all leaves
            gradients = {p: keep_unless(moves[partition.owner(p)], g, jnp.zeros_like(g)) for p, g in gradients.items()}
        moves = {n: moving & applied for n, moving in moves.items()}
        updated, opt_state = optimizer.update(gradients, state.opt_state, leaves, moves, turn)
        params = partition.unflatten(updated, state.params)
        model_state = {
            "shared": keep_unless(moves["shared"], line.state["shared"], state.state["shared"]),
            "tasks": {n: keep_unless(moves[n], s, state.state["tasks"][n]) for n, s in line.state["tasks"].items()},
        }
        balancer_state = keep_unless(applied, balancer_state, state.balancer_state)
        if balancer.after is not None:
            later = jnp.where(present, losses_at(params, model_state, batch, model_key), 0)
            last = after(balancer, jnp.where(present, line.losses, 0), later, balancer_state, present, options)
            sound[AFTERWARDS] = all_finite(last, balancer_state) | ~applied
            balancer_state = keep_unless(applied & sound[AFTERWARDS], last, balancer_state)
        new = state._replace(params=params, state=model_state, opt_state=opt_state, balancer_state=balancer_state)
        record |= {"losses": line.losses, "labelled": line.labelled, "finite": finite}
        record |= {"sound": jnp.stack(sound), "applied": applied}
        if tell is not None:
            tell(tuple(line.notes))
        record |= {f"aux/{k}": v for k, v in line.metrics.items()}
        return new._replace(step=state.step + 1), record

    def losses_at(params: Any, model_state: Any, batch: Batch, key: Array) -> Float[Array, " task"]:
        variables = {"params": params, "state": model_state}
        outputs, _ = forward(model, layout, variables, batch, train=runs_in_training, rng=local_key(key))
        sums, counts = task_losses(layout, outputs, batch)
        return global_sum(sums) / divisor(counts)

    return step


def _by_name(
    model: MultiTaskModel, optimizer: PerOwner, balancer: Balancer, trainable: frozenset[str], tasks: tuple[Task, ...],
    **arguments: Any,
) -> Callable:  # fmt: skip
    """A step on states and batches with an entry per task."""

    def step(state: TrainState, batch: Batch, *validation: Batch) -> tuple[TrainState, Record]:
        layout = layout_of(
            model, tasks, state.variables, batch, trainable=trainable, optimizer=optimizer, also=validation
        )
        inner = make_train_step(model, optimizer, balancer, trainable, layout=layout, **arguments)
        batches = [layout.stack_batch(b) for b in (batch, *validation)]
        new, record = inner(restacked(state, layout), *batches)
        return unstacked(new, layout), record

    return step


def finite_if_long(
    gradients: dict[str, Array], fine: dict[str, Bool[Array, "*task"]], stacked: Collection[str] = ()
) -> dict[str, Bool[Array, "*task"]]:
    """{owner: whether its gradient is finite}, from whether its squares are: where some are not, by a second look."""

    def look(_: tuple) -> tuple:
        found = {n: (finite_each if n in stacked else all_finite)(group) for n, group in groups(gradients).items()}
        return found, jnp.zeros((), bool)

    # A loop of at most one round, where a branch would be taken by all runs of a `vmap`.
    some = ~functools.reduce(operator.and_, (x.all() for x in fine.values()))
    return jax.lax.while_loop(lambda carry: carry[1], look, (fine, some))[0]


def scale_heads(own: dict[str, Array], weights: Float[Array, " task"] | None, layout: Layout) -> dict[str, Array]:
    """Each task's own gradients, stacked, times its head weight."""
    if weights is None:
        return own

    def scaled(path: str, g: Array) -> Array:
        return g * aligned(layout.part(weights, partition.owner(path)), g).astype(g.dtype)

    return {p: scaled(p, g) for p, g in own.items()}

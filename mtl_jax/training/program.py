"""From a plan to what runs: the first state, compiled steps, evaluation and selection, and the rows that they read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import parallel as devices
from mtl_jax import partition, parts
from mtl_jax.alike import layout_of
from mtl_jax.balancing.base import Needs
from mtl_jax.balancing.options import Options, check, check_batch, matching, resolve
from mtl_jax.batch import Batch, PerTask
from mtl_jax.data.sampling import padded_batches
from mtl_jax.scaler import centred
from mtl_jax.stacking import Layout
from mtl_jax.training import arguments, selection, state
from mtl_jax.training import schedule as schedules
from mtl_jax.training.ahead import Ahead, in_memory, placed
from mtl_jax.training.averages import check_averages, evaluated_at
from mtl_jax.training.dispatch import Feeds, lay_out, make_dispatch
from mtl_jax.training.evaluation import make_evaluate
from mtl_jax.training.optimizers import PerOwner, check_suits, groups, per_owner
from mtl_jax.training.plan import Plan
from mtl_jax.training.start import Initial, initial, small_batch
from mtl_jax.training.step import make_train_step


class Program(NamedTuple):
    """All that a loop calls.

    Attributes:
      layout: how tasks lie in the state, and in all that follows here; what leaves the loop has an entry per task.
      trainable: paths of what trains.
      engine: how per-task gradients are pulled, and why: one text, which tracing a step may replace.
      first: () -> (state, best) before the first step; with members, they are the first axis.
      dispatch: (state, splits, rows) -> (state, records) of some steps (`dispatch.make_dispatch`).
      evaluated: state -> the variables at which it is evaluated (`averages`).
      evaluate: (variables, validation) -> (losses, metrics).
      choose: `make_choose`.
      yardstick: what validation losses are measured by.
      silent: {task: why it has no say in choosing}.
      splits: what steps read rows of, laid out on the devices; training inputs that lie on disk stay there.
      validation: padded batches, or None.
      feeds: which rows each step reads, one for every member.
      ahead: what reads training inputs that lie on disk; None where they lie in memory.
      example: two rows, whose shapes the model is initialised from.
    """

    layout: Layout
    trainable: frozenset[str]
    engine: list[str]
    first: Callable
    dispatch: Callable
    evaluated: Callable
    evaluate: Callable
    choose: Callable
    yardstick: selection.Yardstick
    silent: dict[str, str]
    splits: tuple[Batch, ...]
    validation: Any
    feeds: list[Feeds]
    ahead: Ahead | None
    example: Batch


def make(plan: Plan, before: Program | None = None) -> Program:
    """The program of a plan.

    Args:
      plan: what was given.
      before: of the same run with other options, of which all is taken over that is the same.

    Raises:
      ValueError: for options that do not go with each other, the model or the data; see `fit`.
    """
    o, how, model, tasks, data, names = plan.options, plan.methods, plan.model, plan.tasks, plan.data, plan.names
    example = small_batch(data.train)
    first, members = initial_of(plan, example), plan.members is not None
    trainable = partition.trainable_paths(first.shapes["params"], how.freeze)
    options = balancing_options(plan, trainable)
    rows_of_jacobian = len(names) * (o.batch_size if o.objectives == "examples" else 1)
    shared = {p: x for p, x in partition.flatten(first.shapes["params"]).items() if p in trainable and
              partition.owner(p) == "shared"}  # fmt: skip
    mode, why = resolve(o.engine, how.balancer, rows_of_jacobian, shared, plan.members or 1)
    options, engine = options._replace(mode=mode), [why]
    averages, owners = optimizer_of(plan, first.shapes, trainable)

    # An optimizer that is named treats all paths alike.
    rules = owners._replace(optimizer=None) if how.named else owners
    held_out: tuple[Batch, ...] = () if data.val is None else (centred(tasks, data.val),)
    layout = layout_of(model, tasks, first.shapes, example, trainable=trainable, optimizer=rules, also=held_out)
    if before is not None and before.layout.groups == layout.groups:
        layout = before.layout  # what was compiled for it is used again
    whole = devices.replicated(plan.mesh)

    def create() -> tuple[state.TrainState, selection.Best]:
        return first_state(plan, first, layout, owners, trainable, options, rows_of_jacobian, whole)

    sizes = [int(np.sum(data.train.masks[n])) for n in names]
    active = None if how.schedule.spec == "joint()" else schedules.bind(how.schedule, names, sizes)

    def tell(notes: tuple[str, ...]) -> None:
        engine[0] = "; ".join((why, *notes))

    step = make_train_step(
        model, owners, how.balancer, trainable, layout=layout, options=options, l1=o.l1, l2=o.l2,
        joint=o.joint_losses, nonfinite=o.nonfinite, active=active, tell=tell,
    )  # fmt: skip
    if o.train_step is not None:
        step = o.train_step(step)
        arguments.check_called("what train_step returned", step, "(state, batch) -> (state, record)")
    read = read_splits(plan)
    kept = before if before is not None and before.layout is layout else None
    if kept is not None and len(kept.splits) == 1 + (how.balancer.needs is Needs.ORACLE):
        splits = kept.splits
    else:
        splits = tuple(placed(lay_out(split, layout), whole) for split in read)
    if kept is not None:
        validation, evaluate = kept.validation, kept.evaluate
    else:
        evaluate = make_evaluate(model, layout, members)
        validation = None
        if data.val is not None:
            batches = padded_batches(in_memory(held_out[0], "validation"), 256)
            validation = jax.device_put(layout.stack_batch(batches, axis=1), whole)
    by, silent = selection.yardstick(tasks, data.train, data.val)
    feeds, own = ([Feeds(read, layout, o.batch_size, s) for s in seeds_of_members(plan)] for _ in range(2))
    ahead = Ahead.of(lay_out(read[0], layout), own, plan.mesh, o.num_steps, o.parallel)
    return Program(
        layout, trainable, engine, create, make_dispatch(step, plan.mesh, o.parallel, members),
        make_evaluated(averages, members, layout), evaluate,
        make_choose(layout, o.patience, members, whole), by, silent, splits, validation, feeds, ahead, example,
    )  # fmt: skip


def seeds_of_members(plan: Plan) -> tuple[int, ...]:
    """The seed of every run; of several methods, each has all seeds."""
    return plan.seeds * len(plan.methods.balancers)


def keys_of_members(plan: Plan) -> Any:
    """Their random keys, [member]."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds_of_members(plan), jnp.uint32))


def read_splits(plan: Plan) -> tuple[Batch, ...]:
    """What steps read rows of, on the host: the training split, and validation for methods that learn from it."""
    read = [plan.data.train]
    if plan.methods.balancer.needs is Needs.ORACLE:
        assert plan.data.val is not None  # `balancing_options` refuses it
        read.append(in_memory(plan.data.val, "validation batches"))
    return tuple(centred(plan.tasks, split) for split in read)


def initial_of(plan: Plan, example: Batch) -> Initial:
    """How the first variables are made."""
    adapted, model = plan.adapted, plan.model
    if adapted:
        fresh = jax.eval_shape(lambda key: model.init(key, example), keys_of_members(plan)[0])
        arguments.check_carried(adapted, fresh, plan.data)
    return initial(model, example, adapted.member(0) if adapted else {})


def balancing_options(plan: Plan, trainable: frozenset[str]) -> Options:
    """How gradients are taken, or an error for what does not go with a method, the model or the batch."""
    o, names = plan.options, plan.names
    options = Options(
        o.engine, o.level, matching(o.balance_paths, trainable), o.update_every, o.objectives, o.monitor
    )  # fmt: skip
    per_task = isinstance(plan.data.train.inputs, PerTask)
    for each in plan.methods.balancers:
        check(options, each, plan.model.features == "common" and not per_task)
        devices_of_batch = plan.mesh.size if o.parallel == "pmap" else 1
        check_batch(each, o.batch_size, devices_of_batch, plan.data.val is not None)
        if unknown := [t for t in each.about if t not in names]:
            raise parts.unknown(f"task in balancer {each.spec}:", unknown[0], names)
    if o.objectives == "examples" and o.parallel == "pmap":
        raise ValueError("objectives='examples' compares examples across devices; use parallel='jit'")
    return options


def optimizer_of(plan: Plan, shapes: Any, trainable: frozenset[str]) -> tuple[bool, PerOwner]:
    """(whether it is evaluated elsewhere than it trains, the optimizer with a state per owner)."""
    o, how = plan.options, plan.methods
    trunk_states = len(plan.names) if how.schedule.optimizer_per_task else 1
    flat = partition.flatten(shapes["params"])
    of_one = next(iter(groups({p: flat[p] for p in flat if p in trainable}).values()))
    check_suits(how.optimizer, of_one, how.named)
    on_disk = plan.workdir is not None and plan.data.val is None
    averages = check_averages(jax.eval_shape(how.optimizer.init, of_one), trunk_states, not on_disk)
    return averages, per_owner(
        how.optimizer, clip_norm=o.clip_norm, factors=o.learning_rate_factors, trunk_states=trunk_states
    )


def first_state(
    plan: Plan, first: Initial, layout: Layout, owners: PerOwner, trainable: frozenset[str], options: Options,
    rows_of_jacobian: int, sharding: Any,
) -> tuple[state.TrainState, selection.Best]:  # fmt: skip
    """The state before the first step, and nothing chosen yet."""
    adapted, balancers, count = plan.adapted, plan.methods.balancers, len(plan.names)
    keys, given = keys_of_members(plan), adapted.variables if adapted else {}

    def initialise(key: jax.Array, given: Any) -> Any:
        return first.make(jax.random.fold_in(key, 1), given)

    def create(variables: Any, key: jax.Array, method: Any = 0) -> tuple[state.TrainState, selection.Best]:
        key = jax.random.fold_in(key, 2)
        started = [
            state.create(variables, count, owners, b, trainable, key, options, rows_of_jacobian, layout)
            for b in balancers
        ]
        # Methods side by side differ in what their states carry.
        states = jax.tree.map(lambda *x: jnp.stack(x)[method], *(s.balancer_state for s in started))
        new = started[0]._replace(balancer_state=states)
        return new, selection.start(new.variables, count)

    if adapted and adapted.members and adapted.members != len(keys):
        raise ValueError(f"the adapted run has {adapted.members} members; give as many seeds, not {len(plan.seeds)}")
    if plan.members:
        per_member = 0 if adapted and adapted.members else None
        variables = jax.vmap(initialise, in_axes=(0, per_member))(keys, given)
        created, of_each = jax.vmap(create), (keys, jnp.repeat(jnp.arange(len(balancers)), len(plan.seeds)))
    else:
        variables, created, of_each = initialise(keys[0], given), create, (keys[0],)
    named = first.named(variables, plan.members is not None)
    variables = layout.stack_variables(jax.device_get(named), int(plan.members is not None))
    return jax.jit(created, out_shardings=sharding)(variables, *of_each)


def make_evaluated(averages: bool, members: bool, layout: Layout) -> Callable:
    """The compiled `averages.evaluated_at` for optimizers that average; for others the state's own variables."""
    if not averages:
        return lambda state: state.variables

    def evaluated(state: state.TrainState) -> dict[str, Any]:
        return evaluated_at(state, layout.groups)

    return jax.jit(jax.vmap(evaluated) if members else evaluated)


def make_choose(layout: Layout, patience: int | None, members: bool, sharding: Any) -> Callable:
    """The compiled `selection.update`."""

    def choose(best, variables, losses, yardstick, step):
        return selection.update(best, variables, losses, yardstick, step, layout=layout, patience=patience)

    return jax.jit(jax.vmap(choose, in_axes=(0, 0, 0, None, 0)) if members else choose, out_shardings=sharding)

"""`fit`: from a model and a data set to a run; what is checked and made before the first step."""

import inspect
import pathlib
import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax import parallel as devices
from mtl_jax import partition, parts, paths
from mtl_jax.alike import layout_of
from mtl_jax.balancing.base import Balancer, Needs
from mtl_jax.balancing.options import Options, check, check_batch, matching, resolve
from mtl_jax.balancing.vmapped import side_by_side
from mtl_jax.batch import PerTask
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.sampling import padded_batches
from mtl_jax.data.tables import serving
from mtl_jax.gradients.linearization import JointLoss
from mtl_jax.model import MultiTaskModel
from mtl_jax.scaler import centred
from mtl_jax.training import arguments, identity, loop, saved_folder, selection, state, verdicts
from mtl_jax.training import schedule as schedules
from mtl_jax.training.averages import check_averages
from mtl_jax.training.dispatch import Feeds, lay_out, make_dispatch
from mtl_jax.training.evaluation import check_weighted, make_evaluate
from mtl_jax.training.interrupts import Interrupted
from mtl_jax.training.intervals import continued
from mtl_jax.training.optimizers import build_optimizer, check_suits, groups, per_owner
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted, initial, resolve_model, small_batch
from mtl_jax.training.step import make_train_step


def fit(
    model: MultiTaskModel | Adapted,
    data: Dataset,
    *,
    balancer: Balancer | str | Sequence[Balancer | str] | None = None,
    optimizer: optax.GradientTransformation | str | None = None,
    num_steps: int = 1000,
    batch_size: int = 128,
    seed: int | Sequence[int] = 0,
    freeze: Any = None,
    clip_norm: float | None = None,
    learning_rate_factors: partition.Rules = (),
    l1: float = 0.0,
    l2: float = 0.0,
    joint_losses: Sequence[JointLoss] = (),
    task_schedule: schedules.Schedule | str = "joint",
    engine: str | int = "auto",
    level: str = "parameters",
    balance_paths: str | Sequence[str] | None = None,
    update_every: int = 1,
    objectives: str = "tasks",
    monitor: bool = True,
    eval_every: int | None = None,
    steps_per_dispatch: int | None = None,
    log_every: int | None = None,
    checkpoint_every: int | None = None,
    patience: int | None = None,
    fallback: bool = False,
    nonfinite: str = "stop",
    workdir: str | pathlib.Path | None = None,
    config: dict[str, Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    parallel: str = "jit",
    progress: bool | None = None,
    **others: Any,
) -> Run:
    """Trains a model and keeps the variables that are best on validation (the last ones, without validation data).

    Args:
      model: what to train, or what `transfer.adapt` returned.
      data: must have the model's tasks, by name; its labels are matched by class name, and its scalers are used (a
        head that `transfer.adapt` carried keeps its own).
      balancer: a balancing method or its text; None means `balancing.equal()`. Several methods of one shape train side
        by side with every seed; member ``m * len(seed) + s`` of the run is method m's.
      optimizer: an optax optimizer or its text, applied to ``shared`` and to each task apart; None means adam(1e-3), or
        what the method of `transfer.adapt` has by default.
      num_steps: steps in all, those before a resume included. A larger number continues a run; intervals that were not
        named stay as they were.
      batch_size: rows per step over all devices (per task, where tasks have inputs of their own).
      seed: of initial parameters, row order and draws. Several seeds train side by side in one program; the run then
        has a leading axis of members.
      freeze: regex, several, or (regex, trains) rules over parameter paths. Frozen modules run as in inference.
      clip_norm: bound on the norm of the gradient of all trainable leaves together.
      learning_rate_factors: (regex, factor) rules over parameter paths; () means those of the method of
        `transfer.adapt`.
      l1, l2: penalties on trainable kernels, outside the balancer.
      joint_losses: losses over several tasks' outputs, outside the balancer.
      task_schedule: which tasks train at which step: "joint", or a schedule of `training.schedule` or its text.
      engine: how per-task gradients are pulled: "auto", "map", "vmap", "layers", "columns" or a number of rows; level,
        by what they are taken; balance_paths, regexes of the shared parameters whose gradients the balancer sees;
        update_every, steps between updates of its weights; objectives, "tasks" or "examples". Which go together:
        `balancing.options`.
      monitor: log gradient norms, cosines and the share of conflicts where the method has a Gramian.
      eval_every: steps between validations; about a tenth of the run by default.
      steps_per_dispatch: steps per compiled call; must divide the other intervals. By default at most 50.
      log_every: steps between training records; by default about fifty in all.
      checkpoint_every: steps between checkpoints, if there is a workdir; by default `eval_every`.
      patience: stop after this many validations in a row without improvement; None: never.
      fallback: whether a task that validation does not vouch for predicts the best constant of its labels, or is moved
        toward it (`training.verdicts`); which do is a warning, and `run.fallback`. Off by default, since a comparison
        of methods is to show what each has learned; `training.options_for_table` has it on.
      nonfinite: "stop" or "skip_task" (`make_train_step`).
      workdir: where config, records and checkpoints go. Running again there resumes, if all that the run rests on is
        the same (`training.identity`).
      config: a caller's own description of the run, for config.json; the arguments by default.
      mesh: the devices that share each batch; all by default.
      parallel: "jit" or "pmap".
      progress: show a progress line; by default where stderr is a terminal.
      **others: none; the error for a name of another library says what it is here.

    Raises:
      ValueError: for arguments or data that do not fit, or a workdir that is in use or holds another run, saying what
        differs.
      Interrupted: after Ctrl-C or SIGTERM, once the run is saved; `error.run` is the run so far.
      FloatingPointError: naming step and task, or part of the step, that is not finite; the last good checkpoint stays.
    """
    started = time.perf_counter()
    arguments.refuse_unknown(others, [n for n in inspect.signature(fit).parameters if n != "others"])
    arguments.check_model(model)
    arguments.check_data(data)
    parts.check_whole("batch_size", batch_size)
    arguments.check_flag("fallback", fallback)
    arguments.check_rest(clip_norm, l1, l2, patience, task_schedule, joint_losses, mesh, config)
    adapted = model if isinstance(model, Adapted) else None
    if adapted:
        optimizer, learning_rate_factors = adapted.defaults(optimizer, learning_rate_factors, freeze)
    model = adapted.model if adapted else model
    source, own_config = data.spec, config is not None
    model, tasks, data = resolve_model(model, data, adapted.carried if adapted else ())
    names = tuple(t.name for t in tasks)
    serving.warn_of_other_columns(adapted.columns if adapted else None, data)
    check_dataset(data)
    if data.val is not None:
        check_weighted(tasks, data.val)
    serving.check_encoder(data, model.encoder)
    arguments.check_readable(model, data)
    seeds, members = arguments.read_seeds(seed), np.ndim(seed) > 0
    mesh = devices.make_mesh() if mesh is None else mesh
    devices.check_batch_size(batch_size, mesh)
    arguments.warn_of_repeated_rows(batch_size, data.train)
    if workdir is not None:
        workdir = paths.local_folder(workdir, "workdir")
        saved_folder.check_not_saved(workdir)
    named = {"steps_per_dispatch": steps_per_dispatch, "eval_every": eval_every, "checkpoint_every": checkpoint_every,
             "log_every": log_every}  # fmt: skip
    spans = continued(num_steps, named, None if workdir is None else identity.earlier_settings(workdir))
    several = isinstance(balancer, list | tuple) and not isinstance(balancer, Balancer)
    if several and not balancer:
        raise ValueError("balancer is empty; give a method, several, or None for equal weights")
    balancers = tuple(arguments.read_balancer(b) for b in (balancer if several else [balancer]))
    members = members or several
    seeds_of_members = seeds * len(balancers)
    described = [b.spec for b in balancers] if several else balancers[0].spec
    balancer = side_by_side(balancers, len(seeds), len(names))
    named_optimizer = optimizer if isinstance(optimizer, str) else "adam" if optimizer is None else None
    optimizer = optimizer if named_optimizer is None else build_optimizer(named_optimizer)
    arguments.check_optimizer(optimizer)
    chosen = schedules.build(task_schedule) if isinstance(task_schedule, str) else task_schedule
    sizes = [int(np.sum(data.train.masks[n])) for n in names]
    active = None if chosen.spec == "joint()" else schedules.bind(chosen, names, sizes)
    freeze = freeze if freeze is not None else adapted.freeze if adapted else None

    # --- what identifies the run -----------------------------------------------------------------------------------
    settings = {
        "sharing": model.spec, "encoder": model.encoder.spec if model.encoder else None, "balancer": described,
        "optimizer": named_optimizer or "given as an object", "num_steps": num_steps, "batch_size": batch_size,
        "seed": list(seeds) if members else seeds[0], "freeze": freeze, "clip_norm": clip_norm, "l1": l1, "l2": l2,
        "nonfinite": nonfinite, "parallel": parallel, "engine": engine, "level": level, "balance_paths": balance_paths,
        "update_every": update_every, "objectives": objectives, "task_schedule": chosen.spec,
        "fallback": fallback or None, **spans,
    }  # fmt: skip
    if config is None:
        config = {"data": source or data.name, "tasks": list(names), **settings}
    made_of = {"balancer": balancers, "task_schedule": chosen, "sharing": model, "encoder": model.encoder}
    no_text = {
        k: v for k, v in made_of.items() if settings[k] is None or (several and k == "balancer" and None in described)
    }
    more = {"optimizer": named_optimizer or optimizer, "joint_losses": tuple(joint_losses), "monitor": monitor,
            "learning_rate_factors": learning_rate_factors, "patience": patience}  # fmt: skip
    if fallback and data.groups is not None and "val" in data.groups:
        more["groups of val"] = np.asarray(data.groups["val"])
    rests_on = identity.describe(data, tasks, {**settings, **no_text, **more}, adapted)
    rests_on["named"] = [k for k, v in named.items() if v is not None]

    def check_workdir() -> list[str]:
        """An error if the workdir holds another run; returns what could not be compared."""
        if workdir is None:
            return []
        serving.check_same_file(workdir, data.columns)
        return identity.check(workdir, rests_on, config, own_config=own_config, named=named)

    for text in check_workdir():
        warnings.warn(text, UserWarning, stacklevel=2)

    # --- variables, step and dispatch ------------------------------------------------------------------------------
    example = small_batch(data.train)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds_of_members, jnp.uint32))

    given = adapted.variables if adapted else {}
    if adapted:
        arguments.check_carried(adapted, jax.eval_shape(lambda key: model.init(key, example), keys[0]), data)
    first = initial(model, example, adapted.member(0) if adapted else {})
    shapes = first.shapes
    trainable = partition.trainable_paths(shapes["params"], freeze)
    how = Options(engine, level, matching(balance_paths, trainable), update_every, objectives, monitor)
    for each in balancers:
        check(how, each, len(names), model.features == "common" and not isinstance(example.inputs, PerTask))
        check_batch(how, each, batch_size, mesh.size if parallel == "pmap" else 1, data.val is not None)
        if unknown := [t for t in each.about if t not in names]:
            raise parts.unknown(f"task in balancer {each.spec}:", unknown[0], names)
    if objectives == "examples" and parallel == "pmap":
        raise ValueError("objectives='examples' compares examples across devices; use parallel='jit'")
    rows_of_jacobian = len(names) * (batch_size if objectives == "examples" else 1)
    shared = {p: x for p, x in partition.flatten(shapes["params"]).items() if p in trainable and
              partition.owner(p) == "shared"}  # fmt: skip
    mode, why = resolve(engine, balancer, rows_of_jacobian, shared, len(seeds_of_members))
    how = how._replace(mode=mode)

    def initialise(key: jax.Array, given: Any) -> Any:
        return first.make(jax.random.fold_in(key, 1), given)

    def create(variables: Any, key: jax.Array, method: Any = 0) -> tuple[state.TrainState, selection.Best]:
        started = [
            state.create(
                variables, len(names), owners, b, trainable, jax.random.fold_in(key, 2), how, rows_of_jacobian, layout
            )
            for b in balancers
        ]
        # Methods side by side differ in what their states carry.
        states = jax.tree.map(lambda *x: jnp.stack(x)[method], *(s.balancer_state for s in started))
        new = started[0]._replace(balancer_state=states)
        return new, selection.start(new.variables, len(names))

    trunk_states = len(names) if chosen.optimizer_per_task else 1
    flat = partition.flatten(shapes["params"])
    of_one = next(iter(groups({p: flat[p] for p in flat if p in trainable}).values()))
    check_suits(optimizer, of_one, named_optimizer)
    on_disk = workdir is not None and data.val is None
    averages = check_averages(jax.eval_shape(optimizer.init, of_one), trunk_states, not on_disk)
    owners = per_owner(optimizer, clip_norm=clip_norm, factors=learning_rate_factors, trunk_states=trunk_states)
    # An optimizer that is named treats all paths alike.
    rules = owners._replace(optimizer=None) if named_optimizer else owners
    held_out = () if data.val is None else (centred(tasks, data.val),)
    layout = layout_of(model, tasks, shapes, example, trainable=trainable, optimizer=rules, also=held_out)
    whole = devices.replicated(mesh)
    per_member = 0 if adapted and adapted.members else None
    if adapted and adapted.members and adapted.members != len(seeds_of_members):
        raise ValueError(f"the adapted run has {adapted.members} members; give as many seeds, not {len(seeds)}")
    if members:
        variables = jax.vmap(initialise, in_axes=(0, per_member))(keys, given)
        make, of_each = jax.vmap(create), (keys, jnp.repeat(jnp.arange(len(balancers)), len(seeds)))
    else:
        variables, make, of_each = initialise(keys[0], given), create, (keys[0],)
    variables = layout.stack_variables(jax.device_get(first.named(variables, members)), int(members))
    train, best = jax.jit(make, out_shardings=whole)(variables, *of_each)

    step = make_train_step(
        model, owners, balancer, trainable, layout=layout, options=how, l1=l1, l2=l2, joint=joint_losses,
        nonfinite=nonfinite, active=active, tell=lambda notes: setattr(run, "engine", "; ".join((why, *notes))),
    )  # fmt: skip
    dispatch = make_dispatch(step, mesh, parallel, members)
    evaluate = make_evaluate(model, layout, members)
    by, silent = selection.yardstick(tasks, data.train, data.val)
    evaluated = loop.make_evaluated(averages, members, layout)
    choose = loop.make_choose(layout, patience, members, whole)
    read = (data.train, data.val) if balancer.needs is Needs.ORACLE else (data.train,)
    read = tuple(centred(tasks, split) for split in read)
    splits = jax.device_put(tuple(lay_out(split, layout) for split in read), whole)
    validation = None
    if data.val is not None:
        validation = jax.device_put(layout.stack_batch(padded_batches(*held_out, 256), axis=1), whole)
    feeds = [Feeds(read, layout, batch_size, s) for s in seeds_of_members]

    run = Run(model, tasks, {}, [], example, source, members=len(seeds_of_members) if members else None, config=config)
    run.engine, run.trainable, run.identity, run.without_say = why, trainable, rests_on, silent
    run.columns = data.columns
    job = loop.Job(
        run, layout, train, best, dispatch, evaluated, evaluate, choose, by, splits, validation, feeds, num_steps,
        spans, nonfinite, workdir, check_workdir, progress, started,
    )  # fmt: skip
    try:
        loop.train(job)
    except Interrupted:
        if fallback:
            verdicts.settle(run, data, workdir)
        raise
    if fallback:
        for text in verdicts.settle(run, data, workdir):
            warnings.warn(text, UserWarning, stacklevel=2)
    if run.resumed_from is not None and run.resumed_from > num_steps:
        warnings.warn(f"{workdir} holds a run of {run.resumed_from} steps, which is returned; num_steps={num_steps} is "
                      "fewer. Use another workdir for a shorter run", UserWarning, stacklevel=2)  # fmt: skip
    return run

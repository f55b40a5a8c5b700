"""What `fit` was given, checked and read: what is meant before anything is made, and what identifies the run."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from mtl_jax import balancing, encoders, paths, sharing
from mtl_jax import parallel as devices
from mtl_jax.balancing.base import Balancer
from mtl_jax.balancing.vmapped import side_by_side
from mtl_jax.data.checks import check_dataset
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tables import serving
from mtl_jax.model import MultiTaskModel
from mtl_jax.tasks import Task
from mtl_jax.training import arguments, identity, records, saved_folder
from mtl_jax.training import schedule as schedules
from mtl_jax.training.contents import contents
from mtl_jax.training.evaluation import check_weighted
from mtl_jax.training.intervals import NAMES as INTERVALS
from mtl_jax.training.intervals import continued
from mtl_jax.training.objects import GIVEN, text_of
from mtl_jax.training.optimizers import build_optimizer
from mtl_jax.training.options import FitOptions
from mtl_jax.training.start import Adapted, resolve_model


class Methods(NamedTuple):
    """How a run trains, which may change while it goes on.

    Attributes:
      balancers: one, or several side by side; `balancer` is all of them as one, `described` their texts.
      optimizer, named: of optax, and its text if it was given as one.
      schedule: which tasks train at a step.
      freeze: rules, or None.
    """

    balancers: tuple[Balancer, ...]
    balancer: Balancer
    described: Any
    optimizer: optax.GradientTransformation
    named: str | None
    schedule: schedules.Schedule
    freeze: Any


class Plan(NamedTuple):
    """All that was given, checked.

    Attributes:
      options: as given.
      made: the model, as it was given.
      model, tasks, data: as `start.resolve_model` has them.
      adapted: what the model starts from, if not from scratch.
      source: the call that loads the data again, or None.
      seeds: of one method's runs.
      members: how many runs train side by side; None for a plain run.
      methods: how it trains.
      mesh: the devices.
      spans: steps between records, validations, checkpoints and returns to the host.
      workdir: a folder, or None.
    """

    options: FitOptions
    made: MultiTaskModel
    model: MultiTaskModel
    tasks: tuple[Task, ...]
    data: Dataset
    adapted: Adapted | None
    source: str | None
    seeds: tuple[int, ...]
    members: int | None
    methods: Methods
    mesh: jax.sharding.Mesh
    spans: dict[str, int]
    workdir: pathlib.Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks."""
        return tuple(t.name for t in self.tasks)

    @property
    def named_intervals(self) -> dict[str, int | None]:
        """{interval: what the caller gave, or None}."""
        return {k: getattr(self.options, k) for k in INTERVALS}

    def changed(self, options: FitOptions) -> "Plan":
        """The plan with other options of those in `options.CHANGEABLE`."""
        arguments.check_options(options)
        devices.check_batch_size(options.batch_size, self.mesh)
        method = None if self.adapted is None else self.adapted.method
        if method is not None:  # whose rules, factors and optimizer are part of these
            for name in ("optimizer", "freeze", "learning_rate_factors"):
                if getattr(options, name) is not getattr(self.options, name):
                    raise ValueError(f"{name}: the model was adapted by method {method.name!r}, whose own {name} a "
                                     "change would drop; begin another run")  # fmt: skip
        methods = read_methods(options, self.names, self.adapted, len(self.seeds))
        if len(methods.balancers) != len(self.methods.balancers):
            raise ValueError(f"balancer: {len(methods.balancers)} methods in place of {len(self.methods.balancers)}; "
                             "how many runs train side by side cannot change")  # fmt: skip
        return self._replace(options=options, methods=methods)


def make(model: Any, data: Any, options: FitOptions) -> Plan:
    """Reads what `fit` was given.

    Raises:
      ValueError: for what does not fit; see `fit`.
    """
    o = options
    arguments.check_model(model)
    arguments.check_data(data)
    arguments.check_options(o)
    adapted = model if isinstance(model, Adapted) else None
    if adapted:
        optimizer, factors = adapted.defaults(o.optimizer, o.learning_rate_factors, o.freeze)
        o = dataclasses.replace(o, optimizer=optimizer, learning_rate_factors=factors)
    made = adapted.model if adapted else model
    source = data.spec
    model, tasks, data = resolve_model(made, data, adapted.carried if adapted else ())
    names = tuple(t.name for t in tasks)
    serving.warn_of_other_columns(adapted.columns if adapted else None, data)
    if adapted:
        adapted.check_vocabulary(data)
    check_dataset(data)
    if data.val is not None:
        check_weighted(tasks, data.val)
    serving.check_encoder(data, model.encoder)
    arguments.check_readable(model, data)
    seeds = arguments.read_seeds(o.seed)
    mesh = devices.make_mesh() if o.mesh is None else o.mesh
    devices.check_batch_size(o.batch_size, mesh)
    arguments.warn_of_repeated_rows(o.batch_size, data.train)
    workdir = None
    if o.workdir is not None:
        workdir = paths.local_folder(o.workdir, "workdir")
        saved_folder.check_not_saved(workdir)
    named = {k: getattr(o, k) for k in INTERVALS}
    spans = continued(o.num_steps, named, None if workdir is None else identity.earlier_settings(workdir))
    methods = read_methods(o, names, adapted, len(seeds))
    members = len(seeds) * len(methods.balancers) if np.ndim(o.seed) > 0 or several(o.balancer) else None
    return Plan(o, made, model, tasks, data, adapted, source, seeds, members, methods, mesh, spans, workdir)


def several(balancer: Any) -> bool:
    """Whether methods were given that train side by side."""
    return isinstance(balancer, list | tuple) and not isinstance(balancer, Balancer)


def read_methods(options: FitOptions, names: tuple[str, ...], adapted: Adapted | None, num_seeds: int) -> Methods:
    """How a run trains, of the options that say so."""
    given = options.balancer
    if several(given) and not given:
        raise ValueError("balancer is empty; give a method, several, or None for equal weights")
    methods: Any = given if several(given) else [given]
    balancers = tuple(arguments.read_balancer(b) for b in methods)
    texts = [text_of(b, balancing.build) for b in balancers]
    described = texts if several(given) else texts[0]
    balancer = side_by_side(balancers, num_seeds, len(names))
    optimizer = options.optimizer
    named = optimizer if isinstance(optimizer, str) else "adam" if optimizer is None else None
    optimizer = optimizer if named is None else build_optimizer(named)
    arguments.check_optimizer(optimizer)
    schedule = options.task_schedule
    schedule = schedules.build(schedule) if isinstance(schedule, str) else schedule
    freeze = options.freeze if options.freeze is not None else adapted.freeze if adapted else None
    return Methods(balancers, balancer, described, optimizer, named, schedule, freeze)


def identify(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the config, the identity) of a run: what its caller gave, and all that its result rests on."""
    o, how, made, model = plan.options, plan.methods, plan.made, plan.model
    several_methods = several(o.balancer)
    encoder: Any = made.encoder  # that there is none is said by what builds the text again
    settings = {
        "sharing": text_of(made, lambda text: sharing.build(text, encoder, made.tasks)),
        "encoder": text_of(model.encoder, encoders.build) if model.encoder else None, "balancer": how.described,
        "optimizer": how.named or GIVEN, "num_steps": o.num_steps, "batch_size": o.batch_size,
        "seed": list(plan.seeds) if plan.members else plan.seeds[0], "freeze": how.freeze, "clip_norm": o.clip_norm,
        "l1": o.l1, "l2": o.l2, "nonfinite": o.nonfinite, "parallel": o.parallel, "engine": o.engine,
        "level": o.level, "balance_paths": o.balance_paths, "update_every": o.update_every,
        "objectives": o.objectives, "task_schedule": how.schedule.spec, "fallback": o.fallback or None, **plan.spans,
    }  # fmt: skip
    config = o.config
    if config is None:
        config = {"data": plan.source or plan.data.name, "tasks": list(plan.names), **settings}
    made_of = {"balancer": how.balancers, "task_schedule": how.schedule, "sharing": model, "encoder": model.encoder}
    no_text = {
        k: v
        for k, v in made_of.items()
        if settings[k] is None or (several_methods and k == "balancer" and None in how.described)
    }
    more = {"optimizer": how.named or how.optimizer, "joint_losses": tuple(o.joint_losses), "monitor": o.monitor,
            "learning_rate_factors": o.learning_rate_factors, "patience": o.patience}  # fmt: skip
    if o.train_step is not None:
        more["train_step"] = o.train_step
    groups = plan.data.groups
    if o.fallback and groups is not None and "val" in groups:
        more["groups of val"] = np.asarray(groups["val"])
    rests_on = identity.describe(plan.data, plan.tasks, {**settings, **no_text, **more}, plan.adapted)
    rests_on["named"] = [k for k, v in plan.named_intervals.items() if v is not None]
    if hooks := arguments.read_several(o.hooks):
        rests_on["hooks"] = records.as_json(contents(hooks))
    return config, rests_on


def check_workdir(plan: Plan, config: dict[str, Any], rests_on: dict[str, Any]) -> list[str]:
    """An error if the workdir holds another run; returns what could not be compared."""
    if plan.workdir is None:
        return []
    serving.check_same_file(plan.workdir, plan.data.columns)
    return identity.check(plan.workdir, rests_on, config, own_config=plan.options.config is not None,
                          named=plan.named_intervals)  # fmt: skip

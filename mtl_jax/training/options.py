"""The options of `fit` and `Trainer`: the one place of their names, defaults and words.

Signature and docstring of `fit`, the fields of training configs, what the command line shows of them (``--fields``) and
which of them may differ when a run goes on all come from here. They lie in groups, which can be given as objects:
``fit(model, data, Optimization(num_steps=2000), seed=3)``; a keyword goes over the group.
"""

import dataclasses
import inspect
import pathlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import optax

from mtl_jax import partition, parts
from mtl_jax.balancing.base import Balancer
from mtl_jax.gradients.linearization import JointLoss
from mtl_jax.training.schedule import Schedule

T = TypeVar("T", bound=type)
SAME = object()  # a config's default is that of `fit`
OBJECT = object()  # given in Python only, so no config has it


def option(default: Any, doc: str, *, config: Any = SAME, free: bool = False, changes: bool = False) -> Any:
    """A field of a group.

    Args:
      default: of `fit`.
      doc: what it is.
      config: what configs have by default where that is another thing: a value, or the type of what may be None.
      free: whether a run may go on with another value.
      changes: whether `Trainer.change` takes it.
    """
    return dataclasses.field(
        default=default,
        metadata={"doc": " ".join(doc.split()), "config": config, "free": free, "changes": changes},
    )


def group(kind: T) -> T:
    """Lists the fields of a dataclass of options in its docstring."""
    kind.__doc__ = f"{inspect.cleandoc(kind.__doc__ or '')}\n\nAttributes:\n{listed(kind)}\n"
    return kind


def listed(of: Any, indent: str = "  ") -> str:
    """Names of options with their words, as docstrings have them."""
    entries = (f"{f.name}: {f.metadata['doc']}" for f in dataclasses.fields(of))
    return "\n".join(
        textwrap.fill(e, 120, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False,
                      break_long_words=False)
        for e in entries
    )  # fmt: skip


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization:
    """How parameters move, and for how long."""

    num_steps: int = option(1000, """steps in all, those before a resume included. A larger number continues a run;
        intervals that were not named stay as they were.""", free=True)  # fmt: skip
    batch_size: int = option(128, """rows per step over all devices (per task, where tasks have inputs of their
        own).""", changes=True)  # fmt: skip
    optimizer: optax.GradientTransformation | str | None = option(None, """an optax optimizer or its text, applied to
        ``shared`` and to each task apart; None means adam(1e-3),
        or what the method of `transfer.adapt` has by default.""", config="adam", changes=True)  # fmt: skip
    seed: int | Sequence[int] = option(0, """of initial parameters, row order and draws. Several seeds train side by
        side in one program; the run then has a leading axis of members.""")  # fmt: skip
    freeze: Any = option(None, """regex, several, or (regex, trains) rules over parameter paths. Frozen modules run as
        in inference.""", config=(), changes=True)  # fmt: skip
    clip_norm: float | None = option(None, "bound on the norm of the gradient of all trainable leaves together.",
                                     config=float, changes=True)  # fmt: skip
    learning_rate_factors: partition.Rules = option(
        (),
        "(regex, factor) rules over parameter paths; () means those of the method of `transfer.adapt`.",
        changes=True,
    )
    l1: float = option(0.0, "penalty, factor of sum |w| over trainable kernels, outside the balancer.", changes=True)
    l2: float = option(0.0, "penalty, factor of half sum w^2 over trainable kernels, outside the balancer.",
                       changes=True)  # fmt: skip
    joint_losses: Sequence[JointLoss] = option((), "losses over several tasks' outputs, outside the balancer.",
                                               config=OBJECT)  # fmt: skip
    task_schedule: Schedule | str = option("joint", """which tasks train at which step: "joint", or a schedule of
        `training.schedule` or its text.""", changes=True)  # fmt: skip
    nonfinite: str = option("stop", '"stop" or "skip_task" (`make_train_step`).', changes=True)
    train_step: Callable | None = option(None, """a function that takes the compiled step's (state, batch) -> (state,
        record) and returns the one to use in its place (`make_train_step`).""", config=OBJECT)  # fmt: skip


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Balancing:
    """How the tasks' losses and gradients become one direction. Which go together: `balancing.options`."""

    balancer: Balancer | str | Sequence[Balancer | str] | None = option(None, """a balancing method or its text; None
        means `balancing.equal()`. Several methods of one shape train side by side with every seed; member
        ``m * len(seed) + s`` of the run is method m's.""", config="equal", changes=True)  # fmt: skip
    engine: str | int = option("auto", """how per-task gradients are pulled: "auto", "map", "vmap", "layers", "columns"
        or a number of rows.""", changes=True)  # fmt: skip
    level: str = option("parameters", 'by what they are taken: "parameters" or "features".', changes=True)
    balance_paths: str | Sequence[str] | None = option(None, """regexes of the shared parameters whose gradients the
        balancer sees; None or () for all.""", config=(), changes=True)  # fmt: skip
    update_every: int = option(1, "steps between updates of its weights.", changes=True)
    objectives: str = option("tasks", 'what is balanced: "tasks", or "examples", every task on every example.',
                             changes=True)  # fmt: skip
    monitor: bool = option(True, """log gradient norms, cosines and the share of conflicts where the method has a
        Gramian.""", changes=True)  # fmt: skip


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Intervals:
    """How often, in steps; `steps_per_dispatch` divides the others."""

    eval_every: int | None = option(None, "steps between validations; about a tenth of the run by default.",
                                    config=100)  # fmt: skip
    steps_per_dispatch: int | None = option(None, """steps per compiled call; must divide the other intervals. By
        default at most 50.""", config=50)  # fmt: skip
    log_every: int | None = option(None, "steps between training records; by default about fifty in all.", config=50,
                                   free=True)  # fmt: skip
    checkpoint_every: int | None = option(None, """steps between checkpoints, if there is a workdir; by default
        `eval_every`.""", config=100)  # fmt: skip


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What validation decides beside which variables are kept."""

    patience: int | None = option(None, "stop after this many validations in a row without improvement; None: never.",
                                  config=int, changes=True)  # fmt: skip
    fallback: bool = option(False, """whether a task that validation does not vouch for predicts the best constant of
        its labels, or is moved toward it (`training.verdicts`); which do is a warning, and `run.fallback`. Off by
        default, since a comparison of methods is to show what each has learned; `training.options_for_table` has it
        on.""")  # fmt: skip


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """Where it is computed."""

    mesh: jax.sharding.Mesh | None = option(None, """the devices that share each batch (in a config, how many); all by
        default.""", config=int)  # fmt: skip
    parallel: str = option("jit", '"jit" or "pmap".')


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """What is written, shown and called as a run goes on."""

    workdir: str | pathlib.Path | None = option(None, """where config, records and checkpoints go. Running again there
        resumes, if all that the run rests on is the same (`training.identity`).""", config=OBJECT,
        free=True)  # fmt: skip
    config: dict[str, Any] | None = option(None, """a caller's own description of the run, for config.json; the
        arguments by default.""", config=OBJECT)  # fmt: skip
    writers: Any = option((), """where records go besides metrics.jsonl: "tensorboard", "wandb", "mlflow", or objects
        of one's own (`training.writers`), one or several.""", free=True)  # fmt: skip
    hooks: Any = option((), """functions of (record, job), one or several, called with every record (`Trainer`).""",
                        config=OBJECT)  # fmt: skip
    progress: bool | None = option(None, "show a progress line; by default where stderr is a terminal.", config=OBJECT,
                                   free=True)  # fmt: skip


GROUPS = (Optimization, Balancing, Intervals, Selection, Devices, Output)


@group
@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(Output, Devices, Selection, Intervals, Balancing, Optimization):  # in the order of GROUPS
    """All options, group by group."""


FIELDS = {f.name: f for f in dataclasses.fields(FitOptions)}
FREE = tuple(n for n, f in FIELDS.items() if f.metadata["free"])
CHANGEABLE = tuple(n for n, f in FIELDS.items() if f.metadata["changes"])
IN_CONFIGS = tuple(n for n, f in FIELDS.items() if f.metadata["config"] is not OBJECT)


def in_config(name: str) -> Any:
    """An option's default in a config: a value, or a type where it is None and may be of that type."""
    field = FIELDS[name]
    return field.default if field.metadata["config"] is SAME else field.metadata["config"]


def read(given: Sequence[Any], keywords: Mapping[str, Any]) -> FitOptions:
    """The options of groups and keywords; a keyword goes over a group.

    Raises:
      ValueError: for what is no group, a group that is given twice, or a keyword that is no option.
    """
    from mtl_jax.training.arguments import refuse_unknown

    values: dict[str, Any] = {}
    for each in given:
        if not isinstance(each, GROUPS):
            wanted = f"options, {', '.join(g.__name__ for g in GROUPS)} of mtl.training, or keywords: num_steps=2000"
            raise parts.no_such("what comes after model and data", each, wanted)
        own = {f.name: getattr(each, f.name) for f in dataclasses.fields(each)}
        if again := own.keys() & values.keys():
            raise ValueError(f"{type(each).__name__} is given twice: {min(again)!r} is in two of the groups")
        values |= own
    refuse_unknown({k: v for k, v in keywords.items() if k not in FIELDS}, ["model", "data", *FIELDS])
    return FitOptions(**{**values, **keywords})


def documented(of: Any) -> None:
    """Gives a function (model, data, *options, **keywords), or such a class, its signature and docstring.

    The options stand where its docstring has a line ``{options}``.
    """
    empty = inspect.Parameter.empty
    given = inspect.signature(of).parameters
    first = [p for p in given.values() if p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.VAR_POSITIONAL]
    own = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type or empty)
        for f in FIELDS.values()
    ]
    of.__signature__ = inspect.Signature([*first, *own])
    of.__doc__ = inspect.cleandoc(of.__doc__).replace("  {options}", listed(FitOptions))

"""Fine-tuning by any method: in one fit, in several stages, on features computed once, or in closed form."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition, parts, paths
from mtl_jax.batch import Batch
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.fingerprint import fingerprint
from mtl_jax.tasks import Task
from mtl_jax.training import identity, options
from mtl_jax.training.arguments import check_data, check_numbers, check_options, refuse_unknown
from mtl_jax.training.fit import fit
from mtl_jax.training.intervals import NAMES as INTERVALS
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted, initial, resolve_model, small_batch
from mtl_jax.transfer import cached, trunks
from mtl_jax.transfer.applying import factors_of, freezing
from mtl_jax.transfer.methods.base import Stage
from mtl_jax.transfer.pretrained import Pretrained

SCALE = ".*networks learn badly from numbers far from unit scale"  # features are what they are
# Of the options of `fit`, those that a closed form may be given beside other methods: what they say has no object.
COMMON = (*options.FREE, *INTERVALS, "seed", "batch_size", "patience", "config", "mesh", "parallel")


def fine_tune(
    source: Run | Pretrained | Adapted | str | pathlib.Path,
    data: Dataset,
    *,
    method: Any = None,
    tasks: Sequence[Task | str] | Task | str | None = None,
    num_steps: int = 1000,
    learning_rate: float | None = None,
    optimizer: Any = None,
    cache: bool | None = None,
    workdir: str | pathlib.Path | None = None,
    **arguments: Any,
) -> Run:
    """Trains what `adapt` made, by its method, and keeps the variables that are best on validation.

    Args:
      source: what `adapt` returned; or a run, or what `from_pretrained` returned, or the folder or file of either, that
        is adapted to the data's tasks by `method` first.
      data: must have the model's tasks.
      method: see `adapt`; where `source` was not adapted, "full" by default.
      tasks: where it was not, the tasks to adapt it to, or their names in the data; by default all of the data.
      num_steps: steps in all; stages share them.
      learning_rate: in place of the method's own.
      optimizer: an optax optimizer, or its text, such as "adamw(weight_decay=0.01)", which may leave its rate to
        `learning_rate`; None for the method's own.
      cache: whether features are computed once, in place of at every step; None: where that changes nothing.
      workdir: each stage has a folder ``stage_<i>`` there with its checkpoints, and the run, of one seed, is saved in
        ``run``; running again goes on where it stopped.
      arguments: others of `fit`, such as balancer, batch_size, seed, patience (early stopping) and freeze.

    Returns:
      The run. Its history is that of all stages, counted through, with the number of the stage as "stage".

    Raises:
      ValueError: for what does not fit, and `cache=True` where features change.
    """
    check_data(data)
    if isinstance(source, Adapted):
        if method is not None or tasks is not None:
            raise ValueError("what was adapted has its method and tasks; give these to `adapt`, or a run in its place")
        adapted = source
    else:
        opened, how = trunks.open_trunk(source), "full" if method is None else method
        adapted = trunks.adapted(opened, data, named(tasks, data), freeze=arguments.pop("freeze", None), method=how)
    parts.check_whole("num_steps", num_steps)
    check_numbers(learning_rate=1.0 if learning_rate is None else learning_rate)
    folder = None if workdir is None else paths.local_folder(workdir, "workdir")
    how = adapted.method
    if "freeze" in arguments and how is not None:
        raise ValueError("freeze goes to `adapt`, beside the method, whose rules come after it")
    if how is not None and how.solve is not None:
        refuse_unused(how.spec, {"optimizer": optimizer, "learning_rate": learning_rate, **arguments})
        run = how.solve(adapted, data, seed=arguments.get("seed", 0))
        return _saved(run, folder)
    optimizer = optimizer_text(adapted, optimizer, learning_rate)
    params = shapes_of(adapted, data)
    stages = (None,) if how is None or how.stages is None else how.stages(list(params), adapted.model.encoder)
    counts = steps_of(stages, num_steps, [arguments.get(k) for k in INTERVALS])
    history, done, run, runs = [], 0, None, []
    for i, (stage, steps) in enumerate(zip(stages, counts, strict=True)):
        now = adapted if stage is None else at_stage(adapted, stage, run, params)
        place = None if folder is None else folder / f"stage_{i + 1}"
        given = {**arguments, "optimizer": optimizer, "num_steps": steps, "workdir": place}
        if own := given.get("learning_rate_factors"):
            given["learning_rate_factors"] = slower(own, 1.0 if stage is None else stage.rate)
        run = heads_only(now, data, cache, given) or fit(now, data, **given)
        more = {} if len(stages) == 1 else {"stage": i + 1}
        history += [{**r, "step": r["step"] + done, **more} for r in run.history]
        done += steps
        runs.append(run)
    assert run is not None  # there is one stage at least
    cost, seconds = cost_of([r.cost for r in runs], counts), sum(r.seconds for r in runs)
    run = dataclasses.replace(run, history=history, config={**run.config, "num_steps": num_steps}, cost=cost,
                              seconds=seconds)  # fmt: skip
    return _saved(run, folder)


def named(tasks: Sequence[Task | str] | Task | str | None, data: Dataset) -> Sequence[Task]:
    """Tasks, of which those that are given by name are the data's."""
    if tasks is None:
        return data.tasks
    several = (tasks,) if isinstance(tasks, Task | str) else tuple(tasks)
    return tuple(data.select([t]).tasks[0] if isinstance(t, str) else t for t in several)


def refuse_unused(method: str, given: Mapping[str, Any]) -> None:
    """An error for an argument that a closed form has no use for, or that `fit` does not know or take either."""
    known = {"learning_rate": None, **{n: f.default for n, f in options.FIELDS.items()}}
    refuse_unknown({k: v for k, v in given.items() if k not in known}, ["source", "data", "method", "tasks", *known])
    check_options(options.FitOptions(**{k: v for k, v in given.items() if k in options.FIELDS}))
    for name, value in given.items():
        usual = [known[name]]
        if name in options.IN_CONFIGS and name != "optimizer":
            usual.append(options.in_config(name))
        as_usual = value is known[name] or (parts.is_literal(value) and any(value == u for u in usual))
        if name not in COMMON and not as_usual:
            raise ValueError(f"{name} is given, and {method} solves for the heads in closed form, which has no use for "
                             "it; leave it out")  # fmt: skip


def cost_of(costs: Sequence[Mapping[str, float]], steps: Sequence[int]) -> dict[str, float]:
    """`Run.cost` of all stages: compile seconds of all, the most bytes, FLOPs of a step on average.

    What one stage's run does not know, such as that of a stage that was finished before, is left out.
    """
    found = {}
    if any("compile_seconds" in c for c in costs):
        found["compile_seconds"] = sum(c.get("compile_seconds", 0.0) for c in costs)
    if all("peak_bytes" in c for c in costs):
        found["peak_bytes"] = max(c["peak_bytes"] for c in costs)
    if all("step_flops" in c for c in costs):
        found["step_flops"] = sum(c["step_flops"] * n for c, n in zip(costs, steps, strict=True)) / sum(steps)
    return found


def _saved(run: Run, folder: pathlib.Path | None) -> Run:
    if folder is not None and not run.members:
        run.save(folder / "run")
    return run


def optimizer_text(adapted: Adapted, optimizer: Any, learning_rate: float | None) -> Any:
    """The optimizer as `fit` takes it, at the rate that is asked for; None leaves it to the method."""
    if learning_rate is None and (optimizer is None or not isinstance(optimizer, str)):
        return optimizer
    method = adapted.method
    text = optimizer or ("adam" if method is None else method.optimizer)
    if not isinstance(text, str):
        raise ValueError("learning_rate goes with the name of an optimizer; one that is given as an object has its own")
    name, positional, given = parts.parse(text, "optimizer")
    if positional or "learning_rate" in given:
        if learning_rate is not None:
            raise ValueError(f"optimizer {text!r} has a learning rate; leave it out there or in learning_rate")
        return text
    default = 1e-3 if method is None else method.learning_rate
    return parts.call(name, {"learning_rate": default if learning_rate is None else learning_rate, **given})


def steps_of(stages: Sequence[Stage | None], num_steps: int, intervals: Sequence[int | None] = ()) -> list[int]:
    """How many steps each stage has, whole dispatches and at least one; they sum to `num_steps`.

    Args:
      stages: with their shares.
      num_steps: in all.
      intervals: that `fit` is given, first of all steps_per_dispatch; None where it is to choose.
    """
    if len(stages) == 1:
        return [num_steps]
    given = [n for n in intervals if n]
    if intervals and intervals[0]:
        size = intervals[0]
    else:  # as many steps in a dispatch as `fit` may take
        common, most = int(np.gcd.reduce([num_steps, *given])), min(50, num_steps // len(stages))
        size = max((d for d in range(1, most + 1) if common % d == 0), default=1)
    units = num_steps // size
    if units < len(stages):
        raise ValueError(f"num_steps={num_steps} has fewer dispatches of {size} steps than there are stages, "
                         f"{len(stages)}; give more steps")  # fmt: skip
    ends = np.round(np.cumsum([1.0 if s is None else s.share for s in stages]) * units).astype(int)
    ends[-1] = units
    for i in range(len(ends)):
        ends[i] = max(ends[i], i + 1)
    for i in reversed(range(len(ends) - 1)):
        ends[i] = min(ends[i], ends[i + 1] - 1)
    counts = np.diff([0, *ends]) * size
    counts[-1] += num_steps - units * size
    return [int(n) for n in counts]


def at_stage(adapted: Adapted, stage: Stage, before: Run | None, params: dict[str, Any]) -> Adapted:
    """What a stage trains: from where the one before ended, with what trains in it."""
    method = adapted.method._replace(stages=None, trains=stage.trains)
    rules = freezing(method, adapted.asked, params)
    factors = slower(factors_of(method, partition.trainable_paths(params, rules), adapted.model.encoder), stage.rate)
    new = adapted._replace(method=method, freeze=rules, factors=factors)
    if before is None:
        return new
    given = {kind: {p: np.asarray(x) for p, x in partition.flatten(tree).items()}
             for kind, tree in before.variables.items()}  # fmt: skip
    return new._replace(variables=given, members=before.members or 0)


def slower(factors: partition.Rules, rate: float) -> partition.Rules:
    """The rules with all rates times `rate`."""
    if rate == 1:
        return tuple(factors)
    return (*((r, f * rate) for r, f in factors), (".*", rate))


def shapes_of(adapted: Adapted, data: Dataset) -> dict[str, Any]:
    """{path: shape} of the model's parameters."""
    example = small_batch(data.select([t.name for t in adapted.model.tasks]).train)
    return partition.flatten(jax.eval_shape(lambda: adapted.model.init(jax.random.key(0), example))["params"])


def heads_only(adapted: Adapted, data: Dataset, cache: bool | None, given: dict[str, Any]) -> Run | None:
    """The run by features that are computed once; None where they may not be, or need not."""
    if cache is False:
        return None
    seed = given.get("seed", 0)
    freeze = adapted.freeze if given.get("freeze") is None else given["freeze"]
    model, tasks, chosen = resolve_model(adapted.model, data, adapted.carried)
    example = small_batch(chosen.train)
    first = initial(model, example, adapted.member(0))
    trainable = partition.trainable_paths(first.shapes["params"], freeze)
    if np.ndim(seed):
        no = "there are several seeds"
    elif given.get("train_step") is not None:
        no = "train_step reads inputs"
    else:
        no = cached.why_not(adapted, first.shapes, trainable, example)
    if no:
        if cache:
            raise ValueError(f"cache=True, and features cannot be computed once: {no}")
        return None
    cached.check_inputs_of(adapted, model, chosen)
    key = jax.random.key(seed)
    variables = first.named(first.make(jax.random.fold_in(key, 1), adapted.variables), False)
    heads = cached.of_heads(model, example)
    features = cached.with_features(model, variables, chosen)
    own = {
        kind: {p: np.asarray(x) for p, x in partition.flatten(tree).items() if p.startswith("tasks/")}
        for kind, tree in variables.items()
    }
    rules = cached.rules_of(own["params"], trainable)
    start = Adapted(heads, own, rules or None, {}, 0, adapted.carried, f"{adapted.source}; features computed once",
                    None, adapted.method and adapted.method._replace(stages=None), adapted.factors)  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SCALE)
        run = fit(start, features, **{**given, "freeze": None})
    whole = {kind: {"shared": variables[kind]["shared"], "tasks": run.variables[kind]["tasks"]} for kind in variables}
    whole_start = {"data": fingerprint(chosen), "starts from": adapted.source,
                   "shared start": identity.shared_start(adapted.variables.get("params", {}))}  # fmt: skip
    return dataclasses.replace(
        run, identity={**run.identity, **whole_start}, model=model, variables=whole, columns=chosen.columns,
        example=Batch(example.inputs, *example[1:]),
        data=data.spec, state=None, trainable=trainable, _compiled={},
    )  # fmt: skip

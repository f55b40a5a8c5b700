"""The loop of a fit. A function of (config, seed): killed and resumed, it ends the same."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from mtl_jax.batch import Batch
from mtl_jax.training import records, selection
from mtl_jax.training.averages import evaluated_at
from mtl_jax.training.description import write_description
from mtl_jax.training.dispatch import Feeds, compile_once
from mtl_jax.training.interrupts import Interrupts
from mtl_jax.training.progress import Progress
from mtl_jax.training.run import Run
from mtl_jax.training.state import TrainState


class Job(NamedTuple):
    """All that the loop needs, made once.

    Attributes:
      run: to be filled in.
      state: to start from, where `workdir` holds no checkpoint; with members, they are its first axis.
      best: what is kept of the validations.
      dispatch: (state, splits, rows) -> (state, records) of some steps (`dispatch.make_dispatch`).
      evaluated: state -> the variables at which it is evaluated (`averages`).
      evaluate: (variables, validation) -> (losses, metrics).
      choose: `make_choose`.
      baselines: [K], the validation losses of the best constants.
      splits: what steps read rows of.
      validation: padded batches, or None.
      feeds: which rows each step reads, one for every member.
      num_steps: in all.
      spans: steps between records, validations, checkpoints and returns to the host (`intervals`).
      nonfinite: see `fit`.
      workdir: of checkpoints and records, or None.
      progress: see `fit`.
      started: when the fit began, by `time.perf_counter`.
    """

    run: Run
    state: TrainState
    best: selection.Best
    dispatch: Callable
    evaluated: Callable
    evaluate: Callable
    choose: Callable
    baselines: Float[Array, " task"]
    splits: tuple[Batch, ...]
    validation: Any
    feeds: list[Feeds]
    num_steps: int
    spans: dict[str, int]
    nonfinite: str
    workdir: pathlib.Path | None
    progress: bool | None
    started: float


def train(job: Job) -> Run:
    """Trains from the start, or the last checkpoint, to the end, an early stop or an interrupt; fills in the run."""
    run, state, best, spans, workdir, started = job.run, job.state, job.best, job.spans, job.workdir, job.started
    names, members = tuple(t.name for t in run.tasks), bool(run.members)
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if workdir is not None:
            from mtl_jax.checkpoint import Checkpoints

            checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
            if (found := checkpoints.latest()) is not None:
                loaded = checkpoints.restore(found, {"train": state, "best": best})
                state, best = loaded["train"], loaded["best"]
                run.history = records.rewind_history(workdir / "metrics.jsonl", found)
                run.resumed_from = found
            else:
                records.rewind_history(workdir / "metrics.jsonl", -1)
            records.write_json(workdir / "config.json", run.config)
            write_description(workdir, run)
        at = int(np.max(np.asarray(state.step)))
        started -= run.history[-1]["seconds"] if run.history else 0.0

        def log(record: dict) -> None:
            record["seconds"] = round(time.perf_counter() - started, 3)
            run.history.append(record)
            if workdir is not None:
                records.append(workdir / "metrics.jsonl", record)

        def save() -> None:
            if checkpoints is not None:
                checkpoints.save(at, {"train": state, "best": best})

        # --- the loop ----------------------------------------------------------------------------------------------
        interrupts, bar = stack.enter_context(Interrupts()), stack.enter_context(Progress(job.num_steps, job.progress))
        waiting, saved = [], at if run.resumed_from is not None else None
        stopped = bool(np.all(np.asarray(best.stopped)))
        size = spans["steps_per_dispatch"]
        compiled = None
        while at < job.num_steps and not stopped:
            rows = [feed.rows(at, size) for feed in job.feeds]
            rows = jax.tree.map(lambda *r: np.stack(r), *rows) if members else rows[0]
            if compiled is None:
                compiled, run.cost = compile_once(job.dispatch, state, job.splits, rows)
            state, new = compiled(state, job.splits, rows)
            at += size
            waiting.append(new)
            validate = job.validation is not None and (at % spans["eval_every"] == 0 or at == job.num_steps)
            keep = checkpoints is not None and at % spans["checkpoint_every"] == 0
            if at % spans["log_every"] == 0 or validate or keep or interrupts.caught or at == job.num_steps:
                joined = {k: np.concatenate([np.asarray(w[k]) for w in waiting], int(members)) for k in new}
                check_finite(joined, at, names, job.nonfinite, saved, workdir)
                log(records.train_record(at, names, joined))
                bar.update(at, run.history[-1]["losses"])
                waiting = []
            if validate:
                variables = job.evaluated(state)
                losses, metrics = job.evaluate(variables, job.validation)
                best = job.choose(best, variables, losses, job.baselines, state.step)
                log(records.eval_record(at, "val", names, losses, metrics))
                stopped = bool(np.all(np.asarray(best.stopped)))
            if keep or interrupts.caught or stopped or at == job.num_steps:
                save()
                saved = at
            if interrupts.caught:
                run.interrupted = interrupts.caught
                break
    chosen = job.validation is not None and np.isfinite(np.asarray(best.scores)).any()
    run.variables = {"params": best.params, "state": best.state} if chosen else job.evaluated(state)
    run.state, run.best = state, best
    run.seconds = time.perf_counter() - started
    return run


def make_evaluated(averages: bool, members: bool) -> Callable:
    """The compiled `averages.evaluated_at` for optimizers that average; for others the state's own variables."""
    if not averages:
        return lambda state: state.variables
    return jax.jit(jax.vmap(evaluated_at) if members else evaluated_at)


def make_choose(names: tuple[str, ...], patience: int | None, members: bool, sharding: Any) -> Callable:
    """The compiled `selection.update`."""

    def choose(best, variables, losses, baselines, step):
        return selection.update(best, variables, losses, baselines, step, names=names, patience=patience)

    return jax.jit(jax.vmap(choose, in_axes=(0, 0, 0, None, 0)) if members else choose, out_shardings=sharding)


def check_finite(
    joined: dict[str, np.ndarray],
    at: int,
    names: Sequence[str],
    nonfinite: str,
    saved: int | None,
    workdir: pathlib.Path | None,
) -> None:
    """An error that names the first step and task whose loss is not finite. That step was not applied."""
    if nonfinite != "stop" or joined["finite"].all():
        return
    count = joined["finite"].shape[-2]
    bad = np.argwhere(~joined["finite"])
    first = bad[np.argmin(bad[:, -2])]
    step, task = at - count + int(first[-2]), names[first[-1]]
    value = joined["losses"][tuple(first)]
    where = "no checkpoint was asked for"
    if workdir is not None:
        where = "there is no checkpoint yet"
        if saved is not None:
            where = f"last good checkpoint is step {saved} in {workdir / 'checkpoints'}"
    raise FloatingPointError(f"step {step}: loss of task {task!r} is {value}; the step was not applied; {where}")

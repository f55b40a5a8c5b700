"""The loop of a fit. A function of (config, seed): killed and resumed, it ends the same."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import files, paths
from mtl_jax.batch import Batch
from mtl_jax.stacking import Layout
from mtl_jax.training import identity, lock, records, selection
from mtl_jax.training.averages import evaluated_at
from mtl_jax.training.description import write_description
from mtl_jax.training.dispatch import Feeds, compile_once
from mtl_jax.training.finiteness import Watch, check_restored, check_steps, last_good, method_of
from mtl_jax.training.interrupts import Interrupts
from mtl_jax.training.progress import Progress
from mtl_jax.training.run import Run
from mtl_jax.training.state import TrainState, restacked, unstacked, variables_of


class Job(NamedTuple):
    """All that the loop needs, made once.

    Attributes:
      run: to be filled in.
      layout: how tasks lie in the state, and in all that follows here; what leaves the loop has an entry per task.
      state: to start from, where `workdir` holds no checkpoint; with members, they are its first axis.
      best: what is kept of the validations.
      dispatch: (state, splits, rows) -> (state, records) of some steps (`dispatch.make_dispatch`).
      evaluated: state -> the variables at which it is evaluated (`averages`).
      evaluate: (variables, validation) -> (losses, metrics).
      choose: `make_choose`.
      yardstick: what validation losses are measured by.
      splits: what steps read rows of.
      validation: padded batches, or None.
      feeds: which rows each step reads, one for every member.
      num_steps: in all.
      spans: steps between records, validations, checkpoints and returns to the host (`intervals`).
      nonfinite: see `fit`.
      workdir: of checkpoints and records, or None.
      check_workdir: an error if it holds another run; asked again once it is locked, as one may have ended just now.
      progress: see `fit`.
      started: when the fit began, by `time.perf_counter`.
    """

    run: Run
    layout: Layout
    state: TrainState
    best: selection.Best
    dispatch: Callable
    evaluated: Callable
    evaluate: Callable
    choose: Callable
    yardstick: selection.Yardstick
    splits: tuple[Batch, ...]
    validation: Any
    feeds: list[Feeds]
    num_steps: int
    spans: dict[str, int]
    nonfinite: str
    workdir: pathlib.Path | None
    check_workdir: Callable[[], Any]
    progress: bool | None
    started: float


def train(job: Job) -> Run:
    """Trains from the start, or the last checkpoint, to the end or an early stop; fills in the run.

    Raises:
      ValueError: if another process trains in the workdir.
      Interrupted: after a signal, when what there is has been saved.
    """
    run, state, best, spans, workdir, started = job.run, job.state, job.best, job.spans, job.workdir, job.started
    names, members, layout = tuple(t.name for t in run.tasks), bool(run.members), job.layout
    axis = int(members)  # of tasks
    interrupts, leads = Interrupts(), jax.process_index() == 0  # of several hosts, the first one writes records

    def by_name(state: TrainState, best: selection.Best) -> dict[str, Any]:
        """What a checkpoint holds, which does not depend on how tasks lie."""
        return {"train": unstacked(state, layout, axis), "best": variables_of(best, layout, axis, stack=False)}

    with contextlib.ExitStack() as stack:
        checkpoints = None
        if workdir is not None:
            stack.enter_context(lock.held(workdir if leads else None))
            job.check_workdir()
        stack.enter_context(interrupts)
        if workdir is not None:
            from mtl_jax.checkpoint import Checkpoints

            folder = paths.local_folder(workdir / "checkpoints", "the folder of checkpoints")
            checkpoints = stack.enter_context(Checkpoints(folder))
            if checkpoints.steps() and not (workdir / "config.json").exists():
                raise ValueError(f"{workdir} holds checkpoints but no config.json, so whose they are cannot be told; "
                                 "bring it back from a copy, or use another workdir")  # fmt: skip

            def load(step: int) -> dict[str, Any]:
                return checkpoints.restore(step, by_name(state, best), names, axis)

            found = checkpoints.newest(load)
            if found is not None:
                run.resumed_from, loaded = found
                check_restored(loaded["train"], run.resumed_from, workdir)
                state = placed(restacked(loaded["train"], layout, axis), state)
                best = placed(variables_of(loaded["best"], layout, axis, stack=True), best)
                best = on_todays_scale(job, best, workdir)
            last = -1 if found is None else run.resumed_from
            run.history = records.rewind_history(workdir / "metrics.jsonl", last, write=leads)
            if leads:
                checkpoints.set_aside(last)
                files.write_json(workdir / "config.json", run.config)
                write_description(workdir, run)
        at = int(np.max(np.asarray(state.step)))
        started -= run.history[-1]["seconds"] if run.history else 0.0

        def log(record: dict) -> None:
            record["seconds"] = round(time.perf_counter() - started, 3)
            run.history.append(record)
            if workdir is not None and leads:
                records.append(workdir / "metrics.jsonl", record)

        def save() -> None:
            if checkpoints is not None:
                kept = best
                if not judged(best):  # on disk as in memory: where the state is evaluated now
                    kept = best._replace(**job.evaluated(state), steps=jnp.full_like(best.steps, at))
                checkpoints.save(at, by_name(state, kept))

        # --- the loop ----------------------------------------------------------------------------------------------
        bar = stack.enter_context(Progress(job.num_steps, job.progress))
        waiting, saved = [], at if run.resumed_from is not None else None
        stopped = bool(np.all(np.asarray(best.stopped)))
        size = spans["steps_per_dispatch"]
        compiled, watch = None, Watch(state, at, layout, axis)
        while at < job.num_steps and not stopped:
            rows = [feed.rows(at, size) for feed in job.feeds]
            rows = jax.tree.map(lambda *r: np.stack(r), *rows) if members else rows[0]
            if compiled is None:
                compiled, run.cost = compile_once(job.dispatch, state, job.splits, rows)
            state, new = compiled(state, job.splits, rows)
            at += size
            waiting.append(new)
            ends = interrupts.caught is not None or at == job.num_steps  # read once: what is saved is logged, too
            validate = job.validation is not None and (at % spans["eval_every"] == 0 or at == job.num_steps)
            keep = checkpoints is not None and at % spans["checkpoint_every"] == 0
            if at % spans["log_every"] == 0 or validate or keep or ends:
                joined = {k: np.concatenate([np.asarray(w[k]) for w in waiting], int(members)) for k in new}
                watch.check(state, at, last_good(saved, workdir))
                check_steps(joined, at, names, method_of(run), job.nonfinite, last_good(saved, workdir))
                log(records.train_record(at, names, joined))
                bar.update(at, run.history[-1]["losses"])
                waiting = []
            if validate:
                variables = job.evaluated(state)
                losses, metrics = job.evaluate(variables, job.validation)
                best = job.choose(best, variables, losses, job.yardstick, state.step)
                log(records.eval_record(at, "val", names, losses, metrics, selection.scores(losses, job.yardstick)))
                stopped = bool(np.all(np.asarray(best.stopped)))
            if keep or stopped or ends:
                save()
                saved = at
            if ends:
                break
    chosen = {"params": best.params, "state": best.state} if judged(best) else job.evaluated(state)
    run.variables = layout.unstack_variables(chosen, axis)
    run.state, run.best = by_name(state, best).values()
    run.seconds = time.perf_counter() - started
    if interrupts.caught:
        run.interrupted = interrupts.caught.name
        interrupts.deliver(progress_at_signal(run, job.num_steps, workdir), run)
    return run


def placed(tree: Any, like: Any) -> Any:
    """A tree on the devices where `like` is."""
    return jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), tree, like)


def on_todays_scale(job: Job, best: selection.Best, workdir: pathlib.Path) -> selection.Best:
    """`best` of a checkpoint; that of a version that kept no identity had scores on another scale: measured anew.

    The identity says until which step checkpoints are of that version, as a later one may be damaged or removed.
    """
    stored, run = identity.read(workdir), job.run
    until = run.resumed_from if stored is None else stored.get(identity.EARLIER, -1)
    if until >= 0:
        run.identity[identity.EARLIER] = until
    if run.resumed_from > until or job.validation is None:
        return best
    losses, _ = job.evaluate({"params": best.params, "state": best.state}, job.validation)
    now = selection.scores(losses, job.yardstick)
    return best._replace(scores=jnp.where(jnp.isneginf(best.scores), best.scores, now))


def judged(best: selection.Best) -> bool:
    """Whether a validation has found anything better than nothing."""
    return bool(np.isfinite(np.asarray(best.scores)).any())


def progress_at_signal(run: Run, num_steps: int, workdir: pathlib.Path | None) -> str:
    """What a signal left, in one line."""
    if workdir is None:
        return (f"{run.interrupted}: stopped at step {run.steps} of {num_steps}; without a workdir nothing was saved, "
                "but the run so far is `error.run` (in a notebook `sys.last_value.run`)")  # fmt: skip
    return f"{run.interrupted}: saved at step {run.steps} of {num_steps} in {workdir}; run again to go on"


def make_evaluated(averages: bool, members: bool, layout: Layout) -> Callable:
    """The compiled `averages.evaluated_at` for optimizers that average; for others the state's own variables."""
    if not averages:
        return lambda state: state.variables

    def evaluated(state: TrainState) -> dict[str, Any]:
        return evaluated_at(state, layout.groups)

    return jax.jit(jax.vmap(evaluated) if members else evaluated)


def make_choose(layout: Layout, patience: int | None, members: bool, sharding: Any) -> Callable:
    """The compiled `selection.update`."""

    def choose(best, variables, losses, yardstick, step):
        return selection.update(best, variables, losses, yardstick, step, layout=layout, patience=patience)

    return jax.jit(jax.vmap(choose, in_axes=(0, 0, 0, None, 0)) if members else choose, out_shardings=sharding)

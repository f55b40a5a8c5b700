"""The loop of a fit, taken apart. A function of (config, seed): killed and resumed, it ends the same."""

import contextlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import callers, files, paths
from mtl_jax.batch import Batch
from mtl_jax.training import arguments, changes, lock, plan, program, records, resume, selection, writers
from mtl_jax.training.description import write_description
from mtl_jax.training.dispatch import compile_once
from mtl_jax.training.finiteness import Watch, check_steps, last_good, method_of
from mtl_jax.training.given_batch import laid_out
from mtl_jax.training.interrupts import Interrupts
from mtl_jax.training.progress import Progress
from mtl_jax.training.run import Run
from mtl_jax.training.state import TrainState, unstacked, variables_of


class Loop:
    """What `Trainer` steps through.

    While it is entered (``with loop:``), the workdir is held, files and writers are open, and a signal waits for the
    step under way.
    """

    def __init__(self, given: plan.Plan, began: float):
        config, rests_on = plan.identify(given)
        self._check_workdir = lambda: plan.check_workdir(given, config, rests_on)
        for text in self._check_workdir():
            warnings.warn(text, UserWarning, stacklevel=callers.outside())
        self._first_plan, self.plan, self.hooks = given, given, list(arguments.read_several(given.options.hooks))
        self.num_steps, self.spans, self.workdir = given.options.num_steps, given.spans, given.workdir
        self._writers = writers.of(given.options.writers, self.workdir)
        self.program = program.make(given)
        self._run = Run(given.model, given.tasks, {}, [], self.program.example, given.source, members=given.members,
                        config=config, identity=rests_on, without_say=self.program.silent,
                        columns=given.data.columns)  # fmt: skip
        self._axis = int(given.members is not None)  # of tasks
        self._state, self.best = self.program.first()
        self._saved: int | None = None  # at which step
        self._validated: int | None = None
        self._compiled: Callable | None = None
        self._stack: contextlib.ExitStack | None = None
        self._checkpoints: Any = None
        self._seen, self._changed, self._waiting, self._ends, self._untouched = [], {}, [], False, True
        self._interrupts, self._depth = Interrupts(), 0
        self._look_at_state()
        if self.workdir is not None:
            resume.restore(self)
        self._seconds = (self.history[-1]["seconds"] if self.history else 0.0) + time.perf_counter() - began

    # --- what there is ---------------------------------------------------------------------------------------------
    @property
    def history(self) -> list[dict]:
        """All records so far."""
        return self._run.history

    @property
    def changes(self) -> list[dict]:
        """What was changed by hand so far (`training.changes`)."""
        return self._run.changes

    @property
    def going(self) -> bool:
        """Whether there are steps to take: not at the end, not stopped, and no signal came."""
        return self.at < self.num_steps and not self._stopped and not self._ends

    def _by_name(self, best: selection.Best | None = None, state: TrainState | None = None) -> dict[str, Any]:
        """What a checkpoint holds, which does not depend on how tasks lie."""
        layout, best = self.program.layout, self.best if best is None else best
        state = self._state if state is None else state
        return {"train": unstacked(state, layout, self._axis),
                "best": variables_of(best, layout, self._axis, stack=False)}  # fmt: skip

    # --- entering and leaving ----------------------------------------------------------------------------------------
    def __enter__(self) -> "Loop":
        if self._depth == 0:
            self._enter()
        self._depth += 1
        return self

    def _enter(self) -> None:
        leads = jax.process_index() == 0  # of several hosts, the first one writes
        self._interrupts, self._ends = Interrupts(), self.at == self.num_steps
        with contextlib.ExitStack() as stack:
            if self.workdir is not None:
                stack.enter_context(lock.held(self.workdir if leads else None))
                self._check_workdir()
            stack.enter_context(self._interrupts)
            if self.workdir is not None:
                self._checkpoints = stack.enter_context(self._folder_of_checkpoints())
                resume.look_again(self)
                if leads:
                    self._checkpoints.set_aside(-1 if self._saved is None else self._saved)
                    files.write_json(self.workdir / "config.json", self._run.config)
                    write_description(self.workdir, self._run)
                    changes.write(self.workdir, self._run.changes)
            for writer in self._writers if leads else ():
                writer.begin(self._run, self.at)
                stack.callback(writer.close)
            self._bar = stack.enter_context(Progress(self.num_steps, self.plan.options.progress))
            self._stack = stack.pop_all()
        self._started = time.perf_counter() - self._seconds

    def __exit__(self, *error) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._seconds = time.perf_counter() - self._started
            stack, self._stack, checkpoints = self._stack, None, self._checkpoints
            self._checkpoints = None
            assert stack is not None  # it was entered
            stack.__exit__(*error)
            self._seen = checkpoints.steps() if checkpoints is not None else []

    def _folder_of_checkpoints(self) -> Any:
        from mtl_jax.checkpoint import Checkpoints

        assert self.workdir is not None  # only then there are any
        return Checkpoints(paths.local_folder(self.workdir / "checkpoints", "the folder of checkpoints"))

    def _look_at_state(self) -> None:
        """After the state was made, restored or changed."""
        self.at = int(np.max(np.asarray(self._state.step)))
        self._stopped = bool(np.all(np.asarray(self.best.stopped)))
        self._watch = Watch(self._state, self.at, self.program.layout, self._axis)

    # --- steps -------------------------------------------------------------------------------------------------------
    def dispatch(self) -> None:
        """Takes the next `steps_per_dispatch` steps, in one compiled call.

        Where `step` has left the count between two dispatches, as many as lead to the next one.
        """
        size = self.spans["steps_per_dispatch"]
        count = size - self.at % size
        splits, rows = self._next_rows(count)
        args = self._state, splits, self._of_members(rows)
        dispatch = self.program.dispatch
        if count == size:
            if self._compiled is None:
                self._compiled, self._run.cost = compile_once(dispatch, *args)
            dispatch = self._compiled
        self._take(dispatch, *args)

    def _next_rows(self, count: int) -> tuple[Any, list[Any]]:
        """(what the next steps read of, the rows that each member reads of it)."""
        rows = [feed.rows(self.at, count) for feed in self.program.feeds]
        if self.program.ahead is None:
            return self.program.splits, rows
        batches, numbers = self.program.ahead.take(self.at, count)
        if self._waiting:  # one dispatch's inputs wait on the devices at a time
            jax.block_until_ready(self._waiting[-1])
        return (batches, *self.program.splits[1:]), [(n, *r[1:]) for n, r in zip(numbers, rows, strict=True)]

    def step(self, batch: Batch, validation: Batch | None = None) -> None:
        """Takes one step on a batch of one's own, in place of the training split's next rows.

        Args:
          batch: inputs, and labels and masks of all tasks, in the form of the data set's splits; every batch size is
            compiled once.
          validation: for methods that learn from validation batches; the next rows of validation by default.

        Raises:
          ValueError: for labels or inputs that do not fit.
        """
        splits, rows = laid_out(self.plan, self.program, self.at, batch, validation)
        self._note("steps were taken on batches that were given")
        self._take(self.program.dispatch, self._state, splits, self._of_members(rows))

    def _of_members(self, rows: list[Any]) -> Any:
        """What each member reads, stacked where there are several."""
        return jax.tree.map(lambda *r: np.stack(r), *rows) if self.plan.members else rows[0]

    def _take(self, dispatch: Callable, state: TrainState, splits: Any, rows: Any) -> None:
        self._untouched = False
        self._state, new = dispatch(state, splits, rows)
        self.at += jax.tree.leaves(rows)[0].shape[self._axis]
        self._waiting.append(new)
        # Read once: what is saved is logged, too.
        self._ends = self._interrupts.caught is not None or self.at == self.num_steps

    def due(self) -> list[dict]:
        """Makes the records that are due at this step, of training and of validation, and calls the hooks with them."""
        with self:
            validate = self.program.validation is not None and self._validated != self.at
            validate &= self.at % self.spans["eval_every"] == 0 or self.at == self.num_steps
            log = validate or self._keeps() or self._ends or self.at % self.spans["log_every"] == 0
            made = [self._log_training()] if self._waiting and log else []
            made += [self._validate()] if validate else []
            for record in made:
                for hook in self.hooks:
                    hook(record, self)
        return made

    def _log_training(self) -> dict:
        """A record of the steps since the last one, which are looked at first."""
        waiting, names, good = self._waiting, self.plan.names, last_good(self._saved, self.workdir)
        joined = {k: np.concatenate([np.asarray(w[k]) for w in waiting], self._axis) for k in waiting[0]}
        self._watch.check(self._state, self.at, good)
        check_steps(joined, self.at, names, method_of(self._run), self.plan.options.nonfinite, good)
        self._waiting = []
        record = self._log(records.train_record(self.at, names, joined))
        self._bar.update(self.at, record["losses"])
        return record

    def _validate(self) -> dict:
        """A record of validation, by which the best variables are kept."""
        made, names = self.program, self.plan.names
        variables = made.evaluated(self._state)
        losses, metrics = made.evaluate(variables, made.validation)
        self.best = made.choose(self.best, variables, losses, made.yardstick, self._state.step)
        self._validated, self._stopped = self.at, bool(np.all(np.asarray(self.best.stopped)))
        scores = selection.scores(losses, made.yardstick)
        return self._log(records.eval_record(self.at, "val", names, losses, metrics, scores))

    def _log(self, record: dict) -> dict:
        record["seconds"] = round(time.perf_counter() - self._started, 3)
        self.history.append(record)
        for writer in self._writers if jax.process_index() == 0 else ():
            writer.write(record)
        return record

    # --- what is kept ------------------------------------------------------------------------------------------------
    def _keeps(self) -> bool:
        return self.workdir is not None and self.at % self.spans["checkpoint_every"] == 0

    def keep(self) -> None:
        """Saves, if a checkpoint is due at this step: by `checkpoint_every`, and at the end."""
        if self.workdir is not None and (self._keeps() or self._stopped or self._ends):
            self.save()

    def save(self) -> None:
        """Writes a checkpoint of this step, from which the same program goes on; one that is there already stays.

        Raises:
          ValueError: without a workdir.
          FloatingPointError: if a step since the last record was not finite; nothing is written then.
        """
        if self.workdir is None:
            raise ValueError("there is no workdir to save in; give one: workdir='runs/a'")
        with self:
            if self._waiting:
                self._log_training()
            kept = self.best
            if not resume.judged(kept):  # on disk as in memory: where the state is evaluated now
                kept = kept._replace(
                    **self.program.evaluated(self._state), steps=jnp.full_like(kept.steps, self.at)
                )  # fmt: skip
            self._checkpoints.save(self.at, self._by_name(kept))
            self._saved = self.at

    def _note(self, what: str, options: dict[str, Any] | None = None) -> None:
        """Keeps what was changed by hand, with the run."""
        self._untouched = False
        added = changes.add(self._run.changes, self.at, self._saved == self.at, what, options)
        if added and self._checkpoints is not None and jax.process_index() == 0:
            assert self.workdir is not None  # checkpoints lie there
            changes.write(self.workdir, self._run.changes)

"""`Trainer`: the loop of `fit` in the open, to step through, look into, change, save and resume."""

import dataclasses
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import callers, partition
from mtl_jax.data.dataset import Dataset
from mtl_jax.model import MultiTaskModel
from mtl_jax.training import changes, options, plan, resume, verdicts
from mtl_jax.training.finiteness import last_good
from mtl_jax.training.hyperparameters import with_hyperparameters
from mtl_jax.training.interrupts import Interrupts
from mtl_jax.training.loop import Loop
from mtl_jax.training.run import Run
from mtl_jax.training.start import Adapted
from mtl_jax.training.state import TrainState


class Trainer(Loop):
    """A training job: an iterator of its records, with the state between them at hand.

    `fit` is these lines, and so is a loop of one's own, which ends with the same bits::

        job = mtl.training.Trainer(model, data, num_steps=2000, workdir="runs/a")
        for record in job:
            print(record["step"], record["losses"])
        run = job.result()

    and ``for record in job`` is these, each of which can be replaced by something else::

        with job:                           # the workdir is held, Ctrl-C waits for the step under way
            while job.going:
                job.dispatch()              # some compiled steps; or job.step(batch) on a batch of one's own
                for record in job.due():    # training and validation records that are due; hooks are called
                    ...
                job.keep()                  # a checkpoint, if one is due

    Between two dispatches anything may be read, and changed by `change`, `set_hyperparameters`, `stop` and by setting
    `state`. Records are made, then hooks and the loop's own lines see them, then the checkpoint of that step is
    written: what they change is in it. A run that is resumed goes on from the last checkpoint, with options changed as
    they were, and sees the records after it again.

    A hook, ``hook(record, job)``, may do the same. It must not step or iterate, nor keep ``job.state`` beyond the next
    dispatch, which uses its memory anew. If a hook or the loop's own lines raise, the last checkpoint stays, and the
    job can go on. Of several hosts, each calls its hooks, which must change the same.

    `break` pauses: the same program, run again, goes on. `stop` ends the run for good.

    Args:
      model: what to train, or what `transfer.adapt` returned.
      data: must have the model's tasks, by name.
      *groups: options by group (`training.options`); the others are keywords, which go over a group.
      {options}

    Raises:
      ValueError: for arguments or data that do not fit, or a workdir that holds another run, saying what differs.

    Attributes:
      at: steps taken, those before a resume included.
      num_steps, spans: steps in all, and the intervals.
      going: whether there are steps to take.
      history: the records so far.
      state: the `TrainState`; alike tasks lie stacked in it (`program.layout`).
      best: what validation has chosen so far.
      hooks: a list, to which functions may be added.
    """

    def __init__(self, model: MultiTaskModel | Adapted, data: Dataset, *groups: Any, **keywords: Any):
        began = time.perf_counter()
        super().__init__(plan.make(model, data, options.read(groups, keywords)), began)
        at = self._run.resumed_from
        if at is not None and at > self.num_steps:
            warnings.warn(f"{self.workdir} holds a run of {at} steps, which is returned; num_steps={self.num_steps} is "
                          "fewer. Use another workdir for a shorter run", UserWarning,
                          stacklevel=callers.outside())  # fmt: skip

    def __repr__(self) -> str:
        return f"Trainer(step {self.at} of {self.num_steps}, {self.plan.model.spec or 'a model of its own'})"

    def __iter__(self) -> Iterator[dict]:
        with self:
            while self.going:
                self.dispatch()
                yield from self.due()
                self.keep()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is None:
            self._deliver()

    def result(self) -> Run:
        """The run as far as it came, with the best variables on validation; saved, if there is a workdir.

        The job may go on afterwards; the run stays as it is.

        Raises:
          Interrupted: where a signal came, and the loop was left before it was handed on.
        """
        self._deliver()
        if self.workdir is not None and self.at and self._saved != self.at:
            self.save()
        run = self._made()
        for text in self._settle(run):
            warnings.warn(text, UserWarning, stacklevel=callers.outside())
        return run

    def _made(self) -> Run:
        layout, state, best = self.program.layout, self._state, self.best
        if self.at < self.num_steps:  # the next dispatch uses its memory anew
            state = jax.tree.map(lambda x: x.copy(), state)
        chosen = {"params": best.params, "state": best.state}
        if not resume.judged(best):
            chosen = self.program.evaluated(state)
        found = self._by_name(state=state)
        seconds = time.perf_counter() - self._started if self._depth else self._seconds
        return dataclasses.replace(
            self._run, variables=layout.unstack_variables(chosen, self._axis), history=list(self.history),
            changes=list(self._run.changes), state=found["train"], best=found["best"], seconds=seconds,
            engine=self.program.engine[0], trainable=self.program.trainable, _compiled={},
        )  # fmt: skip

    def _settle(self, run: Run) -> list[str]:
        return verdicts.settle(run, self.plan.data, self.workdir) if self.plan.options.fallback else []

    def _deliver(self) -> None:
        """After a signal: hands it on, with the run so far."""
        interrupts = self._interrupts
        if interrupts.caught is None or self._depth:
            return
        run = self._made()
        self._interrupts = Interrupts()
        run.interrupted = interrupts.caught.name
        self._settle(run)
        if self.workdir is None:
            left = (f"stopped at step {run.steps} of {self.num_steps}; without a workdir nothing was saved, but the "
                    "run so far is `error.run` (in a notebook `sys.last_value.run`)")  # fmt: skip
        elif self._saved != self.at:
            left = f"stopped at step {run.steps} of {self.num_steps}; {last_good(self._saved, self.workdir)}"
        else:
            left = f"saved at step {run.steps} of {self.num_steps} in {self.workdir}; run again to go on"
        interrupts.deliver(f"{run.interrupted}: {left}", run)

    # --- what may be read and changed between two dispatches ---------------------------------------------------------
    @property
    def state(self) -> TrainState:
        """The training state; what is set must have its form."""
        return self._state

    @state.setter
    def state(self, new: TrainState) -> None:
        forms = [{p: (x.shape, x.dtype) for p, x in partition.flatten(s).items()} for s in (self._state, new)]
        if unlike := [p for p in forms[0].keys() | forms[1].keys() if forms[0].get(p) != forms[1].get(p)]:
            raise ValueError(f"job.state: {min(unlike)} is of another form than in the state of this job; start from "
                             "job.state and replace leaves of it")  # fmt: skip
        if int(np.max(np.asarray(new.step))) != self.at:
            raise ValueError(f"job.state: its step is {int(np.max(np.asarray(new.step)))}, and the job is at {self.at}")
        self._note("the state was set")
        self._state = resume.placed(jax.tree.map(jnp.asarray, new), self._state)

    @property
    def variables(self) -> dict[str, Any]:
        """{"params", "state"} as they are now, with an entry per task, copied to the host."""
        found = self.program.layout.unstack_variables(self.program.evaluated(self._state), self._axis)
        return jax.tree.map(np.array, found)

    @property
    def params(self) -> Any:
        """The parameters as they are now, with an entry per task, copied to the host."""
        return self.variables["params"]

    def stop(self) -> None:
        """Ends the run for good after this step, as `patience` does; running again returns it."""
        self._note("the run was stopped")
        self.best = resume.placed(self.best._replace(stopped=jnp.ones_like(self.best.stopped)), self.best)
        self._stopped = True

    def change(self, **changed: Any) -> None:
        """Goes on with other options, of those that `options.CHANGEABLE` lists; compiled anew at the next dispatch.

        Parameters, optimizer state and the balancer's stay where the new options have a place for them
        (`changes.carried`). What is the same already changes nothing. The change is kept in `Run.changes`, and a
        resumed run is changed again.

        Raises:
          ValueError: for an option that does not change while a run goes on, or does not fit; and with a workdir for an
            object: what cannot be written cannot be changed again. Nothing has changed then.
        """
        changes.check_names(changed)
        if self.workdir is not None:
            changes.check_text(changed)
        if self._waiting:
            with self:
                self._log_training()
        if resume.become(self, self._changed | changed):
            said = ", ".join(f"{k}={v!r}" for k, v in changed.items())
            self._note(said, changed)

    def set_hyperparameters(self, **values: float) -> None:
        """Sets numbers that the optimizer holds in its state, at once and for all owners; nothing is compiled.

        ``optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`` holds its learning rate so.

        Raises:
          ValueError: for a name that the optimizer's state does not hold.
        """
        new = with_hyperparameters(self._state.opt_state, values)
        self._note("hyperparameters were set: " + ", ".join(f"{k}={v!r}" for k, v in values.items()))
        self._state = resume.placed(self._state._replace(opt_state=new), self._state)


options.documented(Trainer)

"""A loop of one's own over the trainer is `fit`, bit for bit; what may be changed in it, and what it refuses."""

import os
import signal

import jax
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from tests import tiny

OPTIONS = {
    "num_steps": 20, "batch_size": 16, "steps_per_dispatch": 5, "eval_every": 10, "log_every": 5,
    "checkpoint_every": 5, "optimizer": "adam(learning_rate=0.02)", "balancer": "uncertainty",
}  # fmt: skip
FROZEN = "shared/encoder/stage_0/.*"


def trainer(**arguments):
    model = tiny.model(tiny.data().tasks)
    return mtl.training.Trainer(model, tiny.data(), mesh=parallel.make_mesh(1), **{**OPTIONS, **arguments})


def without_time(history):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history]


def at(record, step, split="val"):
    return (record["step"], record["split"]) == (step, split)


@pytest.fixture(scope="module")
def whole():
    """What `fit` makes of it."""
    return tiny.fit(tiny.model(tiny.data().tasks), **OPTIONS)


def test_a_loop_of_ones_own_is_fit_with_a_resume_in_the_middle(whole, tmp_path):
    seen = []
    for record in trainer(workdir=tmp_path):
        seen.append(record)
        if at(record, 10):
            break  # without another word: what was saved stays, what was not is done again
    job = trainer(workdir=tmp_path)
    assert job.at == 5 and job.history == seen[:1]
    with job:  # written out
        while job.going:
            job.dispatch()
            job.due()
            job.keep()
    run = job.result()
    tiny.assert_same((run.state, run.best, run.variables), (whole.state, whole.best, whole.variables))
    assert without_time(run.history) == without_time(whole.history)
    assert run.resumed_from == 5 and run.changes == [] and not (tmp_path / "changes.json").exists()
    assert not trainer(workdir=tmp_path).going


def test_a_job_that_was_left_goes_on_and_its_results_stay(whole):
    job = trainer()
    for record in job:
        if at(record, 10):
            break
    half = job.result()
    kept = tiny.bits(half.state)
    for _ in job:
        pass
    tiny.assert_same(job.result().state, whole.state)
    tiny.assert_same(half.state, kept)
    assert half.steps == 10 and len(half.history) == 3
    tiny.assert_same(job.params, whole.state.params)


def test_ctrl_c_in_a_loop_of_ones_own(tmp_path):
    job, previous = trainer(workdir=tmp_path), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="SIGINT: saved at step 10 of 20 in .*; run again to go on") as caught:
        for record in job:
            if at(record, 5, "train"):
                signal.raise_signal(signal.SIGINT)
    assert isinstance(caught.value, mtl.Interrupted) and caught.value.run.steps == 10
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "5"]
    assert signal.getsignal(signal.SIGINT) is previous
    with pytest.raises(mtl.Interrupted, match="stopped at step 15 of 20; last good checkpoint is step 10"):
        for _ in job:
            signal.raise_signal(signal.SIGINT)
            break  # before it could be handed on
        job.result()


def test_hooks_see_every_record_and_an_error_in_one_loses_nothing(whole, tmp_path):
    seen, once = [], tmp_path / "once"

    def hook(record, job):
        seen.append((record["step"], record["split"], job.at))
        if at(record, 10) and not once.exists():
            once.touch()
            raise RuntimeError("of the hook")

    model = tiny.model(tiny.data().tasks)
    with pytest.raises(RuntimeError, match="of the hook"):
        tiny.fit(model, **OPTIONS, hooks=hook, workdir=tmp_path)
    assert os.listdir(tmp_path / "checkpoints") == ["5"]
    seen.clear()  # as in a new process: what a hook holds is compared
    run = tiny.fit(model, **OPTIONS, hooks=hook, workdir=tmp_path)
    tiny.assert_same(run.state, whole.state)
    assert seen == [(10, "train", 10), (10, "val", 10), (15, "train", 15), (20, "train", 20), (20, "val", 20)]
    with pytest.warns(UserWarning, match="the hooks are others than it was begun with"):
        tiny.fit(model, **OPTIONS, workdir=tmp_path)
    with pytest.raises(ValueError, match="a hook is 3; it must be a function of"):
        tiny.fit(model, hooks=[3])


def changed(workdir, until=None):
    """A slower rate and a frozen stage from step 10 on."""
    job = trainer(workdir=workdir, optimizer="adam(0.02)")
    for record in job:
        if at(record, 10):
            before = job.params, job.state.opt_state["color"]
            job.change(optimizer="adam(0.001)", freeze=FROZEN)
            tiny.assert_same((job.params, job.state.opt_state["color"]), before)
        if until is not None and at(record, until, "train"):
            break
    return job


def test_what_was_changed_is_changed_again_by_a_resume(tmp_path):
    job = changed(tmp_path / "whole")
    run = job.result()
    stage = run.state.params["shared"]["encoder"]["stage_0"]
    changed(tmp_path / "halved", until=15).result()
    again = changed(tmp_path / "halved")
    tiny.assert_same(again.result().state, run.state)
    assert again.result().resumed_from == 15
    assert again.changes == run.changes == mtl.load_run(tmp_path / "whole").changes
    assert "stage_0" not in str(run.state.opt_state["shared"]) and len(run.changes) == 1
    # By hand: the best at step 10 is what stood still.
    for record in (short := trainer(optimizer="adam(0.02)")):
        if at(record, 10):
            break
    tiny.assert_same(short.params["shared"]["encoder"]["stage_0"], stage)
    assert int(run.state.opt_state["shared"][0].count) == 20
    with pytest.warns(UserWarning, match=r"a run that was changed by hand while it trained \(at step 10: opt.*0.001"):
        tiny.fit(tiny.model(tiny.data().tasks), **{**OPTIONS, "optimizer": "adam(0.02)"}, workdir=tmp_path / "whole")


def test_what_does_not_change_is_told_and_nothing_has_changed(tmp_path):
    job = trainer(workdir=tmp_path)
    for options, message in (
        ({"seed": 1}, r"unknown option to change 'seed'; .*\(batch_size, optimizer"),
        ({"optimizer": optax.adam(1.0)}, 'optimizer is an object, which a workdir cannot keep .*its text, "adam'),
        ({"freeze": "shard/.*"}, "rule 'shard/.*' matches no parameter"),
        ({"balancer": "upgard"}, "unknown balancer 'upgard'; did you mean 'upgrad'"),
        ({"clip_norm": 0}, "clip_norm=0 lets nothing move"),
    ):
        with pytest.raises(ValueError, match=message):
            job.change(**options)
    job.change(batch_size=16, freeze=None)  # as it is
    assert job.changes == [] and job.plan.options.balancer == "uncertainty"
    with pytest.raises(ValueError, match="the optimizer holds no hyperparameters; make it as optax.inject_hyperparams"):
        job.set_hyperparameters(learning_rate=0.1)
    with pytest.raises(ValueError, match="job.state: step is of another form"):
        job.state = job.state._replace(step=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="its step is 3, and the job is at 0"):
        job.state = job.state._replace(step=np.int32(3))
    with pytest.raises(ValueError, match="there is no workdir to save in"):
        trainer().save()


def test_a_rate_in_the_optimizers_state_is_set_without_compiling():
    compiled = []
    job = trainer(optimizer=optax.inject_hyperparams(optax.adam)(learning_rate=0.02), num_steps=40)
    for record in job:
        if at(record, 20):
            job.set_hyperparameters(learning_rate=0.0)
            before = job.params
            jax.monitoring.register_event_duration_secs_listener(
                lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
            )
    jax.monitoring.clear_event_listeners()
    tiny.assert_same(job.params, before)
    assert not compiled and [c["what"] for c in job.changes] == ["hyperparameters were set: learning_rate=0.0"]
    with pytest.raises(ValueError, match=r"unknown hyperparameter of the optimizer 'lr'; .*learning_rate"):
        job.set_hyperparameters(lr=0.1)


def test_steps_on_given_batches_are_those_on_the_same_rows(whole):
    job, given = trainer(), trainer()
    rows = job.program.feeds[0].rows(0, 5)[0]
    with given:
        for each in rows:
            given.step(jax.tree.map(lambda x, each=each: x[each], tiny.data().train))
        records = given.due()
    with job:
        job.dispatch()
    tiny.assert_close(given.state, job.state, rtol=1e-5, atol=1e-6)
    assert records[0]["losses"] == pytest.approx(whole.history[0]["losses"], rel=1e-4)
    given.step(tiny.batch(8))
    for _ in given:
        pass
    assert given.result().steps == 20 and [c["step"] for c in given.changes] == [0]
    with pytest.raises(ValueError, match="the split has no targets of task 'color'"):
        given.step(mtl.Batch(tiny.batch().inputs, {}, {}))
    with pytest.raises(ValueError, match="the balancer reads training batches only"):
        given.step(tiny.batch(), tiny.batch())


def noisy(step):
    """The step, on inputs that are none."""

    def on_zeros(state, batch):
        return step(state, batch._replace(inputs=0 * batch.inputs))

    return on_zeros


def test_a_step_of_ones_own_takes_the_place_of_the_compiled_one(whole, tmp_path):
    run = tiny.fit(tiny.model(tiny.data().tasks), **OPTIONS, train_step=noisy, workdir=tmp_path)
    first = run.state.params["shared"]["encoder"]["stage_0"]["dense"]["kernel"]
    job = trainer()
    np.testing.assert_array_equal(first, job.params["shared"]["encoder"]["stage_0"]["dense"]["kernel"])  # no gradient
    assert run.history[-1]["losses"] != whole.history[-1]["losses"]
    with pytest.raises(ValueError, match="it differs in train_step: 'given as an object' -> None"):
        tiny.fit(tiny.model(tiny.data().tasks), **OPTIONS, workdir=tmp_path)
    with pytest.raises(ValueError, match="what train_step returned is None; it must be a function"):
        trainer(train_step=lambda step: None)


def test_stopping_ends_a_run_for_good(whole, tmp_path):
    def enough(record, job):
        if at(record, 10):
            job.stop()

    run = tiny.fit(tiny.model(tiny.data().tasks), **OPTIONS, hooks=[enough], workdir=tmp_path)
    assert run.steps == 10 and run.changes[0]["what"] == "the run was stopped"
    assert not trainer(workdir=tmp_path, hooks=[enough]).going


def test_the_state_may_be_set(tmp_path):
    job = trainer(workdir=tmp_path)
    for record in job:
        if at(record, 5, "train"):
            zeros = jax.tree.map(np.zeros_like, tiny.bits(job.state.params["shared"]))
            job.state = job.state._replace(params={**job.state.params, "shared": zeros})
            assert not np.any(job.params["shared"]["encoder"]["stage_0"]["dense"]["kernel"])
            break
    job.save()
    assert trainer(workdir=tmp_path).changes[0]["what"] == "the state was set"
    job.state = job.state
    with pytest.warns(UserWarning, match="after checkpoint step 5 was written, the state was set; the run goes"):
        with job:
            pass
        trainer(workdir=tmp_path)


@pytest.mark.slow
def test_another_fit_in_the_workdir_meanwhile(whole, tmp_path):
    """A job that has done nothing goes on from there; one that has says that it cannot."""
    idle, busy = trainer(workdir=tmp_path), trainer(workdir=tmp_path)
    busy.dispatch()
    for record in trainer(workdir=tmp_path):
        if at(record, 15, "train"):
            break
    with pytest.raises(ValueError, match="another fit has gone on in it since this job was made"), busy:
        pass
    for _ in idle:
        pass
    assert idle.result().resumed_from == 10
    tiny.assert_same(idle.result().state, whole.state)

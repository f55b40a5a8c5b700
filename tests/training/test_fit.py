"""The loop: resuming, members, selection, interruption, what it writes and what it refuses."""

import dataclasses
import json
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.training import arguments, identity, loop
from mtl_jax.training.intervals import intervals
from tests import tiny


@pytest.fixture(scope="module")
def whole():
    """An uninterrupted run of 20 steps with a method that has state."""
    return tiny.fit(tiny.model(tiny.data().tasks), balancer="uncertainty")


def test_losses_fall(whole):
    first, last = (whole.history[i]["losses"] for i in (0, -2))
    assert sum(last.values()) < sum(first.values())
    assert whole.steps == 20 and {r["split"] for r in whole.history} == {"train", "val"}


def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path):
    model = tiny.model(tiny.data().tasks)
    first = tiny.fit(model, balancer="uncertainty", num_steps=10, workdir=tmp_path)
    assert first.resumed_from is None
    second = tiny.fit(model, balancer="uncertainty", num_steps=20, workdir=tmp_path)
    assert second.resumed_from == 10
    tiny.assert_same((second.state, second.best), (whole.state, whole.best))
    without_time = [[{k: v for k, v in r.items() if k != "seconds"} for r in run.history] for run in (second, whole)]
    assert without_time[0] == without_time[1]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == second.history
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json", "data.json", "environment.json", "identity.json", "metrics.jsonl", "checkpoints"
    }  # fmt: skip


def test_seeds_side_by_side_are_the_runs_one_by_one(whole):
    members = tiny.fit(tiny.model(tiny.data().tasks), balancer="uncertainty", seed=(3, 0))
    tiny.assert_close(members.member(1).variables, whole.variables, rtol=2e-5, atol=2e-5)
    found = members.evaluate(tiny.data().test)
    assert len(found["color"]["accuracy"]) == 2
    predicted = members.predict(tiny.data().test.inputs)
    np.testing.assert_allclose(
        predicted["price"][1], whole.predict(tiny.data().test.inputs)["price"], rtol=1e-3, atol=1e-2
    )
    with pytest.raises(IndexError, match="there is no member 2"):
        members.member(2)
    with pytest.raises(ValueError, match=r"has 2 members; save one with run.member\(i\).save"):
        members.save("never")


def test_nothing_is_compiled_after_the_second_dispatch():
    counts = []
    for num_steps in (10, 40):
        events = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *_, events=events, **__: events.append(name) if "backend_compile" in name else None
        )
        tiny.fit(tiny.model(tiny.data().tasks), balancer="upgrad", num_steps=num_steps)
        jax.monitoring.clear_event_listeners()
        counts.append(len(events))
    assert counts[0] > 0 and counts[1] <= counts[0]


def test_fit_by_pmap_is_fit_by_jit(whole):
    by_pmap = tiny.fit(
        tiny.model(tiny.data().tasks), balancer="uncertainty", parallel="pmap", mesh=parallel.make_mesh(4)
    )
    tiny.assert_close(by_pmap.variables, whole.variables, rtol=2e-4, atol=2e-4)


def test_inputs_of_each_tasks_own():
    data = tiny.per_task_data()
    run = tiny.fit(tiny.model(data.tasks), data, balancer="upgrad", num_steps=60)
    found = mtl.evaluate(run, data.test)
    assert found["a"]["r2"] > 0.2 and found["b"]["auroc"] > 0.7
    predicted = run.predict(data.test.inputs)
    assert {t: len(v) for t, v in predicted.items()} == {t: len(x) for t, x in data.test.inputs.items()}


def test_independent_selects_each_task_by_itself():
    """Each task's best step is that of its own best validation loss in the records."""
    run = tiny.fit(tiny.model(tiny.data().tasks, "independent"), num_steps=60, eval_every=5, optimizer="sgd",
                   batch_size=8)  # fmt: skip
    records = [r for r in run.history if r["split"] == "val"]
    for i, task in enumerate(run.tasks):
        best = min(records, key=lambda r: r["losses"][task.name])
        assert int(run.best.steps[i]) == best["step"]
        assert run.evaluate(tiny.data().val)[task.name]["loss"] == pytest.approx(best["losses"][task.name], rel=1e-4)


def test_patience_stops_early():
    run = tiny.fit(tiny.model(tiny.data().tasks), num_steps=400, optimizer="sgd(learning_rate=0.0)", patience=3)
    # The first validation is the best there is; after three more without improvement it ends.
    assert run.steps == 40 and bool(run.best.stopped)


def test_a_non_finite_loss_is_named_and_the_last_checkpoint_kept(tmp_path, monkeypatch):
    def breaks(outputs, targets):
        return jax.numpy.where(targets > 1.4, jax.numpy.nan, (outputs - targets) ** 2)

    tasks = [dataclasses.replace(t, loss=breaks if t.name == "price" else None) for t in tiny.data().tasks]
    with pytest.raises(FloatingPointError, match=r"step \d+: loss of task 'price' is nan; the step was not applied"):
        tiny.fit(tiny.model(tasks), num_steps=50, workdir=tmp_path / "bad")

    run = tiny.fit(tiny.model(tiny.data().tasks), workdir=tmp_path / "good", optimizer="sgd", num_steps=10)
    assert run.steps == 10
    monkeypatch.setattr(identity, "check", lambda *_, **__: [])  # it would refuse another loss
    with pytest.raises(FloatingPointError, match="last good checkpoint is step 10 in .*good/checkpoints"):
        bad = tiny.model(tasks)._replace(spec=run.model.spec)
        tiny.fit(bad, workdir=tmp_path / "good", optimizer="sgd", num_steps=60)
    assert "10" in os.listdir(tmp_path / "good" / "checkpoints")


def test_a_signal_saves_and_ends(tmp_path):
    steps = 10**7
    model = tiny.model(tiny.data().tasks)
    previous = signal.getsignal(signal.SIGTERM)

    def stop():
        while not (tmp_path / "environment.json").exists():  # written just before the loop
            time.sleep(0.1)
        time.sleep(3.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(
        mtl.Interrupted, match=r"SIGTERM: saved at step \d+ of 10000000 in .*; run again to go on"
    ) as caught:
        tiny.fit(model, num_steps=steps, eval_every=steps, workdir=tmp_path, log_every=steps)
    run = caught.value.run
    assert isinstance(caught.value, SystemExit) and caught.value.code == 143
    assert run.interrupted == "SIGTERM" and 0 < run.steps < steps
    assert os.listdir(tmp_path / "checkpoints") == [str(run.steps)]
    assert signal.getsignal(signal.SIGTERM) is previous
    assert mtl.load_run(tmp_path).history == run.history
    run.predict(tiny.data().test.inputs)


def test_a_loop_of_fits_ends_with_the_first_signal(monkeypatch):
    """Without a workdir, too; what there is comes with the exception."""
    fits = []
    with pytest.raises(
        KeyboardInterrupt, match=r"SIGINT: stopped at step 5 of 20; without a workdir nothing was"
    ) as caught:
        for seed in range(3):
            fits.append(seed)
            real = loop.compile_once

            def compile_and_signal(*args, real=real):
                signal.raise_signal(signal.SIGINT)  # noted; the first dispatch is finished
                return real(*args)

            monkeypatch.setattr(loop, "compile_once", compile_and_signal)
            tiny.fit(tiny.model(tiny.data().tasks), seed=seed)
    assert fits == [0] and caught.value.run.steps == 5


def test_refusals(tmp_path):
    data, model = tiny.data(), tiny.model(tiny.data().tasks)
    tiny.fit(model, num_steps=5, eval_every=5, workdir=tmp_path)
    with pytest.raises(ValueError, match="holds a run of another config; it differs in balancer: 'equal.*' -> 'mgda"):
        tiny.fit(model, num_steps=5, eval_every=5, workdir=tmp_path, balancer="mgda")
    with pytest.raises(ValueError, match="batch_size=12 cannot be divided over 8 devices; use 8 or 16"):
        tiny.fit(model, batch_size=12, mesh=parallel.make_mesh(8))
    with pytest.raises(ValueError, match="a mesh of 9 devices was asked for; 8 are there"):
        parallel.make_mesh(9)
    with pytest.raises(ValueError, match="unknown task of data set 'arrays' 'prize'; did you mean 'price'"):
        tiny.fit(tiny.model([mtl.Task("prize", "regression")]))
    with pytest.raises(ValueError, match="task 'price' is binary of size None in the model, but regression"):
        tiny.fit(tiny.model([mtl.Task("price", "binary")]))
    masks = {**data.train.masks, "sold": np.zeros_like(data.train.masks["sold"])}
    with pytest.raises(ValueError, match="task 'sold' has no label in train"):
        tiny.fit(model, dataclasses.replace(data, train=data.train._replace(masks=masks)))
    with pytest.raises(ValueError, match="rule 'shard/.*' matches no parameter; paths are shared/encoder"):
        tiny.fit(model, freeze="shard/.*")
    with pytest.raises(ValueError, match="unknown parallel 'xmap'"):
        tiny.fit(model, parallel="xmap")


def test_a_checkpoint_that_does_not_fit_lists_the_paths(tmp_path, monkeypatch):
    """Where nothing else told that the workdir holds another run."""
    tasks = tiny.data().tasks
    layered = tiny.model(tasks, encoder="mlp(features=(8, 6), norm='layer')")
    tiny.fit(layered, num_steps=5, eval_every=5, workdir=tmp_path)
    other = tiny.model(tasks, encoder="mlp(features=(8, 7, 5))")
    with pytest.raises(ValueError, match="holds a run of another config; it differs in encoder"):
        tiny.fit(other, num_steps=10, eval_every=5, workdir=tmp_path)
    monkeypatch.setattr(identity, "check", lambda *given, **more: [])
    with pytest.raises(ValueError, match="does not fit the model") as caught:
        tiny.fit(other, num_steps=10, eval_every=5, workdir=tmp_path)
    text = str(caught.value)
    for part in ("missing", "params/shared/encoder/stage_2/dense/kernel", "unexpected", "finish/norm/scale", "reshaped",
                 "params/shared/encoder/stage_1/dense/kernel (8, 6) -> (8, 7)"):  # fmt: skip
        assert part in text


def test_intervals():
    assert intervals(1000, None, None, None, None) == {
        "steps_per_dispatch": 50, "eval_every": 100, "checkpoint_every": 100, "log_every": 50
    }  # fmt: skip
    assert intervals(30, None, 10, None, None)["steps_per_dispatch"] == 10
    with pytest.raises(ValueError, match="eval_every=15 is not a multiple of steps_per_dispatch=10"):
        intervals(100, 10, 15, None, None)
    with pytest.raises(ValueError, match="num_steps=0 must be a whole number of at least 1"):
        intervals(0, None, None, None, None)


def test_tasks_that_are_not_scheduled_stand_still():
    """One task a step: its head and optimizer move, the others' stay bit for bit; all learn in the end."""
    model = tiny.model(tiny.data().tasks)
    run = tiny.fit(model, task_schedule="curriculum(starts={'price': 30, 'sold': 30})", num_steps=20)
    start = tiny.fit(model, task_schedule="curriculum(starts={'price': 30, 'sold': 30})", num_steps=5, eval_every=5)
    tiny.assert_same(run.state.params["tasks"]["price"], start.state.params["tasks"]["price"])
    tiny.assert_same(run.state.opt_state["sold"], start.state.opt_state["sold"])
    moved = (
        run.state.params["tasks"]["color"]["head"]["out"]["bias"]
        - start.state.params["tasks"]["color"]["head"]["out"]["bias"]
    )
    assert np.abs(moved).max() > 1e-3
    for optimizer in ("one", "per_task"):
        schedule = f"alternating(by='round_robin', optimizer={optimizer!r})"
        turns = tiny.fit(model, task_schedule=schedule, balancer="upgrad", num_steps=120)
        train = [r for r in turns.history if r["split"] == "train"]
        assert sum(train[-1]["losses"].values()) < 0.8 * sum(train[0]["losses"].values())
    np.testing.assert_array_equal(turns.state.opt_state["shared"][0].count, [40, 40, 40])
    with pytest.raises(ValueError, match="unknown schedule 'alternate'; did you mean 'alternating'"):
        tiny.fit(model, task_schedule="alternate")


def test_arguments_of_other_libraries_are_told_what_they_are_here():
    model, data = tiny.model(tiny.data().tasks), tiny.data()
    for name, words in (("learning_rate", r"optimizer=\"adam\(learning_rate="), ("epochs", "num_steps")):
        with pytest.raises(ValueError, match=f"fit has no argument '{name}'; .*{words}"):
            mtl.fit(model, data, **{name: 1})
    with pytest.raises(ValueError, match="unknown argument of fit 'batchsize'; did you mean 'batch_size'"):
        mtl.fit(model, data, batchsize=8)


def test_a_batch_of_many_times_all_rows_is_told():
    train = tiny.data().train
    with pytest.warns(UserWarning, match=r"batch_size=1000, and train has 72 rows.*about 13 times"):
        arguments.warn_of_repeated_rows(1000, train)
    arguments.warn_of_repeated_rows(288, train)

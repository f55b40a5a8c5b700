"""A task that validation does not vouch for predicts the constant, everywhere alike, and says so."""

import dataclasses
import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mtl_jax as mtl
from mtl_jax.alike import layout_of
from mtl_jax.batch import PerTask
from mtl_jax.data import splits
from mtl_jax.stacking import alone
from mtl_jax.training import arguments, fallback, loop, verdicts
from mtl_jax.training.constants import baseline_losses
from mtl_jax.training.fallback import Verdict
from tests import test_tasks, tiny

FALLS = r"task 'noise': no better than the best constant on validation \(score -\d.*over 40 rows\): predicts the const"
LONG = {"num_steps": 400, "eval_every": 400, "steps_per_dispatch": 50, "log_every": 400, "fallback": True}


@functools.cache
def data():
    """A task that is learned, and one of amounts far from 0 that turns round after the 60 training rows."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(140, 5)).astype(np.float32)
    rows = np.arange(140)
    turning = np.where(rows < 60, 1, -1) * x[:, 1] + 0.5 * draw.normal(size=140)
    targets = {"good": 20 + 3 * x[:, 0], "noise": 1e7 + 5 * turning}
    return mtl.data.from_arrays(x, targets, split={"train": rows[:60], "val": rows[60:100], "test": rows[100:]})


def fit(source=None, encoder="mlp(features=(64,))", **given):
    source = source or data()
    return tiny.fit(tiny.model(source.tasks, encoder=encoder), source, **{**LONG, **given})


@functools.cache
def trained():
    with pytest.warns(UserWarning, match=FALLS):
        return fit()


def test_the_constant_is_predicted_and_the_other_task_is_left_alone():
    run, plain = trained(), fit(fallback=False)
    tiny.assert_same(run.variables, plain.variables)
    found, own = run.predict(data().test.inputs), plain.predict(data().test.inputs)
    np.testing.assert_array_equal(found["good"], own["good"])
    known = np.concatenate([data().train.targets["noise"], data().val.targets["noise"]])
    np.testing.assert_allclose(found["noise"], known.mean(), rtol=0, atol=0.01)
    assert own["noise"].std() > 1 and plain.fallback is None
    error = data().test.targets["noise"] - known.mean()
    assert run.evaluate(data().test)["noise"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert run.evaluate(data().test)["good"] == plain.evaluate(data().test)["good"]
    np.testing.assert_array_equal(dataclasses.replace(run, fallback=None).predict(data().test.inputs)["noise"],
                                  own["noise"])  # fmt: skip


def test_intervals_lie_around_the_constant():
    made = trained().calibrate(data().val)
    low, high = made.intervals(data().test.inputs, 0.8)["noise"]
    inside = (low <= data().test.targets["noise"]) & (data().test.targets["noise"] <= high)
    np.testing.assert_allclose((low + high) / 2, made.predict(data().test.inputs)["noise"])
    assert 0.65 < inside.mean() < 0.95 and np.ptp(low) == 0


def test_it_is_saved_loaded_and_belongs_to_its_variables(tmp_path):
    run = trained()
    run.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    assert loaded.fallback.lines(run.tasks) == run.fallback.lines(run.tasks)
    tiny.assert_same(loaded.predict(data().test.inputs), run.predict(data().test.inputs))
    path = tmp_path / "run" / "fallback.json"
    content = json.loads(path.read_text())
    for change, error in ((2.0, "must be one number in"), (None, "fallback.json is damaged")):
        content["tasks"]["noise"]["verdicts"][0]["keeps"] = change
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=error):
            mtl.load_run(tmp_path / "run")
    path.write_text(json.dumps({**content, "variables": "of others"}))
    with pytest.warns(UserWarning, match="were not judged .* predictions are the model's own"):
        assert mtl.load_run(tmp_path / "run").fallback is None


def test_a_resumed_run_is_judged_as_one_that_was_not(tmp_path, monkeypatch):
    real = loop.compile_once

    def compile_and_signal(*args):
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(loop, "compile_once", compile_and_signal)
        fit(workdir=tmp_path, checkpoint_every=50)
    assert caught.value.run.fallback is not None  # of the run so far, on disk too
    assert mtl.load_run(tmp_path).fallback.content() == caught.value.run.fallback.content()
    with pytest.warns(UserWarning, match=FALLS):
        run = fit(workdir=tmp_path, checkpoint_every=50)
    assert run.resumed_from == 50 and run.fallback.content() == trained().fallback.content()
    loaded = mtl.load_run(tmp_path)
    tiny.assert_same(loaded.predict(data().test.inputs), trained().predict(data().test.inputs))
    (tmp_path / "fallback.json").unlink()  # killed before it was written
    with pytest.warns(UserWarning, match="were not judged against the best constants"):
        assert mtl.load_run(tmp_path).fallback is None


def test_the_option_is_part_of_what_a_run_is(tmp_path):
    short = {"num_steps": 5, "eval_every": 5, "steps_per_dispatch": 5, "log_every": 5}
    plain = fit(workdir=tmp_path, **{**short, "fallback": False})
    assert plain.identity["settings"]["fallback"] is None  # as of a version that had no such option
    with pytest.raises(ValueError, match="fallback: None -> True"):
        fit(workdir=tmp_path, **short)
    with pytest.raises(ValueError, match="fallback='mean' must be True or False"):
        arguments.check_flag("fallback", "mean")


def test_members_are_judged_one_by_one():
    """One seed, and another that keeps its first variables, near the constant or not; as each is judged alone."""
    with pytest.warns(UserWarning, match="task 'noise', member [01]: no better"):
        run = fit(seed=(0, 1))
    found = run.predict(data().test.inputs)
    for i in (0, 1):
        one = run.member(i)
        alone = verdicts.judge(one.model, one.tasks, one.variables, data(), members=False)
        assert one.fallback.lines(run.tasks) == alone.lines(run.tasks)
        tiny.assert_close(one.predict(data().test.inputs), {n: v[i] for n, v in found.items()}, rtol=1e-6)
        losses = [r.evaluate(data().test)["noise"]["loss"] for r in (run, one)]
        assert losses[0][i] == pytest.approx(losses[1], rel=1e-5)


def test_an_ensemble_inside_a_model_is_judged_by_its_common_prediction():
    with pytest.warns(UserWarning, match=FALLS):
        run = fit(encoder="tabm(members=3, features=(32,), numbers='plain')")
    known = np.concatenate([data().train.targets["noise"], data().val.targets["noise"]])
    np.testing.assert_allclose(run.predict(data().test.inputs)["noise"], known.mean(), rtol=0, atol=0.01)
    own = dataclasses.replace(run, fallback=None).evaluate(data().val)["noise"]["loss"]
    constant = baseline_losses(run.tasks, data().train, data().val)[1]
    assert run.fallback.verdicts["noise"][0].score == pytest.approx(1 - own / constant, rel=1e-4)


@pytest.mark.parametrize("made", [test_tasks.sequence_data, test_tasks.image_data, tiny.data, tiny.per_task_data])
def test_rows_of_every_kind_add_up_to_the_losses(made):
    """Source: `evaluate` and `baseline_losses`, of tags, pixels, lists, boxes, rows, and inputs of each task's own."""
    source = made()
    encoder = test_tasks.ENCODER if made in (test_tasks.sequence_data, test_tasks.image_data) else None
    model = mtl.sharing.hard(encoder or mtl.encoders.mlp(features=(4,)), source.tasks)
    run = tiny.fit(model, source, num_steps=5, eval_every=5)
    train, val = (verdicts.centred(run.tasks, s) for s in (source.train, source.val))
    layout = layout_of(model, run.tasks, run.variables, run.example, also=(val,))
    found = verdicts.measure(model, layout, layout.stack_variables(run.variables), train, val, False, 7)
    constants = baseline_losses(run.tasks, source.train, source.val)
    own = run.evaluate(source.val)
    for task, constant in zip(run.tasks, constants, strict=True):
        losses, weights = found[task.name]
        total = losses[0].sum(-1) / weights[0].sum()
        np.testing.assert_allclose(total[0], constant, rtol=1e-4)
        np.testing.assert_allclose(total[-1], own[task.name]["loss"], rtol=1e-4)
    run.fallback = verdicts.judge(model, run.tasks, run.variables, source, False)
    none = {n: tuple(dataclasses.replace(v, keeps=0.0) for v in each) for n, each in run.fallback.verdicts.items()}
    run.fallback = dataclasses.replace(run.fallback, verdicts=none)
    whole = {t.name: verdicts.fit_constant(t, verdicts.together(t, train, val)) for t in run.tasks}
    for name, value in run.predict(source.test.inputs).items():
        rows = value.reshape(-1, *np.shape(whole[name]))
        np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
    assert len(run.fallback.lines(run.tasks)) == len(run.tasks)


def test_a_gain_by_hand():
    """Source: the paired t statistic of rows of equal weight, over the constant's mean loss; of groups, their sums."""
    draw = np.random.default_rng(0)
    constant, own = draw.uniform(1, 2, 30), draw.uniform(0.5, 2, 30)
    found = verdicts.gain(constant, own, np.ones(30))
    statistic = stats.ttest_rel(constant, own).statistic
    assert found.score / found.error == pytest.approx(statistic) and found.units == 30
    assert found.score == pytest.approx(1 - own.sum() / constant.sum())
    groups = np.repeat(np.arange(6), 5)
    by_group = (constant - own).reshape(6, 5).mean(1)
    found = verdicts.gain(constant, own, np.ones(30), groups)
    assert found.score / found.error == pytest.approx(stats.ttest_1samp(by_group, 0).statistic) and found.units == 6
    twice = verdicts.gain(*(np.append(x, 2 * x[:3]) for x in (constant, own)), np.append(np.ones(30), [2.0] * 3))
    longer = verdicts.gain(*(np.append(x, [x[:3], x[:3]]) for x in (constant, own)), np.ones(36))
    assert twice.score == pytest.approx(longer.score) and twice.units == 33  # a row of weight 2 is one draw
    none = verdicts.gain(np.append(constant, 0), np.append(own, 0), np.append(np.ones(30), 0))
    assert none == verdicts.gain(constant, own, np.ones(30))
    assert verdicts.gain(constant, np.append(own[:-1], np.inf), np.ones(30)).score == -np.inf
    assert verdicts.gain(constant[:1], own[:1], np.ones(1)).error == np.inf


@pytest.mark.parametrize("score, error, units, rows, groups, classes", [
    (0.3, 0.01, 6, True, True, True),
    (0.3, 0.25, 6, True, False, True),  # 0.25 x 2.57
    (0.02, 0.2, 40, True, False, True),
    (-0.1, 0.2, 40, False, False, True),
    (-0.4, 0.2, 40, False, False, False),
    (0.5, np.inf, 1, True, False, True),
    (-np.inf, np.nan, 40, False, False, False),
])  # fmt: skip
def test_how_much_is_asked(score, error, units, rows, groups, classes):
    found = verdicts.Gain(score, error, units)
    asked = (0.0, verdicts.BY_GROUPS, -verdicts.BY_CLASSES)
    assert [verdicts.vouched(found, needed) for needed in asked] == [rows, groups, classes]


def test_few_groups_do_not_vouch_for_what_many_rows_would():
    """Each group has an offset that inputs know in training and no new group has: 40 rows look alike, of 4 people."""
    draw = np.random.default_rng(3)
    person = np.repeat(np.arange(16), 10)
    offset = draw.normal(size=16)
    x = np.concatenate([draw.normal(size=(16, 3))[person], draw.normal(size=(160, 2))], 1).astype(np.float32)
    y = {"score": offset[person] + 0.1 * draw.normal(size=160)}
    grouped = mtl.data.from_arrays(x, y, split=splits.grouped(person), val=0.25, test=0.25)
    assert set(grouped.groups) == {"train", "val", "test"} and len(np.unique(grouped.groups["val"])) == 4
    np.testing.assert_array_equal(grouped.groups["val"], person[grouped.rows["val"]])
    with pytest.warns(
        UserWarning, match=r"no better than the best constant on validation \(.*over 4 groups\): predicts"
    ):
        run = fit(grouped)
    as_rows = dataclasses.replace(grouped, groups=None)
    of_rows = verdicts.judge(run.model, run.tasks, run.variables, as_rows, False).verdicts["score"][0]
    of_groups = run.fallback.verdicts["score"][0]
    assert of_groups.keeps == 0 and of_groups.score == of_rows.score and of_groups.error > of_rows.error
    smaller = grouped.take(60, val=20)
    at = np.random.default_rng(1).permutation(40)[:20]
    np.testing.assert_array_equal(smaller.groups["val"], grouped.groups["val"][at])
    np.testing.assert_array_equal(smaller.val.inputs, grouped.val.inputs[at])
    with pytest.raises(ValueError, match=r"groups of val have shape \(3,\); they must be one number for each of 40"):
        fit(dataclasses.replace(grouped, groups={"val": np.arange(3)}))


@pytest.mark.parametrize("grouped, keeps", [(True, 0.0), (False, 1.0)])
def test_groups_must_vouch_for_classes_too(grouped, keeps):
    """Rows that are on the whole as good as the constant: not truly worse as rows, and not vouched for by groups."""
    draw = np.random.default_rng(0)
    source = mtl.data.from_arrays(draw.normal(size=(80, 2)), {"ill": np.arange(80) % 2}, kinds={"ill": "binary"},
                                  split={"train": range(40), "val": range(40, 80)})  # fmt: skip
    losses = np.tile(np.full(40, 0.7), (len(verdicts.KEPT), 1))
    losses[-1] += np.repeat([0.3, -0.31, 0.3, -0.31], 10)
    groups = np.repeat(np.arange(4), 10) if grouped else None
    assert verdicts.verdict(source.tasks[0], losses, np.ones(40), source, groups).keeps == keeps


def test_outputs_that_exaggerate_are_moved_part_of_the_way():
    draw = np.random.default_rng(0)
    truth = draw.normal(size=200)
    losses = np.stack([(truth + draw.normal(size=200) - k * 3 * truth) ** 2 for k in verdicts.KEPT]).astype(float)
    source = mtl.data.from_arrays(np.zeros((240, 1)) + np.arange(240)[:, None], {"y": draw.normal(size=240)},
                                  split={"train": range(40), "val": range(40, 240)})  # fmt: skip
    found = verdicts.verdict(source.tasks[0], losses, np.ones(200), source)
    assert found.score < 0 and 0.25 <= found.keeps <= 0.4
    assert "moved toward the constant 5, with" in fallback.said(mtl.Task("y", "regression"), found, 5.0)
    one, outputs = jnp.ones(()), jnp.array([3.0, np.nan])
    half = fallback.toward(one, outputs, 0.5)
    np.testing.assert_array_equal(half, [2, np.nan])
    for keeps, expected in ((0.0, [1, 1]), (1.0, [3, np.nan])):
        np.testing.assert_array_equal(fallback.toward(one, outputs, keeps), expected)


def test_what_cannot_be_judged_stays_as_it_is_and_is_said():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(90, 3)), draw.normal(size=(2, 90))
    y[1, 60:] = np.nan
    source = mtl.data.from_arrays(x, {"a": x[:, 0], "b": y[1]}, split={"train": range(60), "val": range(60, 90)})
    run = fit(source, num_steps=50, eval_every=50)
    lines = run.fallback.lines(run.tasks)
    assert lines[1] == ("task 'b': not judged against the best constant (no labels in val); its predictions are the "
                        "model's")  # fmt: skip
    without = fit(dataclasses.replace(source, val=None), num_steps=50, eval_every=50)
    assert all(
        "not judged against the best constant (no validation rows)" in t for t in without.fallback.lines(run.tasks)
    )
    assert (
        np.ptp(run.predict(x.astype(np.float32))["b"]) > 0.01
        and without.fallback.stand_ins(alone(without.tasks), False) == {}
    )


def test_predictions_that_are_not_finite_become_the_constant():
    run = trained()
    broken = jax.tree.map(lambda leaf: leaf * np.nan, run.variables)
    run = dataclasses.replace(run, variables=broken, _compiled={})
    run.fallback = verdicts.judge(run.model, run.tasks, broken, data(), False)
    assert "its loss there is not finite over 40 rows): predicts the constant 19.7" in run.fallback.lines(run.tasks)[0]
    assert all(np.isfinite(v).all() for v in run.predict(data().test.inputs).values())


def test_words_for_classes():
    tasks = (mtl.Task("sold", "binary"), mtl.Task("stage", "classification", classes=("early", "late")))
    found = [fallback.said(t, Verdict(0.0, -0.5, 0.1, 30), c) for t, c in zip(tasks, (0.0, [0.0, 0.0]), strict=True)]
    assert found[0].endswith("(score -0.50, standard error 0.10 over 30 rows): predicts the constant 0.5")
    assert found[1].endswith("predicts the constant early 0.5, late 0.5")
    assert fallback.said(tasks[0], Verdict(1.0, -0.1, 0.1, 1), 0.0).startswith("not beyond doubt worse than")
    found = fallback.said(mtl.Task("motor", "regression"), Verdict(0.0, 0.3, 0.25, 6, grouped=True), 21.3)
    assert found.startswith(
        "no better than the best constant beyond the noise between groups on validation (score 0.30,"
    )
    assert found.endswith("standard error 0.25 over 6 groups): predicts the constant 21.3")


def test_a_comparison_shows_what_was_learned():
    found = {}
    for on in (True, False):
        compared = mtl.compare(mtl.encoders.mlp(features=(16,)), data(), ["equal"], seeds=(0,), num_steps=50,
                               batch_size=16, mesh=mtl.parallel.make_mesh(1), fallback=on)  # fmt: skip
        found[on] = compared.test
    assert found[True] == found[False]


def test_tables_have_it_on():
    assert mtl.training.options_for_table(data())["fallback"] is True
    own = mtl.data.from_arrays(PerTask({"a": np.ones((9, 1)), "b": np.ones((9, 1))}), {"a": range(9), "b": range(9)},
                               kinds={"a": "regression", "b": "regression"}, test=0)  # fmt: skip
    assert own.groups is None

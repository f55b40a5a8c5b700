"""Which variables are kept: no task decides for the others, and one that cannot be judged keeps its last."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax.stacking import alone
from mtl_jax.training import selection
from tests import tiny

FLOOR = selection.FLOOR


def by(constants, say):
    return selection.Yardstick(jnp.asarray(constants, jnp.float32), jnp.asarray(say, jnp.float32))


@functools.partial(jax.jit, static_argnames=("patience",))
def step_of(best, losses, yardstick, step, patience=None):
    """One validation; every variable holds the step it is from."""
    names, layout = tuple("ab"), alone([mtl.Task(n, "regression") for n in "ab"])
    at = jnp.float32(step)
    own = {n: {"w": at[None]} for n in names}
    variables = {"params": {"shared": {}, "tasks": own}, "state": {"shared": {}, "tasks": {}}}
    if best.params["shared"]:
        variables["params"]["shared"] = {"w": at}
    return selection.update(best, variables, losses, yardstick, step, layout=layout, patience=patience)


def kept(a, b, yardstick, apart=False, patience=None):
    """(steps of the variables of a and of b, the last `Best`) after validations with these losses."""
    first = {"params": {"shared": {} if apart else {"w": -1.0}, "tasks": {n: {"w": [-1.0]} for n in "ab"}},
             "state": {"shared": {}, "tasks": {}}}  # fmt: skip
    best = selection.start(jax.tree.map(jnp.float32, first, is_leaf=lambda x: isinstance(x, list)), 2)
    for i, losses in enumerate(zip(a, b, strict=True)):
        best = step_of(best, jnp.asarray(losses, jnp.float32), yardstick, jnp.int32(i), patience)
    return [int(best.params["tasks"][n]["w"][0]) for n in "ab"], best


def test_scores_by_hand():
    """1 - loss / constant down to the constant's loss; below that -FLOOR (1 - constant / loss)."""
    yardstick = by([2.0, 2.0], [0.5, 0.5])
    found = selection.scores(jnp.array([[0.0, 0.5], [2.0, 4.0], [2e6, jnp.nan], [jnp.inf, -2.0]]), yardstick)
    expected = [[1, 0.75], [0, -FLOOR / 2], [-FLOOR * (1 - 1e-6), -FLOOR], [-FLOOR, 1 + FLOOR / 2]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isnan(selection.scores(jnp.ones(2), by([1, 1], [1, 0]))[1])


@pytest.mark.parametrize("constant", [0.7, 0.0])
def test_scores_fall_with_the_loss_and_stay_bounded(constant):
    losses = jnp.linspace(-5, 5, 201)
    found = np.asarray(selection.scores(losses[:, None], by([constant], [1])))[:, 0]
    assert (np.diff(found) < 0).all() and found.max() < 1 + FLOOR and found.min() > -FLOOR


GETS_BETTER = np.linspace(0.9, 0.2, 8)


@pytest.mark.parametrize("bad", [
    [0.9, 1.1, 2, 4, 8, 16, 32, 64],  # learned by heart
    [1e-6, 1, 1, 1, 1, 1, 1, 5e5],
    [1, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan],
    [1, np.inf, 1, np.inf, 1, np.inf, 1, np.inf],
], ids=["by heart", "constant in training", "nan", "inf"])  # fmt: skip
def test_a_task_that_is_worse_than_a_constant_does_not_decide(bad):
    yardstick = by([1, 1], [0.5, 0.5])
    if bad[0] == 1e-6:
        yardstick = by([1, 1e-6], [1.0, 0.0])  # what `yardstick` makes of it
    steps, best = kept(GETS_BETTER, bad, yardstick, patience=2)
    assert steps == [7, 7] and not bool(best.stopped)


def test_patience_still_ends_what_no_longer_gains():
    _, best = kept([0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], by([1, 1], [0.5, 0.5]), patience=3)
    assert bool(best.stopped) and np.asarray(best.steps).tolist() == [0, 0]
    _, best = kept([1.0] * 4, [1.0] * 4, by([0, 0], [0, 0]), patience=2)  # nothing to judge by is no reason to stop
    assert not bool(best.stopped)


def test_apart_each_is_chosen_by_itself_and_without_say_the_last_is_kept():
    steps, best = kept([0.5, 0.2, 0.7], [np.nan] * 3, by([1, 0], [1, 0]), apart=True)
    assert steps == [1, 2] and np.asarray(best.steps).tolist() == [1, 2]
    steps, _ = kept([np.nan, np.nan, np.nan], [0.5, 0.4, 0.6], by([1, 1], [0.5, 0.5]), apart=True)
    assert steps == [2, 1]  # what never had a finite loss is held as it is last, not as it was first


def test_together_those_with_a_say_decide():
    steps, _ = kept([0.5, 0.2, 0.7], [0.9, 0.9, 0.0], by([1, 1], [1, 0]))
    assert steps == [1, 1]
    steps, _ = kept([0.5, 0.2, 0.7], [0.1, 0.2, 0.3], by([1, 1], [0, 0]))
    assert steps == [2, 2]


def split_data(b_train, b_val, rows=(40, 20), **kinds):
    x = np.random.default_rng(0).normal(size=(sum(rows), 3)).astype(np.float32)
    a = x.sum(1)
    n = rows[0]
    return mtl.data.from_arrays(x[:n], {"a": a[:n], "b": b_train}, val=(x[n:], {"a": a[n:], "b": b_val}), test=0,
                                kinds={"b": "regression", **kinds})  # fmt: skip


def test_the_yardstick_by_hand():
    """The constant is the training mean, its loss that on the validation labels, standardised; n / (n + 100)."""
    draw = np.random.default_rng(1)
    train, val = draw.normal(3, 2, 40), np.full(20, np.nan)
    val[:5] = draw.normal(3, 2, 5)
    data = split_data(train, val)
    found, silent = selection.yardstick(data.tasks, data.train, data.val)
    expected = np.mean((val[:5] - train.mean()) ** 2) / train.std() ** 2
    np.testing.assert_allclose(found.constants[1], expected, rtol=1e-4)
    say = np.array([20 / 120, 5 / 105])
    np.testing.assert_allclose(found.say, say / say.sum(), rtol=1e-5)
    assert silent == {}


@pytest.mark.parametrize("train, val, kind, why", [
    (np.arange(40.0), np.full(20, np.nan), "regression", "no labels in val"),
    (np.arange(40.0), np.full(20, 3.5), "regression", "every label is 3.5 in val"),
    (np.full(40, 0.1), np.arange(20.0), "regression", "every label is 0.1 in train"),
    (np.zeros(40), np.arange(20) % 2.0, "binary", "every label is 0 in train"),
    (np.array(["no", "yes"] * 20), np.array(["no"] * 20), "classification", "every label is no in val"),
])  # fmt: skip
def test_what_tells_nothing_has_no_say(train, val, kind, why):
    data = split_data(train, val, b=kind)
    found, silent = selection.yardstick(data.tasks, data.train, data.val)
    assert silent == {"b": why} and found.say.tolist() == [1, 0] and np.isfinite(found.constants).all()


@functools.cache
def unlabelled():
    """Task b has no validation labels."""
    draw = np.random.default_rng(0)
    return split_data(draw.normal(size=40), np.full(20, np.nan))


@pytest.mark.parametrize("sharing", ["independent", "soft"])
def test_a_task_without_validation_labels_keeps_its_last_variables(sharing):
    data = unlabelled()
    run = tiny.fit(tiny.model(data.tasks, sharing), data, num_steps=40, seed=(0, 1))
    for member in (0, 1):
        one = run.member(member)
        tiny.assert_same(one.params["tasks"]["b"], one.state.params["tasks"]["b"])
    assert np.asarray(run.best.steps)[:, 1].tolist() == [40, 40] and run.without_say == {"b": "no labels in val"}


def test_its_last_variables_are_those_of_a_run_that_was_resumed_and_loaded(tmp_path):
    data = unlabelled()
    whole = tiny.fit(tiny.model(data.tasks, "independent"), data, num_steps=40)
    for num_steps in (20, 40):
        run = tiny.fit(tiny.model(data.tasks, "independent"), data, num_steps=num_steps, workdir=tmp_path)
    assert run.resumed_from == 20
    tiny.assert_same(run.variables, whole.variables)
    tiny.assert_same(mtl.load_run(tmp_path).variables, whole.variables)


def test_a_shared_trunk_is_chosen_by_the_others_and_that_is_said():
    data = unlabelled()
    run = tiny.fit(tiny.model(data.tasks), data, num_steps=40)
    assert run.without_say == {"b": "no labels in val"}
    records = [r for r in run.history if r["split"] == "val"]
    assert all(r["scores"]["b"] is None for r in records)
    best = max(records, key=lambda r: r["scores"]["a"])
    assert np.asarray(run.best.steps).tolist() == [best["step"]] * 2
    constant = selection.yardstick(run.tasks, data.train, data.val)[0].constants[0]
    assert best["scores"]["a"] == pytest.approx(1 - best["losses"]["a"] / float(constant), abs=1e-5)


def test_where_nothing_was_judged_disk_and_memory_hold_the_averages(tmp_path):
    """With a schedule-free optimizer they are others than those that train; so, too, where a run goes on."""
    data = split_data(np.full(40, 0.1), np.full(20, 0.1)).select(["b"])
    for num_steps in (20, 30):
        run = tiny.fit(tiny.model(data.tasks), data, num_steps=num_steps, workdir=tmp_path,
                       optimizer=optax.contrib.schedule_free_adamw(0.05))  # fmt: skip
        assert run.without_say and run.steps == num_steps
        tiny.assert_same(mtl.load_run(tmp_path).variables, run.variables)
    with pytest.raises(AssertionError):
        tiny.assert_same(run.params, run.state.params)

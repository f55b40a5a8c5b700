"""A run in a working directory is that run: what differs is said, what cannot be compared is said, the rest goes on."""

import dataclasses
import json
import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax.training import identity, selection
from mtl_jax.training.intervals import continued, intervals
from mtl_jax.training.start import chosen_scaler
from tests import tiny


def joint(weight):
    def function(outputs, targets, masks):
        return weight * (outputs["price"] ** 2).sum(), jnp.asarray(outputs["price"].size, jnp.float32)

    return (mtl.JointLoss("small", function),)


def with_task(**changes):
    tasks = [dataclasses.replace(t, **changes) if t.name == "price" else t for t in tiny.data().tasks]
    return dataclasses.replace(tiny.data(), tasks=tuple(tasks))


def other_labels():
    split = tiny.data().train
    return dataclasses.replace(
        tiny.data(), train=split._replace(targets={**split.targets, "price": split.targets["price"][::-1].copy()})
    )


def fit(workdir, source=None, **arguments):
    source = source or tiny.data()
    defaults = {"num_steps": 5, "eval_every": 5, "optimizer": optax.adam(1e-3), "joint_losses": joint(1.0)}
    return tiny.fit(tiny.model(source.tasks), source, workdir=workdir, **{**defaults, **arguments})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")
    fit(folder)
    return folder


@pytest.mark.smoke
def test_the_same_goes_on_without_a_word(workdir):
    assert fit(workdir).resumed_from == 5
    assert mtl.load_run(workdir).identity == json.loads((workdir / "identity.json").read_text())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": optax.adam(0.1)}, "optimizer: learning_rate 0.001 -> 0.1."),
        ({"optimizer": optax.sgd(1e-3)}, "optimizer: scale_by_adam -> identity."),
        ({"optimizer": "adam"}, "optimizer: 'given as an object' -> 'adam'."),
        ({"joint_losses": joint(2.0)}, "joint_losses: weight 1.0 -> 2.0."),
        ({"joint_losses": ()}, "joint_losses: "),
        ({"patience": 3}, "patience: None -> 3."),
        ({"monitor": False}, "monitor: True -> False."),
        ({"learning_rate_factors": ((".*head.*", 2.0),)}, "learning_rate_factors: "),
        ({"eval_every": 10}, "eval_every: 5 -> 10"),
        ({"balancer": "mgda"}, "balancer: 'equal()' -> 'mgda()'."),
        ({"l2": 0.1, "seed": 1}, "l2: 0.0 -> 0.1; seed: 0 -> 1."),
    ],
)
def test_what_differs_is_said(workdir, changes, message):
    with pytest.raises(ValueError, match="holds a run of another config; it differs in ") as caught:
        fit(workdir, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source, message",
    [
        (other_labels, "differs in data: labels of task 'price' of train differ."),
        (lambda: with_task(loss="mae"), "differs in task 'price': loss 'mse' -> 'mae'."),
        (lambda: with_task(loss=lambda o, t: (o - t) ** 4), "differs in task 'price': loss 'mse' -> 'function "),
        (lambda: with_task(metrics=("mae",)), "differs in task 'price': metrics"),
        (lambda: tiny.data().select(["price", "color", "sold"]), "differs in tasks: ['color', 'price', 'sold'] -> "),
    ],
)
def test_other_data_and_tasks_are_told(workdir, source, message):
    with pytest.raises(ValueError) as caught:
        fit(workdir, source())
    assert message in str(caught.value)


def test_a_callers_config_does_not_hide_what_differs(tmp_path):
    fit(tmp_path, config={"mine": 1})
    with pytest.raises(ValueError, match="it differs in optimizer: learning_rate 0.001 -> 0.1; mine: 1 -> 2"):
        fit(tmp_path, optimizer=optax.adam(0.1), config={"mine": 2})
    with pytest.raises(ValueError, match="it differs in mine: 1 -> None"):
        fit(tmp_path)


def test_where_a_run_starts_from_counts(tmp_path):
    sources = [fit(None, seed=s) for s in (0, 1)]
    new = [mtl.Task("sold", "binary")]
    adapted = [mtl.transfer.adapt(s, new, freeze="shared/.*") for s in sources]
    for _ in range(2):
        tiny.fit(adapted[0], num_steps=5, eval_every=5, workdir=tmp_path)
    with pytest.raises(ValueError, match=r"starts from: 'a run of data of its own, 5 steps, variables [0-9a-f]+' -> "):
        tiny.fit(adapted[1], num_steps=5, eval_every=5, workdir=tmp_path)


def test_a_run_of_an_earlier_version_goes_on_with_a_word(workdir, tmp_path):
    """Which kept a config alone, without fields that came later."""
    fit(tmp_path)
    (tmp_path / "identity.json").unlink()
    said = "was begun by an earlier version, which kept no identity.json"
    with pytest.warns(UserWarning, match=said) as caught:
        assert fit(tmp_path).resumed_from == 5
    assert [said in str(w.message) for w in caught].count(True) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tmp_path)  # now it is kept
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ValueError, match="it differs in l2: 0.0 -> 0.5"):
        fit(tmp_path, l2=0.5)


def test_the_best_of_an_earlier_version_is_scored_anew(tmp_path, monkeypatch):
    """Its scores were on another scale, on which what came later would always or never be better."""
    with monkeypatch.context() as earlier:
        earlier.setattr(selection, "scores", lambda losses, by: 1000 - losses)
        assert float(fit(tmp_path).best.scores[0]) > 900
    (tmp_path / "identity.json").unlink()
    with pytest.warns(UserWarning, match="was begun by an earlier version"):
        fit(tmp_path)
    run = fit(tmp_path)  # from the same checkpoint, as no later one was written
    found = [r["losses"] for r in run.history if r["split"] == "val" and r["step"] == int(run.best.steps[0])]
    by, _ = selection.yardstick(run.tasks, tiny.data().train, tiny.data().val)
    expected = selection.scores(jnp.array([found[0][t.name] for t in run.tasks]), by)
    np.testing.assert_allclose(run.best.scores, expected, rtol=1e-5)


def test_what_other_versions_left_is_not_compared_by_name(workdir):
    old = json.loads((workdir / "identity.json").read_text())
    new = json.loads(json.dumps(old))
    new["objects"]["optimizer"]["update"] = "function optax.elsewhere.chain.<locals>.update_fn"
    assert identity.differences(old, new)[0]
    new["versions"]["optax"] = "9.9"
    differ, said = identity.differences(old, new)
    assert not differ and "whether the optimizer is the same could not be compared" in said[0]


def test_a_schedule_made_for_fewer_steps_is_said(workdir):
    old = json.loads((workdir / "identity.json").read_text())
    new = json.loads(json.dumps(old))
    for content, steps in ((old, 100), (new, 200)):
        content["objects"]["optimizer"] = {"learning_rate.schedule": "cosine_decay", "learning_rate.over_steps": steps}
    differ, said = identity.differences(old, new)
    assert not differ and "schedule was made for 100 steps, and is now for 200" in said[0]


def test_more_steps_go_on_by_the_intervals_that_were(tmp_path):
    """And end with the bits of a run that was made that long with these intervals at once."""
    options = {"steps_per_dispatch": None, "eval_every": None, "log_every": None}
    tiny.fit(tiny.model(tiny.data().tasks), num_steps=20, workdir=tmp_path / "a", **options)
    longer = tiny.fit(tiny.model(tiny.data().tasks), num_steps=60, workdir=tmp_path / "a", **options)
    spans = intervals(20, None, None, None, None)
    whole = tiny.fit(tiny.model(tiny.data().tasks), num_steps=60, **spans)
    assert longer.resumed_from == 20 and longer.steps == 60
    tiny.assert_same(longer.state, whole.state)
    with pytest.raises(ValueError, match=f"eval_every: {spans['eval_every']} -> 30"):
        tiny.fit(tiny.model(tiny.data().tasks), num_steps=60, workdir=tmp_path / "a", **{**options, "eval_every": 30})
    with pytest.warns(UserWarning, match="holds a run of 60 steps, which is returned; num_steps=20 is fewer"):
        tiny.fit(tiny.model(tiny.data().tasks), num_steps=20, workdir=tmp_path / "a", **options)


def test_a_dispatch_reaches_every_step_at_which_a_run_ends():
    named = dict.fromkeys(("steps_per_dispatch", "eval_every", "checkpoint_every", "log_every"))
    stored = {"settings": {"num_steps": 1000, **intervals(1000, None, None, None, None)}, "named": []}
    assert continued(2000, named, stored) == intervals(1000, None, None, None, None)
    found = continued(1010, named, stored)
    assert found["steps_per_dispatch"] == 10 and found["eval_every"] == 100
    stored["settings"]["num_steps"] = 1010
    stored["settings"]["steps_per_dispatch"] = 10
    assert continued(2000, named, stored)["steps_per_dispatch"] == 10
    assert continued(2000, named, {**stored, "named": ["eval_every"]})["eval_every"] == 200


def test_own_scaler_or_the_datas():
    data = tiny.data()
    far = with_task(scaler=mtl.tasks.Scaler((5e4,), (1e4,)))
    with pytest.warns(
        UserWarning, match=r"task 'price': the model's scaler \(mean 5e\+04, std 1e\+04\) is far from that"
    ):
        run = tiny.fit(tiny.model(far.tasks), data, num_steps=5, eval_every=5)
    assert run.tasks == data.tasks
    none, own = dataclasses.replace(data.tasks[1], scaler=None), data.tasks[1].scaler
    assert chosen_scaler(none, data.tasks[1], carried=True) is None  # its head was trained without one
    assert chosen_scaler(none, data.tasks[1], carried=False) == own
    assert chosen_scaler(data.tasks[1], none, carried=True) == own
    few = data.take(30)  # near enough for silence
    assert tiny.fit(tiny.model(data.tasks), few, num_steps=5, eval_every=5).tasks == few.tasks


def test_labels_are_trained_on_by_class_name():
    """The same labels under names in another order give the same run."""
    names = np.array(["red", "green", "blue"])
    runs, splits = [], []
    for order in (names, names[[2, 0, 1]]):
        color = mtl.Task("color", "classification", classes=tuple(order))
        text = names[tiny.data().train.targets["color"]]
        x = tiny.data().train.inputs
        data = mtl.data.from_arrays(x, {"color": text}, kinds={"color": color}, val=0.2, test=0.2)
        model = tiny.model([mtl.Task("color", "classification", classes=tuple(names))])
        runs.append(tiny.fit(model, data))
        splits.append(data.test)
        assert runs[-1].tasks[0].classes == tuple(names)
    tiny.assert_same(runs[0].variables, runs[1].variables)
    assert (splits[0].targets["color"] != splits[1].targets["color"]).any()
    assert runs[0].evaluate(splits[0]) == runs[0].evaluate(splits[1])
    with pytest.raises(ValueError, match="has the classes red, green, blue in the model, but a, b, c in data set"):
        other = dataclasses.replace(data, tasks=(dataclasses.replace(color, classes=("a", "b", "c")),))
        tiny.fit(model, other)


def test_a_finished_run_knows_its_data_whatever_the_order_of_classes(tmp_path):
    names = np.array(["red", "green", "blue"])
    data = mtl.data.from_arrays(
        tiny.data().train.inputs, {"color": names[tiny.data().train.targets["color"]]}, val=0.2, test=0.2
    )
    model = tiny.model([mtl.Task("color", "classification", classes=tuple(names))])
    assert data.tasks[0].classes != model.tasks[0].classes
    tiny.fit(model, data, num_steps=5, eval_every=5, workdir=tmp_path)
    identity.check_data(tmp_path, data)
    split = data.train
    moved = split._replace(targets={"color": np.roll(split.targets["color"], 1)})
    with pytest.raises(ValueError, match="labels of task 'color' of train differ"):
        identity.check_data(tmp_path, dataclasses.replace(data, train=moved))

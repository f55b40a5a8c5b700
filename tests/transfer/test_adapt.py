"""Carrying a trunk over: what is loaded, what stays frozen to the bit, and that frozen means cheap."""

import dataclasses

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.model import forward
from mtl_jax.transfer.adapt import inputs_for
from tests import tiny

NEW = [mtl.Task("sold", "binary")]


@pytest.fixture(scope="module")
def source():
    data = tiny.data().select(["color", "price"])
    return tiny.fit(tiny.model(data.tasks, encoder=tiny.BATCH_NORM), data)


@pytest.mark.smoke
def test_frozen_means_not_a_bit_changes(source):
    """Parameters and batch statistics of the trunk, through training with momentum and weight decay."""
    adapted = mtl.transfer.adapt(source, NEW, freeze="shared/.*")
    run = tiny.fit(adapted, tiny.data(), optimizer="adamw(0.05, weight_decay=0.5)", num_steps=40)
    for kind in ("params", "state"):
        tiny.assert_same(run.variables[kind]["shared"], source.variables[kind]["shared"])
        tiny.assert_same(run.state.variables[kind]["shared"], source.variables[kind]["shared"])
    assert run.trainable == {"tasks/sold/head/out/bias", "tasks/sold/head/out/kernel"}
    validated = [r["losses"]["sold"] for r in run.history if r["split"] == "val"]
    assert validated[-1] < validated[0]


@pytest.mark.parametrize("sharing", ["film", "task_routing"])
def test_a_new_task_starts_from_the_statistics_of_the_runs_tasks_together(sharing):
    """Of a trunk whose statistics are each task's own: a frozen one would else run at mean 0 and variance 1."""
    data = tiny.data().select(["color", "price"])
    run = tiny.fit(tiny.model(data.tasks, sharing, tiny.BATCH_NORM), data)
    with pytest.warns(
        UserWarning, match=r"statistics of what is shared .* new tasks \['sold'\] start from those of the"
    ):
        adapted = mtl.transfer.adapt(run, NEW, freeze="shared/.*")
    new = tiny.fit(adapted, tiny.data(), num_steps=5, eval_every=5)
    old = partition.flatten(run.variables["state"])
    found = {p: x for p, x in partition.flatten(new.state.state).items() if "/batch_stats/" in p}
    assert found and set(adapted.report["pooled"]) == set(found)
    for path, value in found.items():
        beside = [path.replace("tasks/sold", f"tasks/{t}") for t in ("color", "price")]
        expected = (np.asarray(old[beside[0]], np.float64) + old[beside[1]]) / 2
        if path.endswith("/var"):
            means = [np.asarray(old[p.removesuffix("var") + "mean"]) for p in beside]
            expected = expected + ((means[0] - means[1]) / 2) ** 2
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
        assert not np.allclose(value, 1.0 if path.endswith("/var") else 0.0)


def test_fine_tuning_starts_from_the_trunk(source):
    adapted = mtl.transfer.adapt(source, NEW)
    still = tiny.fit(adapted, tiny.data(), optimizer="sgd(learning_rate=0.0)", num_steps=5, eval_every=5)
    tiny.assert_same(still.params["shared"], source.params["shared"])
    moved = tiny.fit(adapted, tiny.data())
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(
        jax.tree.leaves(moved.params["shared"]), jax.tree.leaves(source.params["shared"]), strict=True))  # fmt: skip


def test_frozen_transfer_costs_no_backward_pass_of_the_trunk():
    """XLA's count of a step's FLOPs: training all is about three forward passes, a frozen trunk about one."""
    data = tiny.data().select(["sold"])
    model = tiny.model(data.tasks, encoder="mlp(features=(64, 64))")
    batch = tiny.batch(16, data)

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    counted = {}
    for freeze in (None, "shared/.*"):
        step, first = tiny.training("equal", source=data, model=model, freeze=freeze)
        counted[freeze] = flops(step, first, batch)
    forwards = flops(lambda v, b: forward(model, v, b)[0], first.variables, batch)
    assert counted[None] > 2.4 * forwards
    assert counted["shared/.*"] < 1.25 * forwards


def test_the_report_says_where_everything_came_from(source):
    adapted = mtl.transfer.adapt(source, NEW)
    assert set(adapted.report["loaded"]) == {p for p in partition.flatten(source.params) if p.startswith("shared")}
    assert set(adapted.report["initialised"]) == {"tasks/sold/head/out/bias", "tasks/sold/head/out/kernel"}
    assert set(adapted.report["left"]) == {p for p in partition.flatten(source.params) if p.startswith("tasks")}


def test_a_head_can_come_along(source):
    adapted = mtl.transfer.adapt(source, [source.tasks[1]], load=((".*", True),), freeze="shared/.*")
    assert "tasks/price/head/out/kernel" in adapted.report["loaded"]
    run = tiny.fit(adapted, tiny.data(), optimizer="sgd(learning_rate=0.0)", num_steps=5, eval_every=5)
    split = tiny.data().test
    np.testing.assert_array_equal(run.predict(split.inputs)["price"], source.predict(split.inputs)["price"])


def test_errors(source):
    with pytest.raises(ValueError, match="rule 'share/.*' matches no parameter"):
        mtl.transfer.adapt(source, NEW, freeze="share/.*")
    with pytest.raises(ValueError, match="freezes every parameter"):
        mtl.transfer.adapt(source, NEW, freeze=".*")
    wider = tiny.model(NEW, encoder="mlp(features=(8, 7), norm='batch')")
    with pytest.raises(ValueError, match=r"reshaped .*stage_1/dense/kernel \(8, 6\) -> \(8, 7\)"):
        mtl.transfer.adapt(source, NEW, model=wider)
    with pytest.raises(ValueError, match="nothing of the run was loaded"):
        mtl.transfer.adapt(source, NEW, load=((".*", False),))


def colors(classes, text, x):
    task = mtl.Task("color", "classification", classes=classes)
    return mtl.data.from_arrays(x, {"color": text}, kinds={"color": task}, val=0.2, test=0.2)


def test_a_carried_head_keeps_the_meaning_of_its_outputs():
    """Predictions for a class are the run's, whatever number the new data give it; a part of the classes will do."""
    x = np.asarray(tiny.data().train.inputs)
    names = np.array(["red", "green", "blue"])
    text = names[tiny.data().train.targets["color"]]
    old = colors(tuple(names), text, x)
    run = tiny.fit(tiny.model(old.tasks), old)
    everything = ((".*", True),)
    still = {"optimizer": "sgd(learning_rate=0.0)", "num_steps": 5, "eval_every": 5}
    for some in (text != "", text != "green"):
        new = colors(tuple(sorted(set(text[some]))), text[some], x[some])
        adapted = mtl.transfer.adapt(run, new.tasks, load=everything)
        carried = tiny.fit(adapted, new, **still)
        assert adapted.carried == ("color",) and carried.tasks[0].classes == tuple(names)
        right = names[run.predict(x[some])["color"].argmax(1)] == text[some]
        found = carried.evaluate(new.train)["color"]["accuracy"]
        rows = [np.flatnonzero((x[some] == row).all(1))[0] for row in np.asarray(new.train.inputs)]
        assert found == pytest.approx(right[rows].mean(), abs=1e-6)
    with pytest.raises(
        ValueError, match="its head was trained for the classes red, green, blue, and the task has grey"
    ):
        mtl.transfer.adapt(run, [mtl.Task("color", "classification", classes=("grey", "red", "blue"))], load=everything)
    trunk = mtl.transfer.adapt(run, [mtl.Task("color", "classification", classes=("grey", "red"))])
    assert trunk.carried == () and trunk.model.tasks[0].classes == ("grey", "red")


def test_class_numbers_without_names_are_said(source):
    named = mtl.Task("color", "classification", classes=("a", "b", "c"))
    with pytest.warns(UserWarning, match="trained on class numbers without names, which are taken for 0 = a, 1 = b"):
        mtl.transfer.adapt(source, [named], load=((".*", True),))


def test_a_carried_head_keeps_its_scaler(source):
    far = dataclasses.replace(source.tasks[1], scaler=mtl.tasks.Scaler((1e6,), (10.0,)))
    adapted = mtl.transfer.adapt(source, [far], load=((".*", True),), freeze="shared/.*")
    assert adapted.model.tasks[0].scaler == source.tasks[1].scaler
    data = dataclasses.replace(tiny.data(), tasks=tuple(far if t.name == "price" else t for t in tiny.data().tasks))
    with pytest.warns(UserWarning, match="The model's is used: its head was trained with it"):
        run = tiny.fit(adapted, data, optimizer="sgd(learning_rate=0.0)", num_steps=5, eval_every=5)
    split = data.test
    np.testing.assert_array_equal(run.predict(split.inputs)["price"], source.predict(split.inputs)["price"])


def test_a_single_task_is_enough_and_other_inputs_are_refused_in_words(source):
    adapted = mtl.transfer.adapt(source, NEW[0])
    assert [t.name for t in adapted.model.tasks] == ["sold"]
    draw = np.random.default_rng(0)
    wider = mtl.data.from_arrays(draw.normal(size=(40, 7)), {"sold": draw.integers(0, 2, 40)}, kinds={"sold": "binary"})
    with pytest.raises(ValueError, match=r"the carried shared/.* has shape \(5, 8\).*need \(7, 8\); give inputs"):
        tiny.fit(adapted, wider)


def test_new_tasks_with_inputs_of_their_own_take_the_form_of_the_old_ones():
    """So that a run on inputs of each task's own is carried to tasks of other names."""
    old = mtl.PerTask({"a": np.zeros((2, 3)), "b": np.zeros((2, 5))})
    new = inputs_for([mtl.Task("c", "binary"), mtl.Task("b", "binary")], old)
    assert {t: new[t].shape for t in new} == {"c": (2, 3), "b": (2, 5)}
    assert inputs_for([mtl.Task("c", "binary")], old["a"]) is old["a"]

"""Whether a transfer paid: draws, pairing, differences against SciPy, forgetting, verdicts, and going on."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import mtl_jax as mtl
from mtl_jax import sharing, transfer
from mtl_jax.transfer.evaluation import Evaluation, few_shot, trainings, verdict

room = importlib.import_module("mtl_jax.transfer.evaluation.evaluate")
SCRATCH = trainings.SCRATCH
FEW = {"num_steps": 20, "steps_per_dispatch": 10, "eval_every": 10, "batch_size": 8}


def rows(seed, count=160):
    """Two classes and a number that follow from one direction of the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    z = x[:, 0] - x[:, 1]
    return x, {"sign": (z > 0).astype(int), "three": np.digitize(z, [-0.8, 0.8]), "size": z}


@pytest.fixture(scope="module")
def old():
    x, y = rows(0)
    return mtl.data.from_arrays(x, {"size": y["size"], "half": y["size"] / 2 + x[:, 2]}, val=0.2, test=0.2)


@pytest.fixture(scope="module")
def source(old):
    return mtl.fit(sharing.hard("mlp(features=(8,))", old.tasks), old, num_steps=60, learning_rate_factors=())


@pytest.fixture(scope="module")
def new():
    x, y = rows(1)
    kinds = {"sign": "binary", "three": "classification"}
    return mtl.data.from_arrays(x, {k: y[k] for k in kinds}, kinds=kinds, val=0.25, test=0.25)


@pytest.fixture(scope="module")
def found(source, new, old, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    how = {"shots": ("all", 2), "seeds": (0, 1), "old": old, "workdir": folder, **FEW}
    methods = ("probe(solver='ridge')", "full")
    return transfer.evaluate(source, new, methods, **how), {"methods": methods, **how}


# --- few labels -----------------------------------------------------------------------------------------------------
def test_so_many_labels_of_each_class_are_left(new):
    few, more = few_shot(new, 2, seed=3), few_shot(new, 5, seed=3)
    for task in new.tasks:
        for data, shots in ((few, 2), (more, 5)):
            for split in (data.train, data.val):
                labels = split.targets[task.name][split.masks[task.name]]
                assert (np.bincount(labels.astype(int)) == shots).all()
    for name in ("train", "val"):  # fewer are among more, and all were there
        rows = [{r.tobytes() for r in np.asarray(getattr(d, name).inputs)} for d in (few, more, new)]
        assert rows[0] < rows[1] < rows[2]
    np.testing.assert_array_equal(few.test.inputs, new.test.inputs)
    other = few_shot(new, 2, seed=4)
    assert {r.tobytes() for r in np.asarray(other.train.inputs)} != {r.tobytes() for r in np.asarray(few.train.inputs)}
    assert few_shot(new, 2, val=0).val is None
    with pytest.raises(ValueError, match="shots=0 must be a whole number of at least 1"):
        few_shot(new, 0)


def test_numbers_keep_so_many_labels_and_are_scaled_by_them(old):
    few = few_shot(old, 4, seed=0)
    for task in few.tasks:
        labels = few.train.targets[task.name][few.train.masks[task.name]]
        assert len(labels) == 4
        np.testing.assert_allclose(task.scaler.mean, labels.mean(), rtol=1e-5)


def test_tasks_with_rows_of_their_own_are_drawn_by_themselves():
    x, y = rows(2)
    own = {"sign": y["sign"], "three": y["three"]}
    inputs, kinds = mtl.PerTask(dict.fromkeys(own, x)), {"sign": "binary", "three": "classification"}
    data = mtl.data.from_arrays(inputs, own, kinds=kinds, val=0.25, test=0.25)
    few = few_shot(data, 3, seed=0)
    assert {t: len(v) for t, v in few.train.targets.items()} == {"sign": 6, "three": 9}


# --- trainings ------------------------------------------------------------------------------------------------------
def test_all_ways_are_trained_alike_and_paired(found, new):
    found, how = found
    assert found.shots == (2, "all") and set(found.trainings) == {*how["methods"], SCRATCH}
    assert all(len(runs) == 2 for by in found.trainings.values() for runs in by.values())
    full, probe = (found.trainings[w]["all"][0] for w in ("full", "probe(solver='ridge')"))
    assert full["trained"] == found.trainings[SCRATCH]["all"][0]["trained"] == 6 * 8 + 8 + 8 + 1 + 3 * 8 + 3
    assert probe["trained"] == 8 + 1 + 3 * 8 + 3


def test_differences_are_those_of_scipy(found, new):
    """The paired interval is that of scipy.stats.ttest_1samp."""
    found, _ = found
    tasks = [t for t in found.tasks if t.name == "three"]
    a, b = (np.array([r["test"]["three"]["accuracy"] for r in found.trainings[w]["all"]]) for w in ("full", SCRATCH))
    np.testing.assert_allclose(found.gains("full", "all", tasks), a - b)
    interval = stats.ttest_1samp(np.array([0.1, 0.3, 0.2]), 0).confidence_interval(0.95)
    np.testing.assert_allclose(verdict.bounds(np.array([0.1, 0.3, 0.2])), interval, rtol=1e-6)
    assert verdict.difference(np.array([0.1, 0.11, 0.12])).endswith("*")
    assert verdict.told_apart(np.array([-0.1, -0.11])) == -1 and verdict.told_apart(np.array([0.1, -0.1])) == 0
    assert verdict.difference(np.array([0.25])) == "+0.250"  # one seed has no interval
    assert verdict.difference(np.array([0.02, 0.02])) == "+0.020"  # nor have differences that do not scatter


def test_what_old_tasks_lose_is_nothing_where_the_trunk_stood_still(found, source):
    found, _ = found
    assert found.trainings["probe(solver='ridge')"]["all"][0]["forgetting"] == {"size": 0.0, "half": 0.0}
    assert any(v != 0 for v in found.trainings["full"]["all"][0]["forgetting"].values())
    assert found.trainings[SCRATCH]["all"][0]["forgetting"] is None


def test_it_goes_on_where_it_was_and_other_data_are_refused(found, source, new, monkeypatch):
    first, how = found
    monkeypatch.setattr(room, "measured", lambda *a, **k: pytest.fail("was trained again"))
    again = transfer.evaluate(source, new, **how)
    assert again.content()["trainings"] == first.content()["trainings"]
    json.dumps(again.content())
    x, y = rows(5)
    other = mtl.data.from_arrays(x, {k: y[k] for k in ("sign", "three")}, val=0.25, test=0.25,
                                 kinds={"sign": "binary", "three": "classification"})  # fmt: skip
    with pytest.raises(ValueError, match="holds a run of another config; it differs in"):
        transfer.evaluate(source, other, **how)
    spec = sharing.build("hard", mtl.encoders.build("mlp(features=(8,), activation='tanh')"), source.tasks)
    with pytest.raises(ValueError, match="differs in source.encoder"):
        transfer.evaluate(replace(source, model=spec), new, **how)


def test_old_data_are_there_at_every_number_of_labels(source, new, old, monkeypatch):
    """A method that asks for them does so whatever is measured; what is lost is measured with the most labels."""
    asked = []

    def measured(source, data, way, *, old, forgets, seed, **how):
        asked.append((None if way.method is None else way.method.name, old is not None, forgets))
        if way.method is not None and way.method.name == "full":
            raise FloatingPointError("step 3: loss of task 'sign' is nan")
        task = {"accuracy": 1.0, "auroc": 1.0}
        return {"test": {t.name: task for t in data.tasks}, "validation": 0.5, "forgetting": None, "trained": 1,
                "step_flops": None, "peak_bytes": None, "seconds": 1.0}  # fmt: skip

    monkeypatch.setattr(room, "measured", measured)
    monkeypatch.setattr(room.room, "NAMES", {n: room.room.NAMES[n] for n in ("full", "ewc", "prompt")})
    found = transfer.evaluate(source, new, "all", shots=(2, "all"), seeds=(0, 1), old=old, **FEW)
    assert asked == [("full", True, False), *[("ewc", True, f) if w else (None, True, False)
                     for f in (False, False, True, True) for w in (1, 0)]]  # fmt: skip
    assert set(found.refused) == {"prompt", "full"} and "is nan" in found.refused["full"]
    assert set(found.trainings) == {"ewc", SCRATCH}
    asked.clear()
    found = transfer.evaluate(source, new, ("ewc",), shots=(2,), seeds=(0,), old=replace(old, test=None), **FEW)
    assert asked == [("ewc", True, False), (None, True, False)]
    assert "what old tasks lose is not measured: the old data have no test split" in found.notes


def test_what_cannot_be_compared_is_refused_before_anything_trains(source, new, old, monkeypatch):
    monkeypatch.setattr(room, "measured", lambda *a, **k: pytest.fail("was trained"))
    for methods, more, match in (
        (("prompt",), {}, "prompt"),
        (("lora(rank=2)", "lora(rank=2)"), {}, "two methods are called 'lora"),
        (("full",), {"optimizer": "sgd"}, "optimizer is each training's own here"),
        (("full",), {"shots": (1, "some")}, "shots: 'some' must be a number of labels of each class, or \"all\""),
        (("full",), {"rates": (0,)}, "must be factors above 0"),
        (("full",), {"rates": (1, 3), "validation": 0}, "a rate is chosen on validation, and there is none"),
        (("full",), {"seeds": (0, 0)}, "trainings of one seed are one training"),
        (("full",), {"adapt": {"method": "lora"}}, "adapt: 'method' is set by the evaluation"),
        ({SCRATCH: "full"}, {}, "a method cannot be called 'from scratch'"),
    ):
        with pytest.raises(ValueError, match=match):
            transfer.evaluate(source, new, methods, **{**FEW, **more})
    with pytest.raises(ValueError, match="judging a transfer needs a test split"):
        transfer.evaluate(source, mtl.data.from_arrays(*rows(1), val=0.2, test=0), ("full",), **FEW)


# --- verdicts -------------------------------------------------------------------------------------------------------
def made(new, ways):
    """An evaluation of accuracies {way: {shots: [seeds]}}, validated by the same numbers."""
    task = new.tasks[1]
    found = Evaluation((task,), tuple(next(iter(ways.values()))), (0, 1, 2))
    for way, by in ways.items():
        for shots, values in by.items():
            for v in values:
                result = {"test": {task.name: {"accuracy": v}}, "validation": v, "forgetting": None, "trained": 1,
                          "step_flops": None, "peak_bytes": None, "seconds": 1.0}  # fmt: skip
                found.add(way, shots, result)
    return found


def test_a_verdict_says_what_a_skeptic_accepts(new):
    high, low, noisy = [0.8, 0.81, 0.79], [0.5, 0.52, 0.51], [0.3, 0.9, 0.6]
    found = made(new, {"full": {1: high, 5: low, "all": noisy}, "probe": {1: low, 5: low[::-1], "all": low},
                       SCRATCH: {1: low, 5: high, "all": [0.5, 0.6, 0.7]}})  # fmt: skip
    said = found.verdict().splitlines()
    assert said[0].startswith(
        "with 1 label of each class, full, which validation chose: accuracy 0.800 against 0.510 fr"
    )
    assert said[0].endswith("transfer paid") and said[1].endswith("transfer did harm")
    assert said[2].endswith("not told apart")
    assert said[3] == (
        "Transfer paid with 1; it was not told apart from training from scratch with all; it did harm with 5 labels of "
        "each class."
    )
    task, gap = found.gap("full", 5)
    assert task == "three"
    np.testing.assert_allclose(gap, np.array(high) - np.array(low))
    assert "! " not in found.table() and "forward transfer" in found.table()


def test_numbers_of_different_units_are_not_averaged():
    """Errors are divided by the best constant's: a thousandth of a large one does not outweigh a small one's ruin."""
    tasks = tuple(mtl.Task(t, "regression", size=1) for t in "ab")
    found = Evaluation(tasks, (1,), (0, 1, 2), constant={"a": {"mae": 1000.0}, "b": {"mae": 1.0}})
    for way, (a, b) in {"full": (1000.0, 0.9), SCRATCH: (1010.0, 0.1)}.items():
        for noise in (0.0, 0.01, 0.02):
            test = {"a": {"mae": a + noise}, "b": {"mae": b + noise * (way == "full")}}
            found.add(way, 1, {"test": test, "validation": 0.5, "forgetting": None, "trained": 1, "step_flops": None,
                               "peak_bytes": None, "seconds": 1.0})  # fmt: skip
    np.testing.assert_allclose(found.values("full", 1, tasks)[0], (1.0 + 0.9) / 2)
    assert found.verdict().splitlines()[0].endswith("transfer did harm") and found.gap("full", 1)[0] == "b"
    assert "1 label of each task" in found.verdict() and "mae over the best constant's" in found.table()


def test_the_figure_has_a_line_for_each_way(found, tmp_path):
    pytest.importorskip("matplotlib")
    found[0].plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000

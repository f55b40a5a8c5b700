"""Data sets from arrays: kinds read off the labels, missing labels, splits, scalers, and errors that name the row."""

import dataclasses

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.batch import PerTask, num_rows
from tests import tiny

X = np.arange(40, dtype=np.float64).reshape(20, 2)


def load(targets, **arguments):
    return mtl.data.from_arrays(X, targets, **{"val": 0.0, "test": 0.0, **arguments})


def test_kinds_are_read_off_the_labels():
    labels = {
        "flag": X[:, 0] > 20,
        "zero_one": (X[:, 0] > 20).astype(float),
        "digit": np.arange(20) % 4,
        "word": np.array(["b", "a", "", "c"] * 5),
        "price": X[:, 0] / 3,
        "pair": X,
        "tags": np.eye(20, 3),
    }
    tasks = {t.name: t for t in load(labels).tasks}
    assert {n: (t.kind, t.size) for n, t in tasks.items()} == {
        "flag": ("binary", None), "zero_one": ("binary", None), "digit": ("classification", 4),
        "word": ("classification", 3), "price": ("regression", None), "pair": ("regression", 2),
        "tags": ("multilabel", 3),
    }  # fmt: skip
    assert tasks["word"].classes == ("a", "b", "c")
    assert list(tasks) == list(labels)  # the order given is the order of tasks


def test_missing_labels_become_masks_that_hold_zero():
    price = X[:, 0].copy()
    price[3] = np.nan
    data = load({"price": price, "word": np.array(["b", None] * 10, object)}, masks={"price": np.arange(20) != 5})
    assert np.flatnonzero(~data.train.masks["price"]).tolist() == [3, 5]
    assert data.train.targets["price"][[3, 5]].tolist() == [0, 0]
    assert data.train.masks["word"].tolist() == [True, False] * 10
    tags = np.eye(20, 3)
    tags[0, 1] = np.nan
    assert load({"tags": tags}).train.masks["tags"].shape == (20, 3)


def test_splits_are_disjoint_and_seeded():
    def rows(seed):
        data = load({"a": X[:, 0]}, val=0.2, test=0.3, seed=seed)
        return [set(s.inputs[:, 0]) for s in (data.train, data.val, data.test)]

    train, val, test = rows(0)
    assert [len(s) for s in (train, val, test)] == [10, 4, 6]
    assert not train & val and not train & test and not val & test
    assert rows(0) == [train, val, test] and rows(1)[0] != train


def test_scalers_come_from_the_labelled_training_rows():
    price = X[:, 0].copy()
    price[::3] = np.nan
    data = load({"price": price}, val=0.25)
    there = data.train.targets["price"][data.train.masks["price"]]
    scaler = data.tasks[0].scaler
    np.testing.assert_allclose((scaler.mean[0], scaler.std[0]), (there.mean(), there.std()), rtol=1e-6)
    np.testing.assert_allclose(scaler.unscale(scaler.scale(there)), there, rtol=1e-5)


def test_a_split_of_ones_own():
    data = mtl.data.from_arrays(X, {"a": X[:, 0]}, val=(X[:3], {"a": X[:3, 0]}), test=0)
    assert num_rows(data.train) == 20 and num_rows(data.val) == 3 and data.test is None


def test_take_keeps_few_labels_and_refits_the_scaler():
    data = tiny.data()
    few = data.take(15, seed=1, val=4)
    assert num_rows(few.train) == 15 and num_rows(few.val) == 4 and num_rows(few.test) == num_rows(data.test)
    assert few.tasks[1].scaler != data.tasks[1].scaler
    with pytest.raises(ValueError, match="500 rows were asked for; there are 72"):
        data.take(500)


def test_inputs_of_each_tasks_own_are_split_apart():
    data = tiny.per_task_data()
    assert isinstance(data.train.inputs, PerTask)
    assert {t: num_rows(data.train, t) for t in ("a", "b")} == {"a": 36, "b": 54}
    assert set(data.select(["b"]).train.inputs) == {"b"}


def change(data, task, row, value):
    target = data.train.targets[task].copy()
    target[row] = value
    split = data.train._replace(targets={**data.train.targets, task: target})
    return dataclasses.replace(data, train=split)


def test_errors_name_task_split_row_and_value():
    data = load({"left": np.arange(20) % 10, "flag": np.arange(20) % 2.0, "price": X[:, 0]})
    check = mtl.data.dataset.check_dataset
    with pytest.raises(ValueError, match=r"task 'left': label 12 in row 7 of train is outside 0..9"):
        check(change(data, "left", 7, 12))
    with pytest.raises(ValueError, match="task 'flag': label 0.5 in row 2 of train is neither 0 nor 1"):
        check(change(data, "flag", 2, 0.5))
    with pytest.raises(ValueError, match="task 'price': label nan in row 4 of train is not finite"):
        check(change(data, "price", 4, np.nan))
    with pytest.raises(ValueError, match=r"targets of train are float64; classification takes integers \(int32\)"):
        floats = data.train._replace(targets={**data.train.targets, "left": np.zeros(20)})
        check(dataclasses.replace(data, train=floats))
    for amounts in (np.arange(len(X)) % 4 * 1000, np.arange(len(X)) - 1):
        with pytest.raises(ValueError, match="could be classes or amounts; give kinds={'left': 'regression'}, or"):
            load({"left": amounts})
        assert load({"left": amounts}, kinds={"left": "regression"}).tasks[0].kind == "regression"
    with pytest.raises(ValueError, match="label 0.5 in row 0 of train is float64; classification takes integers"):
        load({"left": X[:, 0] + 0.5}, kinds={"left": "classification"})
    with pytest.raises(ValueError, match="task 'a' has 3 labels for 20 rows"):
        load({"a": np.zeros(3)})
    with pytest.raises(ValueError, match="task 'a' has no label in train"):
        load({"a": np.full(20, np.nan)}, kinds={"a": "regression"})
    with pytest.raises(ValueError, match="inputs of train hold inf in row 1"):
        mtl.data.from_arrays(np.array([[0.0], [np.inf]]), {"a": np.arange(2.0)}, val=0, test=0)
    with pytest.raises(ValueError, match="unknown kind of task 'a': 'regresion'; did you mean 'regression'"):
        load({"a": X[:, 0]}, kinds={"a": "regresion"})
    with pytest.raises(ValueError, match="unknown task in kinds 'b'"):
        load({"a": X[:, 0]}, kinds={"b": "binary"})
    with pytest.raises(ValueError, match=r"the mask is float64 \(20,\); it must be bool"):
        load({"a": X[:, 0]}, masks={"a": np.ones(20)})
    with pytest.raises(ValueError, match=r"val \+ test = 1.2 leaves no rows"):
        load({"a": X[:, 0]}, val=0.6, test=0.6)
    with pytest.raises(ValueError, match="labels are text such as .*; regression takes numbers"):
        load({"a": np.array(["x"] * 20)}, kinds={"a": "regression"})


def test_nan_among_inputs_is_for_encoders_that_read_it():
    """A table with gaps trains with 'tabular'; another encoder's error names split, row and the way out."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = x.sum(1)
    x[4, 1] = np.nan
    data = mtl.data.from_arrays(x, {"y": y}, val=0, test=0)
    options = {"num_steps": 60, "batch_size": 20, "mesh": parallel.make_mesh(1), "optimizer": "adam(0.01)"}
    run = mtl.fit(mtl.sharing.hard(mtl.encoders.tabular(features=(8,)), data.tasks), data, **options)
    assert run.history[-1]["losses"]["y"] < run.history[0]["losses"]["y"] and np.isfinite(run.predict(x)["y"]).all()
    with pytest.raises(
        ValueError, match=r"inputs of train hold nan in row 4, column 1, and encoder mlp\(.*'tabular' reads nan"
    ):
        mtl.fit(mtl.sharing.hard(mtl.encoders.mlp(features=(8,)), data.tasks), data, **options)
    x[7, 0] = np.inf
    with pytest.raises(ValueError, match="inputs of train hold inf in row 7"):
        mtl.data.from_arrays(x, {"y": y}, val=0, test=0)

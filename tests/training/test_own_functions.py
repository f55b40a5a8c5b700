"""Losses and metrics that are Python functions: missed when a run is loaded, never replaced by others, given back."""

import dataclasses
import warnings

import jax.numpy as jnp
import pytest

import mtl_jax as mtl
from mtl_jax.metrics.base import mean_metric
from tests import tiny


def asymmetric(outputs, targets):
    return jnp.where(outputs > targets, 10.0, 1.0) * (outputs - targets) ** 2


def symmetric(outputs, targets):
    return (outputs - targets) ** 2


WITHIN = mean_metric("within_5", lambda outputs, targets: jnp.abs(outputs - targets) < 5, True)


@pytest.fixture(scope="module")
def data():
    changes = {"loss": asymmetric, "metrics": ("mae", WITHIN)}
    tasks = [dataclasses.replace(t, **changes) if t.name == "price" else t for t in tiny.data().tasks]
    return dataclasses.replace(tiny.data(), tasks=tuple(tasks))


@pytest.fixture(scope="module")
def run(data):
    return tiny.fit(tiny.model(data.tasks), data, num_steps=10)


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    run.save(folder)
    return folder


def loaded_without(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mtl.load_run(saved)


def test_what_is_missing_is_said_and_left_out(run, saved, data):
    with pytest.warns(UserWarning, match=r"task 'price': .*loss .*asymmetric and its metric within_5.*tasks=\[Task\('"):
        loaded = mtl.load_run(saved)
    found, whole = loaded.evaluate(data.test), run.evaluate(data.test)
    assert set(whole["price"]) == {"loss", "mae", "within_5"} and set(found["price"]) == {"mae"}
    assert found["price"]["mae"] == whole["price"]["mae"] and found["sold"] == whole["sold"]
    assert loaded.predict(data.test.inputs)["price"].shape == data.test.targets["price"].shape


def test_it_can_be_given_back(run, saved, data):
    loaded = mtl.load_run(saved, tasks=data.tasks)
    assert loaded.tasks == run.tasks and loaded.evaluate(data.test) == run.evaluate(data.test)
    again = loaded_without(saved)
    again.save(saved.parent / "again")  # what is missing stays known
    assert mtl.load_run(saved.parent / "again", tasks=data.tasks).tasks == run.tasks
    with pytest.warns(
        UserWarning, match="the loss given is .*symmetric, which is not the code that it was trained with"
    ):
        mtl.load_run(saved, tasks=[dataclasses.replace(data.tasks[1], loss=symmetric)])
    with pytest.raises(ValueError, match="unknown task to load 'prize'; did you mean 'price'"):
        mtl.load_run(saved, tasks=[mtl.Task("prize", "regression")])
    with pytest.raises(ValueError, match="task 'price' is regression of size None in the run, but binary"):
        mtl.load_run(saved, tasks=[mtl.Task("price", "binary")])


def test_the_kinds_own_loss_is_not_trained_on_in_its_place(saved, data):
    loaded = loaded_without(saved)
    with pytest.raises(ValueError, match="task 'price' was loaded without its loss, the Python function .*asymmetric"):
        tiny.fit(loaded.model)
    assert tiny.fit(loaded.model, data, num_steps=5, eval_every=5).tasks[1].loss is asymmetric

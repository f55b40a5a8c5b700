"""The best constants, against scikit-learn's dummy predictors, and labels that tell nothing."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

import mtl_jax as mtl
from mtl_jax.batch import Batch
from mtl_jax.training.constants import baseline_losses, constant_results, untold
from tests import tiny


def labels(split, task):
    mask = np.asarray(split.masks[task])
    return np.asarray(split.targets[task])[mask]


def test_the_constants_are_scikit_learns_dummies():
    data = tiny.data()
    found = constant_results(data.tasks, data.train, data.test)

    def fitted(dummy, task):
        train, test = labels(data.train, task), labels(data.test, task)
        return dummy.fit(np.zeros((len(train), 1)), train), test, np.zeros((len(test), 1))

    dummy, test, x = fitted(DummyClassifier(strategy="prior"), "color")
    expected = {"loss": metrics.log_loss(test, dummy.predict_proba(x), labels=[0, 1, 2]),
                "accuracy": metrics.accuracy_score(test, dummy.predict(x)),
                "macro_f1": metrics.f1_score(test, dummy.predict(x), average="macro")}  # fmt: skip
    assert found["color"] == pytest.approx(expected, rel=1e-5)
    dummy, test, x = fitted(DummyRegressor(), "price")
    expected = {"loss": metrics.mean_squared_error(test, dummy.predict(x)) / labels(data.train, "price").var(),
                "mae": metrics.mean_absolute_error(test, dummy.predict(x)),
                "rmse": metrics.root_mean_squared_error(test, dummy.predict(x)),
                "r2": metrics.r2_score(test, dummy.predict(x))}  # fmt: skip
    assert found["price"] == pytest.approx(expected, rel=1e-4)
    dummy, test, x = fitted(DummyClassifier(strategy="prior"), "sold")
    p = dummy.predict_proba(x)[:, 1]
    expected = {"loss": metrics.log_loss(test, p), "auroc": 0.5, "accuracy": metrics.accuracy_score(test, p > 0.5),
                "average_precision": metrics.average_precision_score(test, p)}  # fmt: skip
    assert found["sold"] == pytest.approx(expected, rel=1e-5)
    losses = baseline_losses(data.tasks, data.train, data.test)
    np.testing.assert_allclose(losses, [found[t.name]["loss"] for t in data.tasks], rtol=1e-6)


def test_inputs_and_rows_of_each_tasks_own():
    data = tiny.per_task_data()
    found = constant_results(data.tasks, data.train, data.test)
    expected = np.abs(data.test.targets["a"] - data.train.targets["a"].mean()).mean()
    assert found["a"]["mae"] == pytest.approx(expected, rel=1e-4) and found["b"]["auroc"] == 0.5


def test_what_was_compiled_for_equal_tasks_is_for_no_others():
    """Mean squared errors of the mean by hand, under scalers and losses of the same task that differ."""
    data = tiny.data().select(["price"])
    (task,), factor = data.tasks, [1.0]
    train, test = labels(data.train, "price"), labels(data.test, "price")
    error = ((test - train.mean()) ** 2).mean()

    def own(outputs, targets):
        return factor[0] * jnp.abs(outputs - targets)

    def found(**changed):
        return baseline_losses([dataclasses.replace(task, **changed)], data.train, data.test)[0]

    wide = dataclasses.replace(task.scaler, std=(2 * task.scaler.std[0],))
    for scaler in (task.scaler, wide, task.scaler):
        assert found(scaler=scaler) == pytest.approx(error / scaler.std[0] ** 2, rel=1e-4)
    once = found(loss=own)
    factor[0] = 3.0  # what a function of one's own reads may have changed
    assert found(loss=own) == pytest.approx(3 * once, rel=1e-5) and found(loss="mae") == pytest.approx(once, rel=1e-5)


@pytest.mark.parametrize("task, target, mask, why", [
    (mtl.Task("t", "regression"), [1.0, 2.0], [True, True], None),
    (mtl.Task("t", "regression"), [1.0, 2.0], [True, False], "every label is 1"),
    (mtl.Task("t", "regression"), [1e7, 1e7 + 1], [True, True], "every label is 1e+07"),
    (mtl.Task("t", "regression"), [1.0, 2.0], [False, False], "no labels"),
    (mtl.Task("t", "regression", 2), [[1.0, 2.0], [1.0, 2.0]], [True, True], "every label is the same"),
    (mtl.Task("t", "regression", 2), [[1.0, 2.0], [1.0, 3.0]], [True, True], None),
    (mtl.Task("t", "tagging", 3), [[0, 0, 2], [0, 0, 1]], [[True, True, False]] * 2, "every label is 0"),
    (mtl.Task("t", "tagging", 3), [[0, 1, 2], [0, 1, 2]], [[True, True, False]] * 2, None),
    (mtl.Task("t", "classification", classes=("x", "y")), [1, 1], [True, True], "every label is y"),
])  # fmt: skip
def test_labels_that_tell_nothing(task, target, mask, why):
    dtype = np.int32 if task.kind in ("tagging", "classification") else np.float32
    split = Batch(np.zeros((2, 1)), {"t": np.asarray(target, dtype)}, {"t": np.asarray(mask)})
    assert untold(task, split) == why


def test_labels_far_from_zero_tell_what_their_spread_tells():
    """Times in seconds that spread over minutes differ by far less than float32 rounds them, and still tell."""
    task = mtl.Task("t", "regression", scaler=mtl.tasks.Scaler((1.7e9,), (60.0,), (1.7e9,)))
    times = 1.7e9 + np.array([0.0, 60.0])
    split = Batch(np.zeros((2, 1)), {"t": times}, {"t": np.ones(2, bool)})
    assert untold(task, split) is None
    assert untold(task, split._replace(masks={"t": np.array([False, True])})) == "every label is 1.7e+09"

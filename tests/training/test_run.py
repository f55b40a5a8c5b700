"""A run predicts, evaluates, and comes back from disk as it was."""

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.sharing.model import forward
from tests import tiny


@pytest.fixture(scope="module")
def run():
    return tiny.fit(tiny.model(tiny.data().tasks, encoder=tiny.BATCH_NORM), num_steps=40)


@pytest.mark.smoke
def test_predictions_are_probabilities_and_own_units(run):
    """Against the model's outputs by hand: softmax, sigmoid, and mean + std * output."""
    x = tiny.data().test.inputs
    found = run.predict(x, batch_size=7)  # batches that do not divide the rows
    outputs, _, _ = forward(run.model, run.variables, mtl.Batch(jax.numpy.asarray(x), {}, {}))
    np.testing.assert_allclose(found["color"], jax.nn.softmax(outputs["color"]), atol=1e-5)
    np.testing.assert_allclose(found["sold"], jax.nn.sigmoid(outputs["sold"]), atol=1e-5)
    scaler = run.tasks[1].scaler
    np.testing.assert_allclose(found["price"], scaler.mean[0] + scaler.std[0] * outputs["price"], rtol=1e-4)
    assert abs(found["price"].mean() - 50) < 15


def test_evaluation_does_not_depend_on_the_batch_size(run):
    whole, parts = run.evaluate(tiny.data().test), run.evaluate(tiny.data().test, batch_size=5)
    for task, metrics in whole.items():
        for name, value in metrics.items():
            assert parts[task][name] == pytest.approx(value, rel=1e-4), (task, name)


@pytest.mark.smoke
def test_save_and_load(run, tmp_path):
    run.save(tmp_path / "a")
    run.save(tmp_path / "a")  # a saved run may be replaced
    loaded = mtl.load_run(tmp_path / "a")
    tiny.assert_same(loaded.variables, run.variables)
    assert loaded.tasks == run.tasks and loaded.history == run.history and loaded.model.spec == run.model.spec
    assert mtl.evaluate(loaded, tiny.data().test) == mtl.evaluate(run, tiny.data().test)


def test_save_does_not_touch_what_is_no_saved_run(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(FileExistsError, match="holds something other than a saved run"):
        run.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "four years of work"


def test_a_working_directory_loads_as_its_best(tmp_path):
    data = tiny.data()
    trained = tiny.fit(tiny.model(data.tasks), data, workdir=tmp_path)
    tiny.assert_same(mtl.load_run(tmp_path).variables, trained.variables)
    with pytest.raises(FileExistsError):
        trained.save(tmp_path)


def test_without_validation_data_the_last_variables_count(tmp_path):
    few = tiny.data().take(40)
    trained = tiny.fit(tiny.model(few.tasks), few, workdir=tmp_path)
    assert few.val is None
    tiny.assert_same(trained.variables, trained.state.variables)
    tiny.assert_same(mtl.load_run(tmp_path).variables, trained.variables)


def test_errors(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"inputs have the shapes inputs \(3, 4\); the model takes inputs \(rows, 5\)$"
    ):
        run.predict(np.zeros((3, 4), np.float32))
    with pytest.raises(FileNotFoundError, match="holds no run: there is no .*data.json"):
        mtl.load_run(tmp_path / "nothing")
    with pytest.raises(ValueError, match="the split has no targets of task 'price'"):
        split = tiny.data().test
        run.evaluate(split._replace(targets={t: y for t, y in split.targets.items() if t != "price"}))
    run.save(tmp_path / "cut")
    (tmp_path / "cut" / "data.json").write_text('{"tasks": [')
    with pytest.raises(ValueError, match="data.json is not valid JSON"):
        mtl.load_run(tmp_path / "cut")

"""A run predicts, evaluates, and comes back from disk as it was."""

import dataclasses

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.model import forward
from mtl_jax.training import saved_folder
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


def test_the_name_of_a_split_is_no_split(run):
    for method in (run.evaluate, run.calibrate):
        with pytest.raises(ValueError, match="the split is the text 'test'; give the split itself: data.test"):
            method("test")


def test_save_does_not_touch_what_is_no_saved_run(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("four years of work")
    with pytest.raises(FileExistsError, match="holds something other than a saved run"):
        run.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "four years of work"
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "identity.json").touch()
    with pytest.raises(FileExistsError, match="run is the workdir of a fit.* save to another directory"):
        run.save(tmp_path / "run")


def test_save_removes_nothing_that_it_did_not_make(run, tmp_path):
    """Not a draft's name, nor what lies within a saved run, nor the drafts of one that broke off."""
    (tmp_path / "a.tmp").mkdir()
    (tmp_path / "a.tmp" / "thesis.txt").write_text("mine")
    run.save(tmp_path / "a")
    for mine in ("thesis.txt", "checkpoints/notes.txt", f"checkpoints/{run.steps}/thesis.txt"):
        (tmp_path / "a" / mine).write_text("mine")
        with pytest.raises(FileExistsError, match=f"a holds {mine} beside the saved run; move it away"):
            run.save(tmp_path / "a")
        (tmp_path / "a" / mine).unlink()
    (tmp_path / "a" / "plots").mkdir()
    with pytest.raises(FileExistsError, match="a holds plots beside the saved run"):
        run.save(tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.tmp"]
    assert (tmp_path / "a.tmp" / "thesis.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_run_that_was_there(run, tmp_path, monkeypatch):
    run.save(tmp_path / "a")
    broken = dataclasses.replace(run, history=[*run.history, {"step": object()}])
    with pytest.raises(TypeError):
        broken.save(tmp_path / "a")
    tiny.assert_same(mtl.load_run(tmp_path / "a").variables, run.variables)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_save_to_links_home_and_urls(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run.save("~/runs/a")
    tiny.assert_same(mtl.load_run("~/runs/a").variables, run.variables)
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):  # to where there is nothing yet, and over a saved run
        run.save("link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "saved.json").exists()
    for call in (run.save, mtl.load_run):
        with pytest.raises(ValueError, match="'gs://bucket/run' is a URL"):
            call("gs://bucket/run")
        (tmp_path / "file").write_text("mine")
        with pytest.raises(NotADirectoryError, match="cannot be a folder: file is a file"):
            call("file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "home", "link", "real"]


def test_a_saved_run_of_an_earlier_version_may_be_replaced(run, tmp_path):
    """Its mark names no files."""
    run.save(tmp_path / "a")
    (tmp_path / "a" / "saved.json").write_text('{"by": "mtl_jax 0.1.0"}')
    (tmp_path / "a" / "identity.json").unlink()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="a holds thesis.txt beside"):
        run.save(tmp_path / "a")
    (tmp_path / "a" / "thesis.txt").unlink()
    run.save(tmp_path / "a")


def test_two_that_save_to_one_place(run, tmp_path):
    """Both are whole; the last one stays."""
    with saved_folder.replaced(tmp_path / "a") as draft:
        run.save(tmp_path / "a")
        (draft / "of_the_second").touch()
    assert (tmp_path / "a" / "of_the_second").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


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

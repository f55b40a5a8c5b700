"""The programs on a table: predictions beside rows, evaluation on another file, and a file that has changed."""

import dataclasses
import sys

import numpy as np
import polars
import pytest

import mtl_jax as mtl
from experiments import predict, trees
from mtl_jax import files, parallel
from mtl_jax.data.tables import Encoding, read_table
from mtl_jax.data.tables.predictions import with_points
from mtl_jax.training import fallback
from tests.experiments.test_programs import run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, data, run) of a run on a table, saved in folder/run."""
    folder = tmp_path_factory.mktemp("table")
    draw = np.random.default_rng(0)
    area = draw.uniform(20, 120, 120)
    sold = np.where(area > 70, "yes", "no")
    lines = [f"{a:.1f};{c};{3 * a:.1f};{s}\n" for a, c, s in zip(area, ["Ulm", "Bonn"] * 60, sold, strict=True)]
    (folder / "homes.csv").write_text("area;city;price;sold\n" + "".join(lines))
    data = mtl.data.from_csv(folder / "homes.csv", ["price", "sold"], inputs=["area", "city"])
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(8,)), data.tasks)
    trained = mtl.fit(model, data, num_steps=20, batch_size=16, mesh=parallel.make_mesh(1), progress=False)
    trained.save(folder / "run")
    return folder, data, trained


def test_predictions_are_written_beside_the_rows(saved):
    folder, _, trained = saved
    (folder / "new.csv").write_text("id,city,area\n007,Ulm,30.5\n008,Paris,100\n")
    flags = [f"--workdir={folder / 'run'}", f"--csv={folder / 'new.csv'}"]
    done = run("predict", *flags, f"--out={folder / 'out.csv'}")
    assert done.returncode == 0, done.stderr
    assert "column 'city': 1 of 2 rows have values that training rows did not have (Paris)" in done.stdout
    found = polars.read_csv(folder / "out.csv", schema_overrides={"id": polars.String})
    assert found.columns == ["id", "city", "area", "price_predicted", "sold_predicted", "sold_p_no", "sold_p_yes"]
    assert found["id"].to_list() == ["007", "008"]
    right = trained.predict([{"area": 30.5, "city": "Ulm"}, {"area": 100, "city": "Paris"}])
    np.testing.assert_allclose(found["price_predicted"], right["price"], rtol=1e-5)
    np.testing.assert_allclose(found["sold_p_yes"], right["sold"], rtol=1e-5)
    assert "without intervals: the run is not calibrated (let experiments.train finish" in done.stdout
    written = (folder / "out.csv").read_bytes()
    done = run("predict", *flags, f"--out={folder / 'out.csv'}")
    assert done.returncode == 1 and "is there already; name another file, or say --overwrite" in done.stderr
    assert (folder / "out.csv").read_bytes() == written
    done = run("predict", *flags, f"--out={folder / 'nowhere' / 'out.csv'}")
    assert done.returncode == 1 and done.stderr.startswith("error: there is no folder") and done.stderr.count("\n") == 1


def test_the_file_that_is_read_is_never_written(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("a\n1\n")
    (tmp_path / "link.csv").symlink_to(path)
    for out in (path, tmp_path / "link.csv"):
        with pytest.raises(ValueError, match="is the file of --csv"):
            predict.check_out(out, path, overwrite=True)
    (tmp_path / "out.csv").touch()
    predict.check_out(tmp_path / "out.csv", path, overwrite=True)


def test_numbers_with_a_decimal_comma_are_written_with_points(tmp_path):
    # Of "pages", 1.250 is a number in Germany; "note" holds commas and is no number.
    (tmp_path / "new.csv").write_text("area;pages;note\n30,50;1.250,0;a,b\n;12,5;1,5 x\n-;7,25;2,0\n")
    table = read_table(tmp_path / "new.csv")
    known = Encoding(())
    found = {name: cells.to_list() for name, cells in with_points(table, known).items()}
    assert found["pages"] == ["1250.0", "12.5", "7.25"] and found["note"] == ["a,b", "1,5 x", "2,0"]
    assert found["area"][0] == "30.50" and found["area"][2] == "-"


def test_a_table_trains_with_the_encoder_and_options_chosen_for_tables(saved):
    folder, data, _ = saved
    config = f"--config=experiments/configs/table.py:{folder / 'homes.csv'},price,sold"
    flags = ["--config.num_steps=40", "--config.encoder=for_table(members=2, features=(4,))"]
    done = run("train", config, *flags, f"--workdir={folder / 'trained'}")
    assert done.returncode == 0, done.stderr
    options = mtl.training.options_for_table(data)
    found = files.read_json(folder / "trained/config.json")
    assert found["batch_size"] == options["batch_size"] and found["patience"] == options["patience"]
    trained = mtl.load_run(folder / "trained")
    assert trained.model.encoder.spec.endswith("features=(4,), members=2)")
    summary = files.read_json(folder / "trained/summary.json")
    assert found["fallback"] and trained.fallback.content() == summary["fallback"]
    assert all(line in done.stdout for line in trained.fallback.lines(trained.tasks))
    assert summary["beside_trees"]["sentences"][0] in done.stdout and "boosted trees are " in done.stdout
    assert {r["task"] for r in summary["beside_trees"]["rows"]} == {"price", "sold"}
    done = run("train", "--config=experiments/configs/table.py", f"--workdir={folder / 'other'}")
    assert done.returncode == 2 and "needs a file and the columns to predict" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_why_trees_were_not_tried_is_one_line(saved, capsys, monkeypatch):
    _, data, trained = saved
    monkeypatch.setattr(trees, "LABELS", 100)
    assert trees.tried(trained, data) is None
    assert capsys.readouterr().out == (
        "trees were not tried: 84 rows x 2 tasks are more than 100; in Python mtl.analysis.beside_trees(run, data) "
        "does it\n"
    )
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert trees.tried(trained, data) is None
    assert capsys.readouterr().out == (
        "trees were not tried: comparing with trees needs scikit-learn: pip install 'mtl_jax[trees]'\n"
    )


def test_a_constant_is_said_beside_predictions_and_metrics(saved):
    """Of a run whose validation vouches for nothing: in words, in the file, and in its metrics."""
    folder, data, trained = saved
    verdict = fallback.Verdict(0.0, -0.2, 0.1, 18)
    constants = {"price": np.float32(0.0), "sold": np.float32(0.0)}
    fixed = dataclasses.replace(
        trained, fallback=fallback.Fallback({"price": (verdict,), "sold": (fallback.Verdict(1.0),)}, constants)
    )
    fixed.save(folder / "fixed")
    (folder / "rows.csv").write_text("city,area\nUlm,30\nBonn,100\n")
    done = run("predict", f"--workdir={folder / 'fixed'}", f"--csv={folder / 'rows.csv'}", f"--out={folder / 'o.csv'}")
    said = (
        "task 'price': no better than the best constant on validation (score -0.20, standard error 0.10 over 18 rows)"
    )
    assert done.returncode == 0 and said in done.stdout and "task 'sold': no better" not in done.stdout
    mean = data.train.targets["price"].mean()
    np.testing.assert_allclose(polars.read_csv(folder / "o.csv")["price_predicted"], mean, rtol=1e-5)
    done = run("evaluate", f"--workdir={folder / 'fixed'}")
    assert done.returncode == 0 and said in done.stdout


def test_evaluation_says_that_the_file_has_changed_and_takes_another(saved):
    folder, data, trained = saved
    path, workdir = folder / "homes.csv", f"--workdir={folder / 'run'}"
    before = path.read_text()
    (folder / "later.csv").write_text(before)
    path.write_text(before + "500,Ulm,1500,yes\n".replace(",", ";"))
    try:
        done = run("evaluate", workdir)
        assert (
            done.returncode == 1
            and "homes.csv has changed since the run was trained on it (it had 120 rows)" in done.stderr
        )
        done = run("evaluate", workdir, f"--csv={folder / 'later.csv'}", f"--output={folder / 'metrics.json'}")
        assert done.returncode == 0, done.stderr
        found = files.read_json(folder / "metrics.json")
        np.testing.assert_allclose(
            found["price"]["mae"], trained.evaluate(folder / "later.csv")["price"]["mae"], rtol=1e-5
        )
    finally:
        path.write_text(before)

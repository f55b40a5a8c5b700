"""The programs on a table: predictions beside rows, evaluation on another file, and a file that has changed."""

import numpy as np
import polars
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.training import records
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
    done = run("predict", *flags, f"--out={folder / 'nowhere' / 'out.csv'}")
    assert done.returncode == 1 and done.stderr.startswith("error: there is no folder") and done.stderr.count("\n") == 1


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
        found = records.read_json(folder / "metrics.json")
        np.testing.assert_allclose(
            found["price"]["mae"], trained.evaluate(folder / "later.csv")["price"]["mae"], rtol=1e-5
        )
    finally:
        path.write_text(before)

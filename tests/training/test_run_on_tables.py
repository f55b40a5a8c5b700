"""A run keeps how its table was encoded: predict and evaluate on files, frames and dicts, saved and loaded."""

import numpy as np
import pandas
import polars
import pytest

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.data.tables.predictions import beside

CITIES = {"Aalen": 0, "Bonn": 300, "Kiel": 100, "Zwickau": 500}


def write(path, rows, low, high, cities, seed=0):
    draw = np.random.default_rng(seed)
    area, city = draw.uniform(low, high, rows), draw.choice(cities, rows)
    price = [3 * a + CITIES[c] for a, c in zip(area, city, strict=True)]
    sold = np.where(area + draw.normal(size=rows) > (low + high) / 2, "yes", "no")
    lines = (f"{a:.2f},{c},{p:.1f},{s}\n" for a, c, p, s in zip(area, city, price, sold, strict=True))
    path.write_text("area,city,price,sold\n" + "".join(lines))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    path = write(folder / "old.csv", 400, 50, 150, ["Aalen", "Bonn", "Kiel"])
    data = mtl.data.from_csv(path, ["price", "sold"])
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(32,)), data.tasks)
    run = mtl.fit(model, data, num_steps=600, batch_size=64, optimizer="adam(0.01)", mesh=parallel.make_mesh(1),
                  progress=False)  # fmt: skip
    run.save(folder / "run")
    return folder, data, run


def test_a_loaded_run_reads_rows_in_their_own_units(trained):
    folder, data, run = trained
    loaded = mtl.load_run(folder / "run")
    assert loaded.columns == data.columns and (folder / "run" / "columns.json").exists()
    new = write(folder / "new.csv", 30, 50, 150, ["Aalen", "Bonn"], seed=1)
    frame = pandas.read_csv(new)
    right = run.predict(data.columns.encode(new))
    assert np.abs(right["price"] - frame["price"]).mean() < 30
    for rows in (new, str(new), frame[["city", "area"]], frame.to_dict("list"), frame.to_dict("records")):
        found = loaded.predict(rows)
        for task in ("price", "sold"):
            np.testing.assert_allclose(found[task], right[task], rtol=1e-5)
    one = loaded.predict({"area": 100, "city": "Ulm"})  # one row, and a city that is unknown
    assert one["price"].shape == (1,) and np.isfinite(one["price"]).all()
    with pytest.warns(UserWarning, match="30 of 30 rows have values of column 'city' .* such as 'Wien'"):
        loaded.predict(frame.assign(city="Wien"))
    with pytest.raises(ValueError, match="no column 'city'"):
        loaded.predict(frame[["area"]])


def test_evaluation_on_a_file_is_by_the_training_encoding_and_class_names(trained):
    folder, data, run = trained
    new = write(folder / "later.csv", 80, 100, 150, ["Bonn"], seed=2)
    found, rows = run.evaluate(new), pandas.read_csv(new)
    error = run.predict(new)["price"] - rows["price"].to_numpy()
    np.testing.assert_allclose(found["price"]["mae"], np.abs(error).mean(), rtol=1e-4)
    right = (run.predict(new)["sold"] >= 0.5) == (rows["sold"] == "yes")
    np.testing.assert_allclose(found["sold"]["accuracy"], right.mean(), rtol=1e-6)
    same = rows.assign(sold=rows["sold"].str.upper())  # bools in another spelling, and one with a gap
    same.loc[0, "sold"] = None
    np.testing.assert_allclose(run.evaluate(same)["sold"]["accuracy"], right[1:].mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="label of task 'sold' in row 3 .* 'perhaps'"):
        odd = rows.copy()
        odd.loc[3, "sold"] = "perhaps"
        run.evaluate(odd)
    with pytest.raises(ValueError, match="no column 'sold', a target"):
        run.evaluate(rows.drop(columns="sold"))


def test_rows_unlike_those_of_training_are_said(trained):
    """What lacks a value that training rows never lacked, lies far beyond them, or is called otherwise in one row."""
    folder, _, run = trained
    frame = pandas.read_csv(folder / "old.csv").head(8)
    with pytest.warns(UserWarning, match=r"column 'area' lacks a value in 2 of 8 rows \(so do 'city'\), and never"):
        run.predict(frame.assign(area=[None, None] + [70.0] * 6, city=[None] + ["Bonn"] * 7))
    for value in (1e9, -2000):
        with pytest.warns(
            UserWarning, match=r"far beyond .*: column 'area' holds \S+ \(in training 50.* to 1"
        ) as caught:
            run.predict(frame.assign(area=value))
        assert len(caught) == 1
    run.predict(frame.assign(area=1000))  # not that far
    rows = frame[["area", "city"]].to_dict("records")
    rows[3]["areaa"] = rows[3].pop("area")
    with pytest.warns(UserWarning) as caught:
        run.predict(rows)
    said = [str(w.message) for w in caught]
    assert len(said) == 2 and "column 'area' lacks" in said[1]
    assert "row 3 has no 'area', which other rows have, but has 'areaa' (mistyped?); it is read as missing" in said[0]
    for series in (frame["area"], polars.Series("area", [1.0]), frame.iloc[0]):
        with pytest.raises(
            ValueError, match=r"a Series is one column or one row .*; give \{column: values\}, or a data"
        ):
            run.predict(series)


def test_evaluation_says_what_labels_are_not_there(trained):
    folder, _, run = trained
    frame = pandas.read_csv(folder / "old.csv").head(20)
    with pytest.warns(UserWarning, match="no labels of 'sold' in the table; what is measured of it is nan"):
        found = run.evaluate(frame.assign(sold=None))
    assert np.isfinite(found["price"]["mae"])
    frame.loc[:4, "price"] = -999
    with pytest.raises(ValueError, match=r"label -999 of task 'price' is there 5 times, .* leave these cells empty"):
        run.evaluate(frame)


def test_rows_in_other_units_are_refused_or_encoded_as_the_old_ones(trained):
    folder, data, run = trained
    path = write(folder / "other.csv", 100, 120, 150, ["Bonn", "Kiel", "Zwickau"], seed=3)
    other = mtl.data.from_csv(path, ["price", "sold"])
    with pytest.raises(
        ValueError, match="encoded otherwise .* column 'city' has the categories Bonn, Kiel, Zwickau inst"
    ):
        run.evaluate(other.test)
    with pytest.raises(ValueError, match="encoded otherwise"):
        run.evaluate(other.select(["price", "sold"]).take(20).train)
    run.evaluate(data.test)
    alike = mtl.data.from_csv(path, ["price", "sold"], columns=run.columns)
    np.testing.assert_array_equal(alike.columns.encode(path), data.columns.encode(path))
    assert run.evaluate(alike.test)["price"]["mae"] < 150
    new = mtl.transfer.adapt(run, other.tasks, freeze="shared/.*")
    options = {"num_steps": 2, "batch_size": 16, "mesh": parallel.make_mesh(1), "progress": False}
    with pytest.warns(UserWarning, match="is encoded otherwise than the table that the carried variables"):
        mtl.fit(new, other, **options)
    mtl.fit(new, alike, **options)


def test_codes_need_an_encoder_that_reads_them(tmp_path):
    names = [f"c{i}" for i in range(100)]
    draw = np.random.default_rng(0)
    frame = {"city": draw.choice(names, 300).tolist(), "x": draw.normal(size=300), "y": draw.normal(size=300)}
    data = mtl.data.from_dataframe(frame, ["y"])
    plain = mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), data.tasks)
    for call in (mtl.describe, mtl.fit):
        with pytest.raises(ValueError, match=r"categories as codes, .* mlp\(.* mtl.encoders.for_table\(data\), or say"):
            call(plain, data)
    encoder = mtl.encoders.tabular(features=(4,), cardinalities=data.columns.cardinalities)
    run = mtl.fit(mtl.sharing.hard(encoder, data.tasks), data, num_steps=2, batch_size=16, mesh=parallel.make_mesh(1),
                  progress=False)  # fmt: skip
    run.save(tmp_path / "run")
    rows = {"city": ["c3", "nowhere"], "x": [0.0, np.nan]}
    with pytest.warns(UserWarning, match="column 'x' lacks a value in 1 of 2 rows, and never did in training"):
        found = run.predict(rows)["y"]
    with pytest.warns(UserWarning, match="column 'x' lacks a value"):
        np.testing.assert_allclose(mtl.load_run(tmp_path / "run").predict(rows)["y"], found, rtol=1e-5)
    with pytest.raises(ValueError, match="not trained on a table"):
        arrays = mtl.data.from_arrays(np.zeros((40, 2)), {"y": draw.normal(size=40)}, val=0, test=0)
        model = mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), arrays.tasks)
        mtl.fit(model, arrays, num_steps=1, batch_size=8, mesh=parallel.make_mesh(1), progress=False).predict("a.csv")


def test_a_changed_file_is_another_run(trained, tmp_path):
    path = write(tmp_path / "a.csv", 60, 50, 150, ["Aalen", "Bonn"])
    options = {"batch_size": 16, "mesh": parallel.make_mesh(1), "progress": False, "workdir": tmp_path / "run",
               "eval_every": 2, "steps_per_dispatch": 2, "checkpoint_every": 2, "log_every": 2}  # fmt: skip

    def fit(steps):
        data = mtl.data.from_csv(path, ["price"], inputs=["area"])
        model = mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), data.tasks)
        return mtl.fit(model, data, num_steps=steps, **options)

    assert fit(2).columns.source["rows"] == 60
    write(path, 80, 50, 150, ["Aalen", "Bonn"])
    with pytest.raises(ValueError, match="run on another file: .*a.csv has changed since, from 60 to 80 rows"):
        fit(4)


def test_predictions_are_named_columns():
    tasks = (
        mtl.Task("a", "regression"), mtl.Task("b", "binary", classes=("no", "yes")),
        mtl.Task("c", "classification", classes=("x", "y")), mtl.Task("q", "quantile", quantiles=(0.1, 0.9)),
    )  # fmt: skip
    found = beside(
        {"row": [1, 2]}, tasks,
        {"a": np.array([1.5, 2.5]), "b": np.array([0.2, 0.8]), "c": np.array([[0.9, 0.1], [0.3, 0.7]]),
         "q": np.array([[0.0, 1.0], [2.0, 3.0]])},
    )  # fmt: skip
    assert found.columns == ["row", "a_predicted", "b_predicted", "b_p_no", "b_p_yes", "c_predicted", "c_p_x", "c_p_y",
                             "q_q0.1", "q_q0.9"]  # fmt: skip
    assert found["b_predicted"].to_list() == ["no", "yes"] and found["c_predicted"].to_list() == ["x", "y"]
    with pytest.raises(ValueError, match="a column 'a_predicted' already"):
        beside({"a_predicted": [1]}, tasks[:1], {"a": np.zeros(1)})


def test_rows_of_a_file_count_by_their_weights_in_evaluation_and_calibration(tmp_path):
    draw = np.random.default_rng(0)
    x, weight = draw.normal(size=120), np.repeat([0.0, 1.0], 60)
    frame = pandas.DataFrame({"x": x, "y": np.where(weight > 0, x, 50 * draw.normal(size=120)), "w": weight})
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "a.csv", index=False)
    data = mtl.data.from_csv(tmp_path / "a.csv", "y", weights="w")
    run = mtl.fit(mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), data.tasks), data, num_steps=5,
                  mesh=parallel.make_mesh(1), progress=False)  # fmt: skip
    counted = frame[frame.w > 0]
    found, right = run.evaluate(tmp_path / "a.csv")["y"]["mae"], run.predict(counted[["x"]])["y"] - counted.y
    assert found == pytest.approx(np.abs(right).mean(), rel=1e-4)
    with pytest.warns(UserWarning, match="the rows that the run was trained on"):
        made = run.calibrate(tmp_path / "a.csv")
    width = [np.ptp(r.intervals({"x": [0.0]})["y"]) for r in (made, run.calibrate(counted))]
    assert width[0] == pytest.approx(width[1], rel=1e-5)
    with pytest.warns(UserWarning, match="no column 'w'.*all rows count alike"):
        assert run.evaluate(frame.drop(columns="w"))["y"]["mae"] > 5 * found

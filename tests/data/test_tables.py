"""CSV files and data frames: missing cells, categories and numbers, and errors that name file, line and column."""

import gzip
import re

import numpy as np
import pandas
import pytest

import mtl_jax as mtl

TEXT = """area,city,rooms,price,sold,kind
50,Bonn,2,100,1,flat
,Köln,3,150,0,house
70,,1,,1,flat
90,Bonn,2,210,,
60,Trier,3,180,0,house
40,Köln,1,90,1,flat
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "homes.csv").write_text(TEXT, encoding="utf-8")
    return tmp_path / "homes.csv"


def test_columns_become_tasks_and_inputs(path):
    data = mtl.data.from_csv(path, targets=["price", "sold", "kind"], val=0, test=0)
    assert [(t.name, t.kind) for t in data.tasks] == [
        ("price", "regression"), ("sold", "binary"), ("kind", "binary")
    ]  # fmt: skip
    assert data.tasks[2].classes == ("flat", "house")
    assert {t: np.flatnonzero(~m).tolist() for t, m in data.train.masks.items()} == {
        "price": [2], "sold": [3], "kind": [3]
    }  # fmt: skip
    assert data.columns.names == ("area", "area is missing", "rooms", "city=Bonn", "city=Köln", "city=Trier")
    area = np.array([50, np.nan, 70, 90, 60, 40])
    scaled = (area - np.nanmean(area)) / np.nanstd(area)
    np.testing.assert_allclose(data.train.inputs[:, 0], np.nan_to_num(scaled), rtol=1e-5)
    assert data.train.inputs[:, 1].tolist() == [0, 1, 0, 0, 0, 0]
    assert data.train.inputs[2, 3:].tolist() == [0, 0, 0]  # a missing category is none of the known ones


def test_new_rows_are_encoded_as_training_was(path):
    data = mtl.data.from_csv(path, targets=["price"], inputs=["area", "city"], val=0, test=0)
    columns = {"area": np.array([50.0, np.nan]), "city": np.array(["Bonn", "Aachen"], object)}
    encoded = data.columns.encode(columns)
    np.testing.assert_array_equal(encoded[0], data.train.inputs[0])
    assert encoded[1].tolist() == [0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="no column 'city'; columns are area"):
        data.columns.encode({"area": np.zeros(1)})


def test_the_call_is_recorded_and_loads_the_same(path):
    data = mtl.data.from_csv(path, targets=["price"], val=0.2, test=0.2, seed=3)
    again = mtl.data.load(data.spec)
    np.testing.assert_array_equal(again.train.inputs, data.train.inputs)
    assert again.tasks == data.tasks


def test_kinds_override(path):
    data = mtl.data.from_csv(path, targets=["rooms"], kinds={"rooms": "classification"}, val=0, test=0)
    assert data.tasks[0].classes == ("1", "2", "3") and data.train.targets["rooms"].tolist() == [1, 2, 0, 1, 2, 0]


def test_a_data_frame_is_read_alike(path):
    frame = pandas.read_csv(path)
    given = {"targets": ["price", "sold", "kind"], "val": 0, "test": 0}
    one, other = mtl.data.from_dataframe(frame, **given), mtl.data.from_csv(path, **given)
    np.testing.assert_array_equal(one.train.inputs, other.train.inputs)
    assert one.tasks == other.tasks
    for task in ("price", "sold", "kind"):
        np.testing.assert_array_equal(one.train.targets[task], other.train.targets[task])
        np.testing.assert_array_equal(one.train.masks[task], other.train.masks[task])


def test_errors_name_file_line_and_column(path, tmp_path):
    def loading(content, name="bad.csv", **arguments):
        bad = tmp_path / name
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
        return mtl.data.from_csv(bad, **{"targets": ["b"], **arguments})

    with pytest.raises(ValueError, match="homes.csv: no column 'prize'; columns are area, city, rooms, price, sold"):
        mtl.data.from_csv(path, targets=["prize"])
    with pytest.raises(ValueError, match="column 'price' is both a target and an input"):
        mtl.data.from_csv(path, targets=["price"], inputs=["price", "area"])
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.csv"):
        mtl.data.from_csv(tmp_path / "nothing.csv", targets=["b"])
    with pytest.raises(ValueError, match="bad.csv, line 3: 3 cells, but the header has 2"):
        loading("a,b\n1,2\n1,2,3\n")
    with pytest.raises(ValueError, match="bad.csv, line 1: column 'a' is there twice"):
        loading("a,a\n1,2\n")
    with pytest.raises(ValueError, match="bad.csv is empty"):
        loading("")
    with pytest.raises(ValueError, match="bad.csv has a header but no rows"):
        loading("a,b\n")
    with pytest.warns(UserWarning, match=r"bad.csv, line 2 is not UTF-8 text; the file is read as cp1252.*ÿ,1"):
        assert loading(b"a,b\n\xff,1\nb,0\n", val=0, test=0).columns.categories["a"] == ("b", "ÿ")
    packed = gzip.compress(b"a,b\n" + b"1,2\n3,5\n1,5\n" * 300)
    assert mtl.data.from_csv.__name__ and loading(packed, "good.csv.gz", kinds={"b": "regression"}).test is not None
    with pytest.raises(ValueError, match="cut.csv.gz is truncated or damaged"):
        loading(packed[:-10], "cut.csv.gz")
    with pytest.raises(ValueError, match="column 'a' has no value in train"):
        loading("a,b\n,1\n,2\n", val=0, test=0)


def test_a_column_of_one_value_in_train_is_no_input():
    """Whether asked for or not: no weight of it would be trained, and new rows need not have it."""
    draw = np.random.default_rng(0)
    frame = {"a": draw.normal(size=30), "same": np.full(30, 0.1), "y": draw.normal(size=30)}
    for inputs in (None, ["a", "same"]):
        with pytest.warns(UserWarning, match="'same' has one value in train, 0.1, and is left out"):
            data = mtl.data.from_dataframe(frame, targets="y", inputs=inputs)
        assert data.columns.names == ("a",) and data.columns.encode({"a": [1.0]}).shape == (1, 1)
        assert {r.name: r.role for r in data.columns.table}["same"] == "left out"
    with pytest.raises(ValueError, match="no column is left for inputs; input column 'same' has one value"):
        mtl.data.from_dataframe(frame, targets="y", inputs=["same"])


def test_what_splits_and_weighs_is_in_the_printed_table():
    """And a guess at the order of day and month is said where the order of rows hangs on it."""
    draw = np.random.default_rng(0)
    days = [f"{a:02d}/{b:02d}/2024" for a, b in zip(draw.integers(1, 13, 30), draw.integers(1, 13, 30), strict=True)]
    frame = {"a": draw.normal(size=30), "visit": days, "w": np.arange(1, 31) / 10, "y": draw.normal(size=30)}
    with pytest.warns(UserWarning, match=r"'visit', whose dates such as .* are read as %m/%d/%Y and could also be "
                                         r"%d/%m/%Y; say types=\{'visit': '%m/%d/%Y'\}"):  # fmt: skip
        data = mtl.data.from_dataframe(frame, targets="y", split="by_time('visit')", weights="w")
    assert {r.name: r.role for r in data.columns.table} == {
        "a": "input", "visit": "split", "w": "weights", "y": "target"
    }  # fmt: skip
    for how, key in (("%d/%m/%Y", lambda d: (d[3:5], d[:2])), ("%m/%d/%Y", lambda d: (d[:2], d[3:5]))):
        data = mtl.data.from_dataframe(frame, "y", split="by_time('visit')", types={"visit": how}, weights="w")
        assert max(key(days[i]) for i in data.rows["train"]) < min(key(days[i]) for i in data.rows["test"])
    mtl.data.from_dataframe(frame, targets="y", split="grouped('visit')", weights="w")  # no order, no word


def test_cells_in_another_unit_than_in_training_are_refused():
    """32.1% is not 32.1, nor 0.5 one half of a column of percents."""
    rate, y = np.linspace(0, 1, 30).round(3), np.cos(np.arange(30.0))
    plain = mtl.data.from_dataframe({"rate": rate, "y": y}, targets="y").columns
    percent = mtl.data.from_dataframe({"rate": [f"{r:g}%" for r in rate], "y": y}, targets="y").columns
    for columns, cell, held in ((plain, "32.1%", "numbers in training"), (plain, "$3", "numbers in training"),
                                (percent, "0.5", "numbers in % in training")):  # fmt: skip
        with pytest.raises(ValueError, match=f"column 'rate' holds '{re.escape(cell)}' in row 0 .* it held {held}"):
            columns.encode({"rate": [cell]})
    np.testing.assert_allclose(percent.encode({"rate": ["0.5 %"]}), plain.encode({"rate": [0.5]}))
    np.testing.assert_allclose(plain.encode({"rate": ["0,5"]}), plain.encode({"rate": [0.5]}))


@pytest.mark.parametrize("kind", [None, "classification"])
def test_labels_of_signs_and_of_one_value(kind):
    draw = np.random.default_rng(0)
    frame = {"a": draw.normal(size=60), "y": np.where(draw.random(60) < 0.5, -1, 1)}
    kinds = {"y": kind} if kind else None
    with pytest.raises(ValueError, match=r"labels are -1 and 1, .*; say kinds=\{'y': 'binary'\}"):
        mtl.data.from_dataframe(frame, targets="y", kinds=kinds)
    assert mtl.data.from_dataframe(frame, targets="y", kinds={"y": "binary"}).tasks[0].classes == ("-1", "1")
    for more in ({"y": frame["y"], "missing": {"y": -1}}, {"y": np.full(60, 2.5)}, {"y": ["red"] * 60}):
        with pytest.warns(UserWarning, match="target 'y' has one value in train"):
            mtl.data.from_dataframe(
                frame | {"y": more["y"]}, "y", missing=more.get("missing"), kinds=None if "missing" in more else kinds
            )


def test_names_in_one_text_and_targets_without_labels():
    frame = {"a": [0.5, 1.0, 2.0, 4.0], "b": [1.5, 0.0, 1.0, 0.2], "y": [1.0, 3.0, 2.0, 2.5], "none": [None] * 4}
    assert mtl.data.from_dataframe(frame, "y", inputs="a", val=0, test=0).columns.names == ("a",)
    for more in ({"targets": "a, y"}, {"targets": "y", "inputs": "a,b"}):
        with pytest.raises(ValueError, match=r"no column 'a, ?[yb]'; give a list, \['a', '[yb]'\]; columns are"):
            mtl.data.from_dataframe(frame, **more)
    for kind in (None, "classification", "regression"):
        with pytest.raises(ValueError, match="task 'none' has no label in train or elsewhere"):
            mtl.data.from_dataframe(frame, ["y", "none"], kinds={"none": kind} if kind else None)
    with pytest.raises(
        ValueError, match=r"needs size, .* or classes=; kinds=\{'none': 'classification'\} .*; then dataclasses"
    ):
        mtl.Task("none", "classification", class_weights="balanced")

"""What columns are read as and how they are encoded: a table with every oddity, types, leaks, dates, text, scaling."""

import warnings

import numpy as np
import pandas
import polars
import pytest

import mtl_jax as mtl
from mtl_jax.data.tables import difference, fit_encoding, serving, stored
from mtl_jax.data.tables.scaling import fit_scale
from mtl_jax.data.tables.text import hashed_text

WORDS = "schön hell ruhig Garten klein fein Balkon alt neu".split()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A file with a byte-order mark, comments, semicolons, decimal commas, thousands, quotes, gaps, keys and dates."""
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("odd") / "odd.csv"
    lines = ["# exported by hand", "id;when;name;zip;price;area;sold;city;note;flag;const;empty"]
    for i in range(240):
        amount = f"{1000 + draw.integers(500) / 2:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
        lines.append(";".join((
            str(i + 1), f"{draw.integers(1, 28):02d}.{draw.integers(1, 13):02d}.202{draw.integers(4)}",
            f'"M{draw.integers(10**6)}; A"', f"0{draw.integers(10)}234", "NA" if i % 17 == 0 else amount,
            f"{draw.integers(100)},5", "ja" if draw.random() < 0.5 else "nein",
            str(draw.choice(["Ulm", "Bonn", "Kiel", "?"])), f'"{" ".join(draw.choice(WORDS, 8))} ""{i}"""',
            str(draw.choice(["yes", "No", "YES", ""])), "7", "",
        )))  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def load(path, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = mtl.data.from_csv(path, targets=["price", "sold"], **more)
    return data, [str(w.message) for w in caught]


def test_every_oddity_is_read_said_and_kept(odd):
    data, said = load(odd)
    rows = {r.name: (r.role, r.type) for r in data.columns.table}
    assert rows == {
        "id": ("left out", "row number"), "when": ("input", "date"), "name": ("input", "text"),
        "zip": ("input", "category"), "price": ("target", "number"), "area": ("input", "number"),
        "sold": ("target", "boolean"), "city": ("input", "category"), "note": ("input", "text"),
        "flag": ("input", "boolean"), "const": ("left out", "constant"), "empty": ("left out", "empty"),
    }  # fmt: skip
    assert [t.kind for t in data.tasks] == ["regression", "binary"] and data.tasks[1].classes == ("nein", "ja")
    assert 1000 < data.tasks[0].scaler.mean[0] < 1300 and not data.train.masks["price"].all()
    assert len(said) == 3 and "'id' is a row number" in said[0] and "'empty' has no value in train" in said[1]
    assert "'const' has one value in train, 7," in said[2]
    shown = str(data.columns)
    for words in ("240 rows; utf-8-sig, separated by semicolon", "decimal comma, thousands '.'", "binary, 1 is 'ja'",
                  "dates as %d.%m.%Y", "left out"):  # fmt: skip
        assert words in shown
    assert data.columns.categories["city"] == ("Bonn", "Kiel", "Ulm")
    # In another process, and for rows in another order of columns, the encoding is what was written down.
    again = stored.from_json(stored.to_json(data.columns), "columns.json")
    assert again == data.columns and difference.difference(again, data.columns) == ""
    frame = pandas.read_csv(odd, sep=";", comment="#", encoding="utf-8-sig", decimal=",", dtype={"zip": str},
                            na_values="?").iloc[:, ::-1]  # fmt: skip
    np.testing.assert_array_equal(again.encode(odd), again.encode(frame))
    np.testing.assert_array_equal(again.encode(odd)[:3], again.encode(frame.head(3).to_dict("records")))


def test_types_override_and_unknown_ones_are_refused(odd):
    data, _ = load(
        odd, types={"id": "number", "name": "ignore", "zip": "number", "note": "category", "when": "%d.%m.%Y"}
    )
    types = {r.name: r.type for r in data.columns.table}
    assert (types["id"], types["zip"], types["note"]) == ("number", "number", "many-valued category")
    assert data.columns.form == "codes" and data.columns.cardinalities[-1] == len(data.columns.categories["note"])
    assert data.train.inputs["categories"].dtype == np.int32 and np.isnan(data.train.inputs["numbers"]).any()
    with pytest.raises(ValueError, match="unknown column in types 'zipp'; did you mean 'zip'"):
        load(odd, types={"zipp": "category"})
    with pytest.raises(ValueError, match="unknown type of column 'zip': 'kategory'; did you mean 'category'"):
        load(odd, types={"zip": "kategory"})
    with pytest.raises(ValueError, match="column 'when' holds .* which is no date of the format '%Y'"):
        load(odd, types={"when": "%Y"})


def frame(**columns):
    draw = np.random.default_rng(1)
    return polars.DataFrame({"x": draw.normal(size=200), "y": draw.normal(size=200), **columns})


def test_keys_and_leaks_are_warned_of():
    draw = np.random.default_rng(2)
    y = draw.normal(size=200)
    kind = draw.choice(["a", "b", "c"], 200)
    cases = {
        "is a key": frame(customer=[f"C{i:05d}x" for i in draw.permutation(200)]),
        "is a row number": frame(index=np.arange(200)),
        "counts the rows": frame(step=np.arange(200)),
        "looks like target 'y' in other words: it rises": frame().with_columns(z=frame()["y"].exp()),
        "looks like target 'k' in other words: each": frame(k=kind, code=[{"a": 7, "b": 9, "c": 8}[k] for k in kind]),
    }
    for words, table in cases.items():
        with pytest.warns(UserWarning, match=words) as caught:
            data = mtl.data.from_dataframe(table, ["y", "k"] if "k" in table.columns else ["y"])
        assert len(caught) == 1
        left_out = [r.name for r in data.columns.table if r.role == "left out"]
        assert left_out == ([table.columns[-1]] if words.startswith("is a") else [])
    mtl.data.from_dataframe(frame(z=y + 0.1 * draw.normal(size=200)), ["y"])  # no word of what is not so
    mtl.data.from_dataframe(frame(index=np.arange(200)), ["y"], inputs=["x", "index"])  # nor of what was asked for
    with pytest.raises(ValueError, match="no column is left for inputs; columns are key, y; .*'key' is a key"):
        mtl.data.from_dataframe({"key": [f"K{i}" for i in range(100)], "y": y[:100]}, ["y"])


def test_a_category_of_many_values_is_codes_and_of_too_many_is_hashed():
    draw = np.random.default_rng(3)
    values = np.array([f"city {i:03d}" for i in range(100)])[draw.integers(0, 100, 600)]
    train = np.arange(500)
    encoding = fit_encoding({"x": draw.normal(size=500), "city": values[train].astype(object)})
    assert encoding.form == "codes" and encoding.cardinalities == (len(np.unique(values[train])),)
    found = encoding.encode({"city": np.array(["city 007", "Paris", ""], object), "x": np.array([0.0, 1.0, np.nan])})
    assert found["categories"].tolist() == [[sorted(set(values[train])).index("city 007")], [-1], [-1]]
    assert np.isnan(found["numbers"][:, 0]).tolist() == [False, False, True]
    assert encoding.unseen({"city": np.array(["city 007", "Paris"], object), "x": np.zeros(2)}) == {"city": ["Paris"]}
    many = np.array([f"user {i}" for i in range(20_001)] * 2, object)
    hashed = fit_encoding({"user": many})
    codes = hashed.encode({"user": np.array(["user 3", "user 3", "somebody else"], object)})["categories"][:, 0]
    assert codes[0] == codes[1] and 0 <= codes.min() and codes.max() < hashed.cardinalities[0] < 20_001


def test_a_category_is_read_as_in_training_whatever_the_new_rows_look_like(tmp_path):
    zones = np.array(["1", "2", "3", "A"] * 20, object)
    encoding = fit_encoding({"zone": zones})
    right = encoding.encode({"zone": np.array(["3", "2"], object)})
    (tmp_path / "new.csv").write_text("zone\n3\n2\n")
    for new in (tmp_path / "new.csv", {"zone": np.array([3.0, 2.0])}, {"zone": [3, 2]}, [{"zone": 3}, {"zone": "2"}],
                pandas.DataFrame({"zone": pandas.Categorical([3, 2])})):  # fmt: skip
        np.testing.assert_array_equal(encoding.encode(new), right)


def test_errors_of_new_rows_name_the_column(tmp_path):
    columns = {"area": np.arange(40.0), "when": np.array(["2020-01-01", "2021-05-03"] * 20, object),
               "new": np.array(["yes", "no"] * 20, object), "city": np.array(["Ulm", "Bonn"] * 20, object)}  # fmt: skip
    encoding = fit_encoding(columns)
    row = {"area": 3, "when": "2020-01-02", "new": "no", "city": "Ulm"}
    assert encoding.encode(row).shape == (1, len(encoding.names))
    np.testing.assert_array_equal(encoding.encode([row | {"new": False, "area": "3"}]), encoding.encode(row))
    assert encoding.encode([row | {"area": None}]).shape == (1, len(encoding.names))
    for change, words in {
        ("area", "big"): "column 'area' holds 'big' in row 0 .* it held numbers in training",
        ("area", np.inf): "column 'area' of the table holds inf",
        ("when", 5): "column 'when' of the table holds Int64; it held dates",
        ("when", "soon"): "column 'when' holds 'soon' .* it held dates as %Y-%m-%d",
        ("new", "maybe"): "column 'new' holds 'maybe' .* it held no and yes in training",
        ("new", 3): "column 'new' of the table holds 3; it held no and yes",
    }.items():
        with pytest.raises(ValueError, match=words):
            encoding.encode(row | {change[0]: change[1]})
    with pytest.raises(ValueError, match="no column 'city'; columns are area, when, new"):
        encoding.encode({k: v for k, v in row.items() if k != "city"})
    with pytest.raises(ValueError, match="column 'area' has 2 rows, column 'when' has 1"):
        encoding.encode({k: [v] * (2 if k == "area" else 1) for k, v in row.items()})
    with pytest.raises(ValueError, match=r"has columns of 2 levels such as \('a', 'x'\)"):
        encoding.encode(pandas.DataFrame(np.ones((3, 1)), columns=pandas.MultiIndex.from_tuples([("a", "x")])))
    with pytest.raises(ValueError, match="int is no table; give a path, a data frame"):
        encoding.encode(3)


def test_scaling_survives_constants_outliers_and_offsets():
    draw = np.random.default_rng(4)
    values = draw.normal(size=1000)
    for offset in (0.0, 1.7e9):  # against numpy in float64
        scaled = fit_scale(offset + values).apply(offset + values)
        np.testing.assert_allclose(scaled, (values - values.mean()) / values.std(), atol=1e-6)
    for constant in (0.1, 14.62, 1e6 + 0.1):
        assert fit_scale(np.full(700, constant)).scale == 1.0
    with_outlier = np.append(values, 1e9)
    scaled = fit_scale(with_outlier).apply(with_outlier)
    assert 0.9 < scaled[:-1].std() < 1.1 and 10 < scaled[-1] < 40  # the rest keep their unit scale; one is bounded
    assert np.isfinite(fit_scale(values).apply(np.array([1e300, -1e300]))).all()
    skewed = np.exp(3 * values)
    normal = fit_scale(skewed, "quantile").apply(skewed)
    assert abs(normal.mean()) < 0.05 and 0.9 < normal.std() < 1.1  # normal scores
    assert (np.diff(normal[np.argsort(skewed)]) >= 0).all() and np.isnan(fit_scale(values).apply(np.array([np.nan])))


def test_dates_become_elapsed_days_and_circles():
    days = np.array(["2020-01-01", "2020-07-01", "2021-01-01", "2022-03-05"] * 10, object)
    encoding = fit_encoding({"day": days})
    assert encoding.names == ("day elapsed", "day month sin", "day month cos", "day weekday sin", "day weekday cos")
    found = encoding.encode({"day": days[:4]})
    elapsed = np.array([np.datetime64(d) for d in days], "M8[D]").astype(float)
    np.testing.assert_allclose(found[:, 0], ((elapsed - elapsed.mean()) / elapsed.std())[:4], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1:3][0], found[:, 1:3][2], atol=1e-6)  # both the first of January
    given = encoding.encode({"day": np.array(days[:4], "M8[D]")})
    np.testing.assert_array_equal(given, found)
    zoned = fit_encoding({"t": np.array(["2020-01-01T10:00:00+02:00", "2020-01-01T09:30:00Z"] * 10, object)})
    first, second = zoned.encode({"t": np.array(["2020-01-01T10:00:00+02:00", "2020-01-01T08:00:00Z"], object)})
    np.testing.assert_array_equal(first, second)


def test_text_is_hashed_words_and_trigrams():
    found = hashed_text(polars.Series(["red red house", "", None, "Red House, red"]), 64)
    assert found.shape == (4, 64) and not found[1].any() and not found[2].any()
    np.testing.assert_array_less(0, found[0][found[0] > 0])
    counts = np.expm1(hashed_text(polars.Series(["red"]), 64)[0])
    assert round(counts.sum()) == 4  # red, ^re, red, ed$
    extra = np.expm1(hashed_text(polars.Series([","]), 64)[0])
    np.testing.assert_allclose(np.expm1(found[3]), np.expm1(found[0]) + extra, rtol=1e-5)  # whatever the order and case
    long = hashed_text(polars.Series(["a b"] * 3000 + ["c"]), 8)
    np.testing.assert_array_equal(long[0], long[2999])


def test_a_damaged_description_is_refused(tmp_path):
    content = stored.to_json(fit_encoding({"a": np.arange(30.0), "c": np.array(["x", "y"] * 15, object)}))
    for name, value, words in (
        ("version", 7, "version 7 is not 1"),
        ("form", "neither", "form 'neither' is neither"),
        ("columns", [3], "column 0 is no object"),
        ("columns", [{**content["columns"][0], "type": "os.system"}], "type 'os.system' is none of number"),
        ("columns", [{**content["columns"][0], "scales": {"": {"centre": 0, "scale": 0, "knots": []}}}], "above 0"),
        ("missing_words", "NA", "'missing_words' must be list"),
        ("weights", {"y": "w"}, "column 'w' of 'weights' is not among 'others'"),
    ):
        with pytest.raises(ValueError, match=f"columns.json.*{words}"):
            stored.from_json({**content, name: value}, "columns.json")


@pytest.mark.parametrize(("classes", "new"), [((1, 2, 3), (0, 1, 2)), ((2, 3, 5), (0, 1, 2)), ((1, 2), (1, 0))])
def test_a_number_in_a_file_is_the_name_of_a_class_or_an_error(tmp_path, classes, new):
    draw = np.random.default_rng(0)
    labels = np.array(classes)[draw.integers(0, len(classes), 200)]
    data = mtl.data.from_dataframe({"x": draw.normal(size=200), "c": labels}, "c", kinds=dict.fromkeys(
        "c" if len(classes) > 2 else "", "classification"))  # fmt: skip
    path = tmp_path / "new.csv"
    path.write_text("x,c\n" + "".join(f"0.5,{c}\n" for c in classes[::-1]))
    found = serving.split_for(data.columns, path, data.tasks)
    assert found.targets["c"].tolist() == list(range(len(classes)))[::-1]
    path.write_text("x,c\n" + "".join(f"0.5,{c}\n" for c in new))
    wrong = new.index(0)
    with pytest.raises(ValueError, match=rf"label of task 'c' in line {wrong + 2} of .*new.csv: '0'; \({classes[0]}, "):
        serving.split_for(data.columns, path, data.tasks)
    with pytest.raises(ValueError, match=rf"label of task 'c' in row {wrong} of the table: '0'"):
        serving.split_for(data.columns, {"x": np.zeros(len(new)), "c": np.array(new)}, data.tasks)
    # So it is where a task is given with its classes.
    if len(classes) > 2:
        with pytest.raises(ValueError, match="label of task 'c' in row .* of .*: '0'"):
            mtl.data.from_dataframe({"x": np.arange(60) % 7 / 8, "c": np.tile(new, 20)}, "c", inputs=["x"],
                                    kinds={"c": data.tasks[0]})  # fmt: skip


def test_targets_of_new_files_have_the_marks_of_the_training_file(tmp_path):
    draw = np.random.default_rng(0)
    german = [f"{v:,.1f}".translate(str.maketrans(",.", ".,")) for v in draw.uniform(1000, 9000, 100)]
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("x;price\n" + "".join(f"0,{i};{p}\n" for i, p in enumerate(german)))
    new.write_text("x;price\n0,5;1.234\n0,1;\n0,2;2.500\n")
    data = mtl.data.from_csv(old, "price", decimal=",", thousands=".")
    for columns in (data.columns, stored.from_json(stored.to_json(data.columns), "columns.json")):
        found = serving.split_for(columns, new, data.tasks)
        assert found.targets["price"].tolist() == [1234, 0, 2500]
        assert found.masks["price"].tolist() == [True, False, True]
    again = mtl.data.from_csv(new, "price", columns=data.columns, val=0, test=0)
    assert again.train.targets["price"].max() == 2500
    new.write_text("x;price\n0,5;1.234\n0,1;many\n")
    with pytest.raises(ValueError, match="column 'price' holds 'many' in line 3 .* it held numbers in training"):
        serving.split_for(data.columns, new, data.tasks)


def test_rows_of_new_files_count_by_their_column_of_weights(tmp_path):
    draw = np.random.default_rng(0)
    frame = {"x": draw.normal(size=80), "y": draw.normal(size=80), "z": draw.normal(size=80), "w": np.arange(80) / 80}
    both = mtl.data.from_dataframe(frame, ["y", "z"], weights="w")
    one = mtl.data.from_dataframe(frame, ["y", "z"], weights={"z": "w"})
    path = tmp_path / "new.csv"
    path.write_text("x;y;z;w\n0,1;1;2;0,5\n0,2;3;4;2\n")
    for data, tasks in ((both, ["y", "z"]), (one, ["z"])):
        columns = stored.from_json(stored.to_json(data.columns), "columns.json")
        assert columns == data.columns and dict(columns.weights) == dict.fromkeys(tasks, "w")
        found = serving.split_for(columns, path, data.tasks).weights
        assert {k: v.tolist() for k, v in found.items()} == dict.fromkeys(tasks, [0.5, 2])
        found = serving.split_for(columns, frame, data.tasks)
        np.testing.assert_array_equal(found.weights["z"], frame["w"].astype(np.float32))
    with pytest.warns(UserWarning, match="no column 'w', which held the weights of rows in training; .* count alike"):
        found = serving.split_for(both.columns, {k: frame[k] for k in "xyz"}, both.tasks)
    assert found.weights is None
    with pytest.raises(ValueError, match="column 'w' of weights must hold a number in every row"):
        serving.split_for(both.columns, {**frame, "w": [None, *range(79)]}, both.tasks)
    with pytest.raises(ValueError, match="task 'y': weights of the table: -1 in row 0 must be finite and at least 0"):
        serving.split_for(both.columns, {**frame, "w": frame["w"] - 1}, both.tasks)
    # What an older version wrote is read as it was: it knows of no weights.
    older = stored.to_json(both.columns)
    del older["weights"], older["others"]
    assert serving.split_for(stored.from_json(older, "columns.json"), frame, both.tasks).weights is None

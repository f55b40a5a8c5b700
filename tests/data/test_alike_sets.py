"""School, computer survey and ChEMBL: counts as published, rows apart, and the floors that ridges reach."""

import os
import zlib

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.data.ngrams import hashed_ngrams
from mtl_jax.data.own_rows import held_out_of_each
from mtl_jax.data.school import explained_variance
from mtl_jax.data.sources import read_mat
from scripts.evidence import floors
from tests import tiny

needs_data = pytest.mark.skipif(not os.environ.get("MTL_JAX_DATA"), reason="MTL_JAX_DATA is not set")


def counts(data):
    """Rows of each split's tasks, added up."""
    return [sum(len(y) for y in s.targets.values()) for s in (data.train, data.val, data.test) if s is not None]


@needs_data
def test_school():
    """Source: README of the files (139 schools, 15,362 pupils; split 1 has 11,472 / 3,890), and its first rows."""
    data = mtl.data.load("school", val=0)
    assert len(data.tasks) == 139 and counts(data) == [11472, 3890] and data.val is None
    everyone = np.sort(np.concatenate([r for split in data.rows.values() for r in split.values()]))
    np.testing.assert_array_equal(everyone, np.arange(15362))
    pupil = int(np.flatnonzero(data.rows["train"]["school_001"] == 1)[0])  # the file's second row
    x, y = data.train.inputs["school_001"][pupil], data.train.targets["school_001"][pupil]
    assert np.flatnonzero(np.delete(x, (3, 4))).tolist() == [0, 4, 7, 8, 19, 22] and y == 5
    together = np.concatenate(list(data.train.inputs.values()))
    for start, end in ((0, 3), (5, 7), (10, 21), (21, 24), (24, 27)):  # one of each kind
        assert (together[:, start:end].sum(1) == 1).all() and (together[:, start:end].max(1) == 1).all()
    everyone = np.concatenate([together, *data.test.inputs.values()])
    assert np.bincount(everyone[:, 7:10].sum(1).astype(int)).tolist() == [15, 15347]  # pupils without a band
    np.testing.assert_allclose(together[:, 3:5].mean(0, dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(together[:, 3:5].std(0, dtype=float), 1, atol=1e-5)


@needs_data
def test_validation_rows_are_each_schools_share_of_training_rows():
    whole, data = mtl.data.load("school", val=0, split=3), mtl.data.load("school(split=3)")
    again = mtl.data.load("school", split=3, tasks=("school_100", "school_007"))
    for task in (t.name for t in data.tasks):
        train, val, test = (set(data.rows[k][task].tolist()) for k in ("train", "val", "test"))
        given = set(whole.rows["train"][task].tolist())
        assert train | val == given and not train & val and not given & test
        assert len(val) == round(0.2 * len(given))
    for task in ("school_007", "school_100"):  # whatever other tasks there are
        np.testing.assert_array_equal(again.val.inputs[task], data.val.inputs[task])
    assert len({t.scaler for t in (*data.tasks, *again.tasks)}) == 1  # errors of all schools have one unit
    pooled = mtl.data.load("school", split=3, tasks="pooled", offsets=True)
    assert pooled.spec == "school(tasks=('pooled',), split=3, offsets=True)" and counts(pooled) == counts(data)
    row = int(np.flatnonzero(pooled.rows["val"] == data.rows["val"]["school_100"][0])[0])
    np.testing.assert_array_equal(pooled.val.inputs[row, :27], data.val.inputs["school_100"][0])
    assert np.flatnonzero(pooled.val.inputs[row, 27:]).tolist() == [99]


def test_what_is_held_out_of_small_tasks():
    """At least one row, never all, and of each task by its own rows only."""
    task = np.array([0] * 10 + [1] * 2 + [2])
    held = held_out_of_each(task, 0.2, 0)
    assert np.bincount(task, held).tolist() == [2, 1, 0]
    np.testing.assert_array_equal(held_out_of_each(task[:10], 0.2, 0), held[:10])
    assert not held_out_of_each(task, 0, 0).any()


@needs_data
def test_floors_of_school():
    """Ridge on the loaded arrays: 34.2% of the variance explained as one task, 37.9% with school offsets."""
    found = {name: value for name, _, value, _ in floors.school()}
    assert found["one ridge"] == pytest.approx(0.342, abs=0.001)
    assert found["one ridge, school offsets"] == pytest.approx(0.379, abs=0.001)
    assert found["mean of each school"] < 0.11


def test_explained_variance_by_hand():
    """Errors 1 and 2 against deviations -2, 0, 2 of the three labels there: 1 - 5 / 8."""
    data = mtl.data.from_arrays(
        mtl.PerTask({"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}), {"a": [1.0, 3.0], "b": [5.0, np.nan]},
        kinds={"a": "regression", "b": "regression"}, val=0, test=0,
    )  # fmt: skip
    found = explained_variance({"a": np.array([2.0, 3.0]), "b": np.array([3.0, 70.0])}, data.train)
    assert found == pytest.approx(1 - 5 / 8)


@needs_data
def test_computer_survey():
    """Source: README of the files (190 people, 20 computers, 13 attributes; the last 4 test), and LikeBuy.txt."""
    data = mtl.data.load("computer_survey")
    assert len(data.tasks) == 190 and counts(data) == [190 * 13, 190 * 3, 190 * 4]
    assert data.test.targets["person_001"].tolist() == [3, 6, 7, 5]
    assert data.test.targets["person_190"].shape == (4,) and data.train.inputs["person_002"].shape == (13, 13)
    assert {float(v) for v in np.unique(data.train.inputs["person_190"])} == {-1, 1}
    assert counts(mtl.data.load("computer_survey(computers=8)")) == [190 * 6, 190 * 2, 190 * 4]
    rows = {t: data.rows["val"][t] % 20 for t in ("person_001", "person_002", "person_003")}
    assert len({tuple(r) for r in rows.values()}) == 3 and max(map(max, rows.values())) < 16
    found = {name: value for name, _, value, _ in floors.computer_survey()}
    ratings = np.stack([np.concatenate([s.targets[t.name] for s in (data.train, data.val)]) for t in data.tasks])
    tested = np.stack(list(data.test.targets.values()))
    by_hand = np.sqrt(((tested - ratings.mean(1, keepdims=True)) ** 2).mean())
    assert found["mean of each person, 16 computers"] == pytest.approx(by_hand, rel=1e-5)
    assert (
        found["a ridge for each person, 16 computers"]
        < 1.95
        < found["one ridge beside each person's mean, 16 computers"]
    )


@needs_data
def test_chembl():
    """Source: README of the files: rows, labels and the floor 1.221 of each target's mean; 129 targets lack labels."""
    with pytest.warns(UserWarning, match=r"129 of 691 targets have fewer than 1 labels in train and are left out, with "
                      r"132 labels in val and test \(CHEMBL1075051, .* and 121 more\)"):  # fmt: skip
        data = mtl.data.load("chembl", features=64, longest=2)
    assert len(data.tasks) == 691 - 129 and data.spec == "chembl(features=64, longest=2)"
    splits = (data.train, data.val, data.test)
    assert [len(s.inputs) for s in splits] == [14620, 4000, 5252]
    labels = [sum(int(m.sum()) for m in s.masks.values()) for s in splits]
    assert labels[0] == 54009 and sum(labels[1:]) == 14890 + 22152 - 132
    means, found = {}, {}
    for task in data.tasks:
        y = floors.known(data, task.name)[1]
        there = data.test.masks[task.name]
        found[task.name] = data.test.targets[task.name][there]
        means[task.name] = np.full(there.sum(), y.mean())
    assert floors.rmse(means, found) == pytest.approx(1.221, abs=0.003)  # README's has the left-out targets, too
    assert len({t.scaler.std for t in data.tasks}) == 1 and len({t.scaler.mean for t in data.tasks}) > 400
    first = data.tasks[0]
    y = data.train.targets[first.name][data.train.masks[first.name]]
    assert first.scaler.mean[0] == pytest.approx(y.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="'chembl': CHEMBL1075051 have fewer than min_labels=1 labels in train"):
        mtl.data.load("chembl", tasks=("CHEMBL204", "CHEMBL1075051"))


def test_ngrams_against_their_definition():
    """Counted one by one, beyond the Basic Multilingual Plane, too."""
    texts = ["CC(=O)C", "", "äöü🎈b", "CCCC"]
    expected = np.zeros((4, 16))
    for row, text in enumerate(texts):
        text = f"^{text}$"
        for n in (1, 2, 3):
            for i in range(len(text) - n + 1):
                expected[row, zlib.crc32(text[i : i + n].encode()) % 16] += 1
    np.testing.assert_allclose(hashed_ngrams(texts, 16, 3), np.log1p(expected), rtol=1e-6)


@needs_data
def test_a_few_schools_train_and_learn():
    data = mtl.data.load("school", tasks=("school_001", "school_004", "school_033"))
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(16,)), data.tasks)
    run = tiny.fit(model, data, num_steps=100, batch_size=32, steps_per_dispatch=50, eval_every=50, log_every=50)
    assert explained_variance(run.predict(data.test.inputs), data.test) > 0.2
    assert set(run.evaluate(data.test)["school_033"]) == {"loss", "rmse", "mae", "r2"}


def test_errors(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_JAX_DATA", raising=False)
    files = {"school": "school/school_b.mat", "chembl": "chembl_5thresh/chembl_5thresh_ts_train.csv.gz",
             "computer_survey": "computer_survey/conjointAnalysisComputerBuyers.mat"}  # fmt: skip
    for name, file in files.items():
        with pytest.raises(FileNotFoundError, match=f"needs DIR/{file}; give data_dir .*It comes from .*github.com"):
            mtl.data.load(name)
        with pytest.raises(FileNotFoundError, match=f"there is no .*{file}; .*It comes from .*github.com"):
            mtl.data.load(name, data_dir=tmp_path)
    for call, message in {
        "school(split=10)": "split=10 must be 0 to 9, one of the published splits",
        "school(tasks=('school_140',))": "unknown task of data set 'school' 'school_140'; did you mean 'school_",
        "school(tasks=('pooled', 'school_001'))": "task 'pooled' holds the pupils of all schools, so it stands alone",
        "school(offsets=True)": "offsets=True goes with tasks='pooled'",
        "school(val=1.0)": "val=1.0 must be a share of each task's training rows",
        "computer_survey(computers=17)": "computers=17 must be 2 to 16; the last 4 of 20 are the test split",
        "computer_survey(tasks='bob')": "unknown task of data set 'computer_survey' 'bob'",
        "chembl(min_labels=0)": "min_labels=0 must be an integer of at least 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            mtl.data.load(call, data_dir=tmp_path)
    (tmp_path / "school").mkdir()
    (tmp_path / "school/school_b.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(ValueError, match="school_b.mat is truncated, damaged or no MATLAB file"):
        mtl.data.load("school", data_dir=tmp_path)


def test_a_matlab_file_of_other_arrays(tmp_path):
    from scipy import io

    io.savemat(tmp_path / "a.mat", {"x": np.zeros((2, 3)), "name": "school"})
    assert read_mat(tmp_path / "a.mat", {"x": (2, None)})["x"].shape == (2, 3)
    for shapes, message in {
        (("y", (1, 1)),): "a.mat holds no array 'y'",
        (("x", (2, 4)),): r"a.mat: 'x' is float64 \(2, 3\); it must be numbers \(2, 4\)",
        (("name", (1,)),): "a.mat: 'name' is .*; it must be numbers",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_mat(tmp_path / "a.mat", dict(shapes))

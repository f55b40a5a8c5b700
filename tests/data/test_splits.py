"""Ways to split: every row once, shares met, and what each way promises."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

import mtl_jax as mtl
from mtl_jax.data import splits

N = 400
DRAW = np.random.default_rng(0)
PATIENTS = DRAW.integers(0, 40, N)
TIMES = DRAW.integers(0, 60, N)


def request(total=N, val=0.2, test=0.1, seed=0, labels=None, **columns):
    return splits.Request(total, {"val": val, "test": test}, seed, labels or {}, columns.__getitem__)


def parted(rows, total=N):
    """Every row is in one split, in order."""
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(total))
    assert all((np.diff(r) > 0).all() for r in rows.values())
    return {k: len(r) for k, r in rows.items()}


def test_at_random_is_the_permutation_of_the_seed():
    """Held-out rows come first in numpy's permutation: val, then test."""
    rows = splits.build("random()").rows(request())
    order = np.random.default_rng(0).permutation(N)
    assert parted(rows) == {"train": 280, "val": 80, "test": 40}
    np.testing.assert_array_equal(rows["val"], np.sort(order[:80]))
    np.testing.assert_array_equal(rows["test"], np.sort(order[80:120]))
    assert not np.array_equal(splits.build("random()").rows(request(seed=1))["val"], rows["val"])


def test_rare_classes_are_everywhere():
    """Five of 400: at random a tenth of the rows has none of them in three splits of five; here never."""
    codes = np.zeros(N, int)
    for seed in range(8):
        codes[:] = 0
        codes[np.random.default_rng(seed).permutation(N)[:5]] = 1
        other = np.where(np.arange(N) % 7 == 0, -1, np.arange(N) % 3)
        rows = splits.build(None).rows(request(val=0.15, test=0.15, seed=seed, labels={"rare": codes, "other": other}))
        parted(rows)
        assert all(1 in codes[r] for r in rows.values()), seed
        assert abs(len(rows["val"]) - 60) <= 2 and abs(len(rows["test"]) - 60) <= 2
    # Where chance does, it is left to chance.
    even = np.arange(N) % 2
    for way in (None, "random()"):
        found = splits.build(way).rows(request(labels={"even": even}))
        np.testing.assert_array_equal(found["val"], splits.draw(request())["val"])


def test_stratified_has_every_share_of_every_class():
    codes = np.random.default_rng(3).choice(5, N, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    names = np.array(["a", "b", "c", "d", "e"], object)[codes]
    rows = splits.build("stratified('stage')").rows(request(stage=names))
    assert parted(rows) == {"train": 280, "val": 80, "test": 40}
    for key, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        counts = np.bincount(codes[rows[key]], minlength=5)
        assert np.abs(counts - share * np.bincount(codes)).max() <= 2
    several = splits.build("stratified()").rows(request(labels={"a": codes, "b": codes[::-1]}))
    for labels in (codes, codes[::-1]):
        assert np.abs(np.bincount(labels[several["test"]], minlength=5)[3:] - 0.1 * np.bincount(labels)[3:]).max() <= 2
    with pytest.raises(ValueError, match="no task has classes"):
        splits.build("stratified()").rows(request())


def test_groups_stay_together():
    rows = splits.grouped(PATIENTS).rows(request())
    sizes = parted(rows)
    whose = {k: set(PATIENTS[r]) for k, r in rows.items()}
    assert not whose["train"] & whose["val"] and not whose["train"] & whose["test"] and not whose["val"] & whose["test"]
    assert abs(sizes["val"] - 80) <= 12 and abs(sizes["test"] - 40) <= 12
    assert rows.keys() == splits.build("grouped('patient')").rows(request(patient=PATIENTS)).keys()
    with pytest.raises(ValueError, match="gets none of 400 rows"):
        splits.grouped(np.zeros(N, int)).rows(request())
    with pytest.raises(ValueError, match="column of groups 'patient' has no value in row 3"):
        splits.build("grouped('patient')").rows(request(patient=np.where(np.arange(N) == 3, np.nan, PATIENTS)))


@pytest.mark.parametrize("as_text", [False, True])
def test_the_last_ones_test(as_text):
    times = np.array([f"2024-01-{1 + t // 2:02d} {t % 2 * 12:02d}:00" for t in TIMES]) if as_text else TIMES
    rows = splits.by_time(times).rows(request())
    parted(rows)
    assert TIMES[rows["train"]].max() < TIMES[rows["val"]].min() <= TIMES[rows["val"]].max() < TIMES[rows["test"]].min()
    assert 30 <= len(rows["test"]) <= 40 and 60 <= len(rows["val"]) <= 90
    with pytest.raises(ValueError, match="times are numbers or ISO 8601"):
        splits.by_time(np.array(["yesterday"] * N)).rows(request())


def test_folds_test_every_row_once():
    """As evenly as scikit-learn's GroupKFold, which also fills the smallest fold with the largest group left."""
    tested = [splits.folds(5, i, PATIENTS).rows(request(val=0.2)) for i in range(5)]
    assert sorted(np.concatenate([r["test"] for r in tested]).tolist()) == list(range(N))
    sizes = sorted(len(r["test"]) for r in tested)
    theirs = sorted(len(t) for _, t in GroupKFold(5).split(np.zeros(N), groups=PATIENTS))
    assert sizes == theirs
    for rows in tested:
        parted(rows)
        assert not set(PATIENTS[rows["test"]]) & set(PATIENTS[rows["train"]])
        assert not set(PATIENTS[rows["val"]]) & set(PATIENTS[rows["train"]])
    plain = [splits.build(f"folds(k=4, fold={i})").rows(request()) for i in range(4)]
    assert sorted(np.concatenate([r["test"] for r in plain]).tolist()) == list(range(N))
    assert {len(r["test"]) for r in plain} == {100} and {len(r["val"]) for r in plain} == {60}
    for wrong, message in {"folds(k=1)": "k=1", "folds(fold=5)": "0..4"}.items():
        with pytest.raises(ValueError, match=message):
            splits.build(wrong)
    with pytest.raises(ValueError, match="5 folds of 3 groups"):
        splits.folds(5, 0, np.arange(N) % 3).rows(request())


def test_as_a_column_or_as_row_numbers_say():
    said = np.array(["Train", "dev", " test "] * 100 + ["training"] * 100, object)
    rows = splits.build("column('part')").rows(request(part=said))
    assert parted(rows) == {"train": 200, "val": 100, "test": 100}
    with pytest.raises(ValueError, match="row 0: 'a' is none of train"):
        splits.build("column('part')").rows(request(part=np.array(["a"] * N)))
    rows = splits.build({"train": [3, 1, 2], "val": np.array([0])}).rows(request())
    assert {k: r.tolist() for k, r in rows.items()} == {"train": [1, 2, 3], "val": [0]}
    for wrong, message in [
        ({"train": [1, 2], "val": [2]}, "row 2 is in more than one"),
        ({"train": [1, 1]}, "row 1 is in more than one split, or twice"),
        ({"train": [400]}, "row 400 is outside 0..399"),
        ({"tran": [1]}, "unknown split 'tran'"),
        ({"val": [1]}, "no 'train' rows"),
        ({"train": [0.5]}, "give a list of row numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            splits.build(wrong).rows(request())


def test_a_data_set_is_split_and_keeps_its_rows():
    x = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
    data = mtl.data.from_arrays(x, {"y": x[:, 0] / 7}, split=splits.grouped(PATIENTS))
    for key in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(data, key).inputs, x[data.rows[key]])
    assert mtl.data.from_arrays(x, {"y": x[:, 0] / 7}, split={"train": [0, 1, 2]}).val is None
    for wrong, message in [
        ({"split": "gruoped('a')"}, "did you mean 'grouped'"),
        ({"split": "grouped('patient')"}, "these are arrays; give the values in its place"),
        ({"split": splits.grouped(PATIENTS[:5])}, "needs a value for each of 400 rows"),
        ({"split": "random()", "val": (x, {"y": x[:, 0]})}, "give one of them"),
        ({"split": 3}, "must be a text such as"),
    ]:
        with pytest.raises(ValueError, match=message):
            mtl.data.from_arrays(x, {"y": x[:, 0] / 7}, **wrong)
    with pytest.raises(ValueError, match="val gets none of 3 rows"):
        mtl.data.from_arrays(x[:3], {"y": x[:3, 0]})
    own = mtl.PerTask({"a": x, "b": x[:90]})
    data = mtl.data.from_arrays(own, {"a": x[:, 0] / 7, "b": x[:90, 1] / 7}, val=0.1, test=0)
    np.testing.assert_array_equal(data.val.inputs["b"], x[:90][data.rows["val"]["b"]])

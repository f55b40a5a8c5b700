"""The named data sets: their splits, labels and missing labels, and what a name or a file that is not there says."""

import os

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.batch import num_rows
from mtl_jax.data.multi_digits import multi_digits, scans

needs_tox21 = pytest.mark.skipif(not os.environ.get("MTL_JAX_DATA"), reason="MTL_JAX_DATA is not set")


@pytest.mark.smoke
def test_multi_digits():
    data = mtl.data.load("multi_digits", tasks=("left", "right", "sum", "left_gt_right"))
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [8000, 2000, 2000]
    for split in (data.train, data.val, data.test):
        y = split.targets
        np.testing.assert_array_equal(y["sum"], y["left"] + y["right"])
        np.testing.assert_array_equal(y["left_gt_right"], y["left"] > y["right"])
        assert split.inputs.shape[1:] == (12, 12, 1) and 0 <= split.inputs.min() and split.inputs.max() <= 1
    again = mtl.data.load("multi_digits")
    np.testing.assert_array_equal(again.train.inputs, data.train.inputs)


def test_no_scan_is_in_two_splits():
    """The uncovered corners of the canvas are a scan's own pixels: their patterns of two splits do not meet."""
    data = multi_digits()
    images, _ = scans()
    corners, counts = np.unique(images[:, :4, :4].reshape(len(images), -1), axis=0, return_counts=True)
    unique = {c.tobytes() for c, n in zip(corners, counts, strict=True) if n == 1}
    found = [
        {c.tobytes() for c in np.unique(s.inputs[:, :4, :4, 0].reshape(num_rows(s), -1), axis=0)} & unique
        for s in (data.train, data.val, data.test)
    ]
    assert all(len(f) > 50 for f in found)
    assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]


@needs_tox21
def test_tox21():
    data = mtl.data.load("tox21")
    assert len(data.tasks) == 12 and {t.kind for t in data.tasks} == {"binary"}
    rows = [num_rows(s) for s in (data.train, data.val, data.test)]
    assert sum(rows) == 7831 and rows[1] == rows[2] == 783
    labelled = sum(int(m.sum()) for s in (data.train, data.val, data.test) for m in s.masks.values())
    assert labelled == 77946  # MoleculeNet's count of labels: 17% of 12 x 7,831 are missing
    assert mtl.data.load("tox21(tasks=('NR-AR',), features=64)").train.inputs.shape[1] == 64


@needs_tox21
def test_tox21_trains_with_its_missing_labels():
    """Above chance on every assay's ranking together, from 150 steps."""
    from tests import tiny

    data = mtl.data.load("tox21", features=256)
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(64,)), data.tasks)
    run = tiny.fit(model, data, num_steps=150, batch_size=128, steps_per_dispatch=50, eval_every=50, log_every=50)
    found = mtl.evaluate(run, data.test)
    assert np.mean([m["auroc"] for m in found.values()]) > 0.68
    assert all(np.isfinite(list(m.values())).all() for m in found.values())


def test_errors(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_JAX_DATA", raising=False)
    with pytest.raises(ValueError, match=r"unknown data set 'multi_digit'; did you mean 'multi_digits'\? \(multi_dig"):
        mtl.data.load("multi_digit")
    with pytest.raises(ValueError, match="unknown task of data set 'multi_digits' 'lft'; did you mean 'left'"):
        mtl.data.load("multi_digits", tasks=("lft",))
    with pytest.raises(ValueError, match="unknown argument of data set 'multi_digits' 'rows'"):
        mtl.data.load("multi_digits", rows=3)
    with pytest.raises(FileNotFoundError, match="needs DIR/tox21/tox21.csv.gz; give data_dir .* or set MTL_JAX_DATA"):
        mtl.data.load("tox21")
    with pytest.raises(FileNotFoundError, match="there is no .*tox21.csv.gz"):
        mtl.data.load("tox21", data_dir=tmp_path)
    (tmp_path / "tox21").mkdir()
    (tmp_path / "tox21" / "tox21.csv.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ValueError, match="tox21.csv.gz is truncated or damaged"):
        mtl.data.load("tox21", data_dir=tmp_path)

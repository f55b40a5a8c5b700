"""One rule of kinds for arrays, frames and files, labels that are missing, and targets far from 0."""

import dataclasses
import decimal

import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pytest

import mtl_jax as mtl
from mtl_jax.data.dataset import fit_scaler
from mtl_jax.scaler import Scaler, centred

N = 120
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
I = np.arange(N)  # noqa: E741


def from_arrays(labels, **more):
    return mtl.data.from_arrays(X, {"y": labels}, val=0, test=0, **more)


def from_frame(labels, **more):
    values = labels[:, 0] if getattr(labels, "ndim", 1) == 2 else labels
    return mtl.data.from_dataframe({"x": X[:, 0], "y": list(values)}, ["y"], val=0, test=0, **more)


def from_file(labels, path, **more):
    values = labels[:, 0] if getattr(labels, "ndim", 1) == 2 else labels
    cells = ("" if v is None or v != v else v for v in values)
    path.write_text("x,y\n" + "".join(f"{x:.4f},{v}\n" for x, v in zip(X[:, 0], cells, strict=True)))
    return mtl.data.from_csv(path, ["y"], val=0, test=0, **more)


SAME = {
    "0 and 1": (I % 2, "binary"),
    "0.0 and 1.0": (I % 2 * 1.0, "binary"),
    "1 and 2": (I % 2 + 1, "binary"),
    "yes and no": (np.array(["no", "yes"])[I % 2], "binary"),
    "two words": (np.array(["good", "bad"])[I % 2], "binary"),
    "bools": (I % 2 == 0, "binary"),
    "three words": (np.array(["a", "b", "c"])[I % 3], "classification"),
    "0 to 4": (I % 5, "classification"),
    "1 to 5 as floats": (I % 5 + 1.0, "classification"),
    "[N, 1]": (I[:, None] % 5, "classification"),
    "with None": ([None if i % 7 == 0 else int(i % 5) for i in I], "classification"),
    "numbers as text": (np.array([str(i % 5) for i in I]), "classification"),
    "whole amounts": (I * 37 % 1000, "regression"),
    "amounts": (X[:, 1] * 10, "regression"),
    "decimals": ([decimal.Decimal(f"{v:.2f}") for v in X[:, 1]], "regression"),
    "amounts as text": (np.array([f"{v:.3f}" for v in X[:, 1]]), "regression"),
    "0, 5 and 10": (I % 3 * 5, None),
    "0 to 39": (I % 40, None),
    "3 to 7": (I % 5 + 3, None),
    "-1, 0 and 1": (I % 3 - 1, None),
    "-1.0, 0.0 and 1.0": (I % 3 - 1.0, None),
    "99 beside classes": (np.where(I % 9 == 0, 99, I % 3), None),
    "-999 beside amounts": (np.where(I % 9 == 0, -999.0, np.abs(X[:, 1])), None),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_labels_have_the_same_kind_from_arrays_frames_and_files(name, tmp_path):
    labels, kind = SAME[name]
    for load in (from_arrays, from_frame, lambda y: from_file(y, tmp_path / "a.csv")):
        if kind is None:
            with pytest.raises(ValueError, match="task 'y': .*(kinds=|missing=)"):
                load(labels)
        else:
            assert load(labels).tasks[0].kind == kind


def test_classes_keep_their_names_and_labels_are_their_numbers(tmp_path):
    codes = np.array([1000001, 1000002, 1000003, 2500010])[I % 4]
    for data in (
        from_file(codes, tmp_path / "a.csv", kinds={"y": "classification"}),
        from_arrays(codes, kinds={"y": "classification"}),
    ):
        assert data.tasks[0].classes == ("1000001", "1000002", "1000003", "2500010")
        assert data.train.targets["y"].tolist() == (I % 4).tolist()
    data = from_arrays(I % 2 + 1)
    assert data.tasks[0].classes == ("1", "2") and data.train.targets["y"].tolist() == (I % 2).tolist()
    data = from_file(np.array(["No", "Yes"])[I % 2], tmp_path / "a.csv")
    assert data.tasks[0].classes == ("No", "Yes") and data.train.targets["y"].tolist() == (I % 2).tolist()
    given = mtl.Task("y", "classification", classes=("low", "high"))
    assert from_arrays(I % 2, kinds={"y": given}).train.targets["y"].tolist() == (I % 2).tolist()  # numbers are places
    named = mtl.Task("y", "classification", classes=("3", "1", "2"))
    assert from_arrays(I % 3 + 1, kinds={"y": named}).train.targets["y"][:3].tolist() == [1, 2, 0]  # or names


HIDDEN = I % 4 == 0
MISSING = {
    "masked": np.ma.array(np.where(HIDDEN, -999.0, X[:, 0]), mask=HIDDEN),
    "masked integers": np.ma.array(np.where(HIDDEN, 77, I % 3), mask=HIDDEN),
    "pandas boolean": pandas.array([None if h else bool(i % 2) for i, h in enumerate(HIDDEN)], "boolean"),
    "pandas string": pandas.array([None if h else "ab"[i % 2] for i, h in enumerate(HIDDEN)], "string"),
    "pandas Int64": pandas.array([None if h else i % 3 for i, h in enumerate(HIDDEN)], "Int64"),
    "pandas column": pandas.Series([None if h else i % 3 for i, h in enumerate(HIDDEN)], dtype=object),
    "polars column": polars.Series([None if h else i % 3 for i, h in enumerate(HIDDEN)]),
    "NaT and NA": [pandas.NaT if h and i % 8 else pandas.NA if h else "ab"[i % 2] for i, h in enumerate(HIDDEN)],
    "text": np.where(HIDDEN, "", np.array(["a", "b", "c"])[I % 3]),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_masked(name):
    data = from_arrays(MISSING[name])
    assert (data.train.masks["y"] == ~HIDDEN).all()
    assert np.abs(data.train.targets["y"]).max() < 5


def test_numbers_that_stand_apart_say_how_they_are_masked():
    seg = np.zeros((12, 4, 4), np.uint8)
    seg[:, 0], seg[:, 1] = 255, 1
    with pytest.raises(ValueError, match=r"label 255 stands apart from 0 to 1; .* say missing=\{'seg': 255\}"):
        mtl.data.from_arrays(seg[..., None].astype(np.float32), {"seg": seg}, kinds={"seg": "segmentation"})
    with pytest.raises(ValueError, match=r"label -1 is neither 0 nor 1; .* missing=\{'y': -1\}"):
        from_arrays(I % 3 - 1, kinds={"y": "binary"})
    assert from_arrays(I % 2 * 2 - 1, kinds={"y": "binary"}).tasks[0].classes == ("-1", "1")
    kept = from_arrays(I % 3 - 1, kinds={"y": "regression"})  # who says what it is, is not asked
    assert kept.train.targets["y"].min() == -1
    with pytest.raises(ValueError, match="task 'y': row 0 holds a list"):
        from_arrays([[1, 2], [1]] * (N // 2), kinds={"y": "tagging"}) if False else from_arrays(
            np.array([[1, 2], [1]] * (N // 2), object)
        )


def test_offsets_cost_nothing():
    """Against the same numbers without the offset, in float64."""
    small = 60 * X[:, 0].astype(np.float64)
    data, plain = from_arrays(1.7e9 + small), from_arrays(small)
    task = data.tasks[0]
    assert data.train.targets["y"].dtype == np.float64 and task.scaler.origin == (round(task.scaler.mean[0]),)
    inside = centred(data.tasks, data.train).targets["y"]
    assert inside.dtype == np.float32
    expected = plain.tasks[0].scaler.scale(plain.train.targets["y"])
    np.testing.assert_allclose(task.scaler.scale(inside), expected, atol=1e-5)
    back = np.asarray(task.scaler.unscale(task.scaler.scale(inside)), np.float64) + task.scaler.origin[0]
    np.testing.assert_allclose(back - 1.7e9, small, atol=1e-3)
    assert plain.tasks[0].scaler.origin == () and plain.train.targets["y"].dtype == np.float32


def test_a_run_on_a_far_target_predicts_and_measures_in_its_units():
    small = 60 * (X[:, 0] + 0.5 * X[:, 1]).astype(np.float64)
    data = mtl.data.from_arrays(X, {"time": 1.7e9 + small}, val=0.2, test=0.2)
    own = mtl.metrics.base.mean_metric("own", lambda outputs, targets: jnp.minimum(outputs, targets), False)
    tasks = [dataclasses.replace(data.tasks[0], metrics=("rmse", "r2", "abs_rel", own))]
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(8,)), tasks)

    def nan_unless_own(outputs, targets, masks):
        return jnp.where(targets["time"].min() > 1.6e9, 0, jnp.nan) * outputs["time"].sum(), jnp.float32(1)

    run = mtl.fit(model, data, num_steps=300, batch_size=16, optimizer="adam(0.01)", progress=False,
                  joint_losses=[mtl.JointLoss("own units", nan_unless_own)])  # fmt: skip
    predicted, targets = run.predict(data.test.inputs)["time"], data.test.targets["time"]
    error = predicted - targets
    found = run.evaluate(data.test)["time"]
    np.testing.assert_allclose(found["rmse"], np.sqrt((error**2).mean()), rtol=1e-3)
    np.testing.assert_allclose(found["abs_rel"], (np.abs(error) / targets).mean(), rtol=1e-3)
    np.testing.assert_allclose(found["own"], np.minimum(predicted, targets).mean(), rtol=1e-6)
    assert found["r2"] > 0.9 and not run.without_say


@pytest.mark.parametrize("value", [0.1, 14.62, 1e6 + 0.1])
def test_what_is_constant_but_for_rounding_is_scaled_by_one(value):
    data = from_arrays(np.full(N, value), kinds={"y": "regression"})
    assert data.tasks[0].scaler.std == (1.0,)
    scaler = fit_scaler(data.tasks[0], data.train)
    assert isinstance(scaler, Scaler) and abs(scaler.mean[0] - value) < 1e-6 * value

"""A calibrated run: what it promises on rows that it did not see, saved and loaded, on files as on arrays."""

import warnings

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.uncertainty import coverage_of, temperature
from tests import tiny


@pytest.fixture(scope="module")
def trained():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(900, 5)).astype(np.float32)
    targets = {
        "price": 500 + 30 * x[:, 0] + 10 * draw.normal(size=900),
        "kind": np.array(["a", "b", "c"])[(2 * (x[:, 1:4] + 0.7 * draw.normal(size=(900, 3)))).argmax(1)],
        "sold": (x[:, 4] + draw.normal(size=900) > 0).astype(float),
    }
    data = mtl.data.from_arrays(x, targets, val=0.35, test=0.35)
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(32,)), data.tasks)
    return data, tiny.fit(
        model, data, num_steps=600, batch_size=32, steps_per_dispatch=50, eval_every=300, log_every=300
    )


def test_a_calibrated_run_keeps_its_promise(trained, tmp_path):
    data, run = trained
    made = run.calibrate(data.val)
    assert run.calibration is None and set(made.calibration.tasks) == {"price", "kind", "sold"}
    plain, warm = run.predict(data.test.inputs), made.predict(data.test.inputs)
    np.testing.assert_array_equal(plain["price"], warm["price"])
    np.testing.assert_array_equal(plain["kind"].argmax(1), warm["kind"].argmax(1))
    # By hand: softmax(log p / T).
    t = made.calibration.tasks["kind"].temperatures[0]
    np.testing.assert_allclose(warm["kind"], temperature.softened(plain["kind"], t), rtol=1e-5)
    seen = coverage_of(run.tasks, made.intervals(data.test.inputs, 0.8), data.test)
    assert all(0.72 < v["coverage"] for v in seen.values()) and seen["price"]["coverage"] < 0.88
    made.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    assert loaded.calibration == made.calibration
    tiny.assert_close(loaded.predict(data.test.inputs[:9]), made.predict(data.test.inputs[:9]), rtol=1e-6)


def test_it_belongs_to_its_variables(trained, tmp_path):
    data, run = trained
    run.calibrate(data.val).save(tmp_path / "run")
    path = tmp_path / "run" / "calibration.json"
    text = path.read_text()
    path.write_text(text.replace('"variables": "', '"variables": "0'))
    with pytest.warns(UserWarning, match="was made with other variables"):
        assert mtl.load_run(tmp_path / "run").calibration is None
    path.write_text(text.replace('"temperatures"', '"warmth"'))
    with pytest.raises(ValueError, match="calibration.json is damaged"):
        mtl.load_run(tmp_path / "run")


def test_training_rows_are_told(trained, tmp_path):
    data, run = trained
    run.save(tmp_path / "run")
    for each in (run, mtl.load_run(tmp_path / "run")):
        with pytest.warns(UserWarning, match="has the rows that the run was trained on"):
            each.calibrate(data.train)


def test_what_cannot_be_calibrated_is_said(trained):
    data, run = trained
    with pytest.raises(ValueError, match="the run is not calibrated"):
        run.intervals(data.test.inputs)
    none = data.val._replace(masks={n: np.zeros_like(m) for n, m in data.val.masks.items()})
    with pytest.raises(ValueError, match="no label to calibrate with"):
        run.calibrate(none)
    with pytest.raises(ValueError, match="the split is None"):
        run.calibrate(None)
    few = data.val._replace(**{f: {n: v[:5] for n, v in getattr(data.val, f).items()} for f in ("targets", "masks")})
    few = few._replace(inputs=data.val.inputs[:5])
    with pytest.warns(UserWarning, match="needs 9"):
        wide = run.calibrate(few).intervals(data.test.inputs[:3])
    assert np.isinf(wide["price"].high).all() and wide["kind"].all()


def test_a_table_is_written_with_its_intervals(tmp_path):
    """From a CSV to predictions, intervals and sets beside the rows of another file."""
    from mtl_jax.data.tables import read_table
    from mtl_jax.data.tables.predictions import beside

    draw = np.random.default_rng(1)
    area = draw.uniform(40, 160, 300)
    lines = [f"{a:.1f},{3 * a + 10 * e:.1f},{'yes' if a + 30 * e > 100 else 'no'}" for a, e in
             zip(area, draw.normal(size=300), strict=True)]  # fmt: skip
    (tmp_path / "homes.csv").write_text("area,price,sold\n" + "\n".join(lines) + "\n")
    data = mtl.data.from_csv(tmp_path / "homes.csv", targets=["price", "sold"])
    run = tiny.fit(mtl.sharing.hard(mtl.encoders.mlp(features=(8,)), data.tasks), data, num_steps=100).calibrate(
        data.val
    )
    with pytest.warns(UserWarning, match="homes.csv holds the rows that the run was trained on"):
        run.calibrate(tmp_path / "homes.csv")
    (tmp_path / "new.csv").write_text("area\n50\n150\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = read_table(tmp_path / "new.csv")
        predicted = run.predict(rows)
        frame = beside(rows.columns, run.tasks, predicted, run.intervals(rows))
    assert frame.columns == ["area", "price_predicted", "price_low", "price_high", "sold_predicted", "sold_p_no",
                             "sold_p_yes", "sold_set"]  # fmt: skip
    low, value, high = (frame[f"price_{c}"].to_numpy() for c in ("low", "predicted", "high"))
    assert (low < value).all() and (value < high).all()
    assert set(frame["sold_set"]) <= {"no", "yes", "no|yes"}

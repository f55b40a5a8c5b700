"""Calibration against closed forms, SciPy and simulation; regions against their promise."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

import mtl_jax as mtl
from mtl_jax.batch import Batch
from mtl_jax.uncertainty import calibration, conformal, temperature

TASKS = (
    mtl.Task("kind", "classification", size=3), mtl.Task("sold", "binary"), mtl.Task("tags", "multilabel", size=2),
    mtl.Task("price", "regression"), mtl.Task("place", "regression", size=2),
    mtl.Task("span", "quantile", quantiles=(0.2, 0.5, 0.8)), mtl.Task("words", "tagging", size=3),
)  # fmt: skip


def drawn(rows, seed, sure=3.0):
    """Predictions that are too sure by a factor, and labels drawn from the true probabilities."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, 3)) * 1.5
    chance, tags = draw.normal(size=rows), draw.normal(size=(rows, 2))
    mean, spread = draw.normal(size=(rows, 2)), 1.0
    shift = draw.normal(size=rows)
    predictions = {
        "kind": scipy.special.softmax(sure * logits, -1), "sold": scipy.special.expit(sure * chance),
        "tags": scipy.special.expit(tags * [sure, 1.0]), "price": mean[:, 0], "place": mean,
        "span": shift[:, None] + np.array([-0.1, 0.0, 0.1]), "words": np.zeros((rows, 4, 3)),
    }  # fmt: skip
    targets = {
        "kind": np.array([draw.choice(3, p=p) for p in scipy.special.softmax(logits, -1)], np.int32),
        "sold": (draw.random(rows) < scipy.special.expit(chance)).astype(np.float32),
        "tags": (draw.random((rows, 2)) < scipy.special.expit(tags)).astype(np.float32),
        "price": (mean[:, 0] + spread * draw.normal(size=rows)).astype(np.float32),
        "place": (mean + np.array([1.0, 5.0]) * draw.normal(size=(rows, 2))).astype(np.float32),
        "span": (shift + draw.normal(size=rows)).astype(np.float32),
        "words": np.zeros((rows, 4), np.int32),
    }  # fmt: skip
    masks = {n: np.ones(len(t), bool) for n, t in targets.items()}
    masks["price"][::3] = False
    targets["price"][::3] = np.nan
    predictions = {n: np.asarray(p, np.float32) for n, p in predictions.items()}
    return predictions, Batch(np.zeros((rows, 1)), targets, masks)


def test_the_temperature_is_the_one_that_was_put_in():
    """And where SciPy's minimum of the likelihood in the logarithm of the temperature is."""
    predictions, split = drawn(20_000, 0)
    found = calibration.calibrate(TASKS, predictions, split)
    assert set(found.tasks) == {t.name for t in TASKS} - {"words"}
    np.testing.assert_allclose(found.tasks["kind"].temperatures, 3, rtol=0.06)
    np.testing.assert_allclose(found.tasks["sold"].temperatures, 3, rtol=0.06)
    np.testing.assert_allclose(found.tasks["tags"].temperatures, [3, 1], rtol=0.08)
    assert found.tasks["price"].temperatures == ()
    chances, labels = predictions["kind"].astype(np.float64), split.targets["kind"]
    best = scipy.optimize.minimize(
        lambda x: temperature.negative_log_likelihood(chances, labels, math.exp(x[0])), [0.0], method="Nelder-Mead"
    )
    np.testing.assert_allclose(found.tasks["kind"].temperatures[0], math.exp(best.x[0]), rtol=1e-3)


def test_softened_probabilities_are_better_and_decide_alike():
    predictions, split = drawn(4_000, 0)
    new, fresh = drawn(4_000, 1)
    found = calibration.softened(calibration.calibrate(TASKS, predictions, split), TASKS, new)
    for name in ("kind",):
        np.testing.assert_array_equal(found[name].argmax(-1), new[name].argmax(-1))
        labels = fresh.targets[name]
        before, after = (temperature.negative_log_likelihood(p[name], labels) for p in (new, found))
        assert after < before - 0.1
        errors = [temperature.expected_calibration_error(p[name], labels) for p in (new, found)]
        assert errors[1] < 0.03 < errors[0]
    np.testing.assert_array_equal(found["sold"] > 0.5, new["sold"] > 0.5)
    assert found["sold"].dtype == np.float32 and found["tags"].shape == new["tags"].shape
    np.testing.assert_array_equal(found["price"], new["price"])


def test_a_threshold_is_the_order_statistic():
    scores = np.arange(1.0, 20.0)  # 19 of them: the (20 * 0.9)-th is the 18th
    assert conformal.threshold(scores, 0.9) == 18
    assert conformal.threshold(scores, 0.95) == 19
    assert conformal.threshold(scores, 0.96) == math.inf
    assert (conformal.fewest(0.9), conformal.fewest(0.95)) == (9, 19)
    many = np.random.default_rng(0).random(50_001)
    assert len(conformal.kept(many)) == conformal.KEPT
    exact = conformal.threshold(np.sort(many), 0.9)
    assert exact - 1e-12 <= conformal.threshold(conformal.kept(many), 0.9) < exact + 2e-4


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_regions_hold_what_they_promise(coverage):
    """On fresh rows of the same draw; for a normal error the width is 2 z."""
    predictions, split = drawn(5_000, 2)
    known = calibration.calibrate(TASKS, predictions, split)
    new, fresh = drawn(5_000, 3)
    found = calibration.regions(known, TASKS, calibration.softened(known, TASKS, new), coverage)
    seen = calibration.coverage_of(TASKS, found, fresh)
    assert set(seen) == set(known.tasks)
    for name, value in seen.items():
        slack = 0.02 if name in ("price", "place", "span") else 0.03  # sets cover more where the likeliest is kept
        assert coverage - 0.02 <= value["coverage"] <= coverage + slack or name in ("kind", "sold", "tags"), name
        assert value["coverage"] >= coverage - 0.02
    np.testing.assert_allclose(seen["price"]["size"], 2 * scipy.special.ndtri((1 + coverage) / 2), rtol=0.06)
    wide = found["place"].high - found["place"].low
    np.testing.assert_allclose(wide[0, 1] / wide[0, 0], 5, rtol=0.1)
    assert found["kind"].shape == (5_000, 3) and found["kind"].any(-1).all()
    assert found["tags"].shape == (5_000, 2, 2)
    assert "promised" in calibration.coverage_table(seen, coverage)


def test_too_few_labels_promise_nothing_and_say_so():
    predictions, split = drawn(6, 0)
    known = calibration.calibrate(TASKS, predictions, split)
    assert known.tasks["kind"].temperatures == (1.0,)
    with pytest.warns(UserWarning, match="task 'price' had 4 labels .* needs 9"):
        found = calibration.regions(known, TASKS[3:4], predictions, 0.9)
    assert np.isinf(found["price"].high).all() and np.isinf(found["price"].low).all()
    with pytest.raises(ValueError, match=r"coverage=1.5 must lie in \(0, 1\)"):
        calibration.regions(known, TASKS, predictions, 1.5)


def test_it_goes_through_json():
    import json

    predictions, split = drawn(50, 0)
    known = calibration.calibrate(TASKS, predictions, split)
    assert calibration.Calibration.read(json.loads(json.dumps(known.content()))) == known
    with pytest.raises(ValueError, match="no calibration"):
        calibration.Calibration.read({"a": {"temperatures": 1}})


def test_a_model_that_is_far_too_sure_is_cooled():
    """Logits of size 14 with 3% of the labels wrong: the best temperature by a grid over exact likelihoods."""
    draw = np.random.default_rng(4)
    labels = (draw.random(1_000) < 0.5).astype(np.float32)
    wrong = draw.random(1_000) < 0.03
    logits = np.where((labels > 0) ^ wrong, 1, -1) * draw.normal(14, 1.5, 1_000)
    seen = scipy.special.expit(logits.astype(np.float32)).astype(np.float32)
    found = temperature.fit_temperature(temperature.two_sided(seen), labels)
    signed = np.where(labels > 0, logits, -logits)
    grid = np.linspace(1, 10, 400)
    best = grid[np.argmin([np.logaddexp(0, -signed / t).mean() for t in grid])]
    np.testing.assert_allclose(found, best, rtol=0.1)
    # All right: any sureness would be too little, so it is left as it is.
    assert temperature.fit_temperature(temperature.two_sided(np.array([0.6, 0.4] * 8)), np.array([1, 0] * 8)) == 1


def test_rows_that_are_predicted_alike_are_in_together():
    """Three different predictions, 3,000 rows: on the rows themselves coverage is at least what was promised."""
    for trial in range(4):
        draw = np.random.default_rng(trial)
        which = draw.integers(0, 3, 3_000)
        values = scipy.special.softmax(draw.normal(size=(3, 3)), -1).astype(np.float32)
        labels = np.array([draw.choice(3, p=p / p.sum()) for p in values[which].astype(np.float64)], np.int32)
        split = Batch(np.zeros((3_000, 1)), {"kind": labels}, {"kind": np.ones(3_000, bool)})
        known = calibration.calibrate(TASKS[:1], {"kind": values[which]}, split)
        shown = calibration.softened(known, TASKS[:1], {"kind": values[which]})
        for coverage in (0.7, 0.8, 0.9, 0.95):
            found = calibration.regions(known, TASKS[:1], shown, coverage)
            assert calibration.coverage_of(TASKS[:1], found, split)["kind"]["coverage"] >= coverage


def test_rows_of_no_weight_and_the_names_of_classes_count():
    predictions, split = drawn(400, 5)
    odd = np.arange(400) % 2 == 1
    spoilt = split.targets["price"].copy()
    spoilt[odd] += 1_000
    weights = {"price": np.where(odd, 0, 1).astype(np.float32)}
    weighted = split._replace(targets={**split.targets, "price": spoilt}, weights=weights)
    masked = split._replace(masks={**split.masks, "price": split.masks["price"] & ~odd})
    found, plain = (calibration.calibrate(TASKS[3:4], predictions, s) for s in (weighted, masked))
    assert found == plain
    named = mtl.Task("kind", "classification", classes=("a", "b", "c"))
    names = np.array(["a", "b", "c"])[split.targets["kind"]]
    other = mtl.data.from_arrays(np.zeros((400, 1)), {"kind": np.array([f"{'zyx'['abc'.index(n)]}" for n in names])},
                                 val=0, test=0)  # fmt: skip
    renamed = mtl.Task("kind", "classification", classes=("z", "y", "x"))  # the data set's order is x, y, z
    ours = calibration.calibrate((named,), predictions, split)
    theirs = calibration.calibrate((renamed,), predictions, other.train)
    assert ours.tasks["kind"] == theirs.tasks["kind"]


def test_rows_count_by_their_weights():
    draw = np.random.default_rng(0)
    scores = draw.exponential(size=400)
    for weights in (np.ones(400), np.full(400, 0.3)):
        np.testing.assert_array_equal(conformal.kept(scores, weights), np.sort(scores))
    some = np.repeat([0.5, 2.0], 200)  # (100 + 400)^2 / (50 + 800) rows in effect
    found = conformal.kept(scores, some)
    assert len(found) == 294 and found[-1] == scores.max() and (np.diff(found) >= 0).all()
    repeated = np.sort(np.concatenate([scores[:200], *[scores[200:]] * 4]))  # weights as so many equal rows
    np.testing.assert_allclose(np.quantile(found, 0.9), np.quantile(repeated, 0.9), rtol=0.02)
    # Rows of weight 0 are as if they were not there; others as if they were there so often, for a temperature.
    tasks = (mtl.Task("y", "regression"), mtl.Task("c", "classification", size=3))
    chances, y, c = draw.dirichlet(np.ones(3), 60), draw.normal(size=60), draw.integers(0, 3, 60)
    predictions, weight = {"y": np.zeros(60), "c": chances}, np.repeat([0.0, 1.0, 2.0], 20)
    there = dict.fromkeys("yc", np.ones(60, bool))
    split = Batch(np.zeros((60, 1)), {"y": y, "c": c}, there, dict.fromkeys("yc", weight))
    half = split._replace(weights=dict.fromkeys("yc", np.minimum(weight, 1)))
    rows = slice(20, None)
    few = Batch(np.zeros((40, 1)), {"y": y[rows], "c": c[rows]}, {k: v[rows] for k, v in there.items()})
    alone = {k: v[rows] for k, v in predictions.items()}
    found, right = calibration.calibrate(tasks, predictions, half), calibration.calibrate(tasks, alone, few)
    assert found.tasks["y"] == right.tasks["y"] and found.tasks["c"].scores[0] == pytest.approx(
        right.tasks["c"].scores[0]
    )
    often = np.repeat(np.arange(60), weight.astype(int))
    many = Batch(np.zeros((60, 1)), {"y": y[often], "c": c[often]}, there)
    repeated = {k: v[often] for k, v in predictions.items()}
    one, other = calibration.calibrate(tasks, predictions, split), calibration.calibrate(tasks, repeated, many)
    assert one.tasks["c"].temperatures == pytest.approx(other.tasks["c"].temperatures, rel=1e-3)
    region = {"y": conformal.interval(np.zeros(60), 1.0)}
    assert calibration.coverage_of(tasks, region, split)["y"]["coverage"] == pytest.approx(
        (np.abs(y[often]) <= 1).mean()
    )
    assert not calibration.can_calibrate(tasks, split._replace(weights=dict.fromkeys("yc", np.zeros(60))))

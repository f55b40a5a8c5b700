"""Beside trees: the columns they see, the scores, what counts as noise, and what is said."""

import dataclasses
import functools
import sys

import numpy as np
import pandas
import pytest
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingRegressor

import mtl_jax as mtl
from mtl_jax import parallel
from mtl_jax.analysis import plain_models, plain_scores
from mtl_jax.analysis.trees import BesideTrees, Row, beside_trees
from mtl_jax.data import splits
from mtl_jax.data.tables.apart import apart


@functools.cache
def frame(rows=500):
    draw = np.random.default_rng(0)
    found = pandas.DataFrame({
        "a": draw.normal(size=rows), "b": draw.normal(size=rows), "city": draw.choice(["Aalen", "Bonn", "Kiel"], rows),
        "gap": np.where(draw.random(rows) < 0.3, np.nan, draw.normal(size=rows)),
    })  # fmt: skip
    found.loc[::9, "city"] = None
    steps = np.where(found.a > 0.3, 50, 0) + np.where(found.city == "Bonn", 30 * np.sign(found.b), 0)
    found["steps"] = 1000 + steps + draw.normal(size=rows)
    found["line"] = 3 * found.a - 2 * found.b + draw.normal(size=rows)
    found["sold"] = np.where(found.a + draw.normal(size=rows) > 0, "yes", "no")
    found["kind"] = np.where(found.a > 0.8, "p", np.where(found.b > 0, "q", "r"))
    found.loc[::7, "line"] = np.nan
    return found


TARGETS = ["steps", "line", "sold", "kind"]


@functools.cache
def trained():
    data = mtl.data.from_dataframe(frame(), TARGETS, kinds={"steps": "regression"})
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(16,)), data.tasks)
    run = mtl.fit(model, data, num_steps=300, optimizer="adam(0.01)", mesh=parallel.make_mesh(1), progress=False)
    return data, run


@pytest.mark.parametrize("categories", ["onehot", "codes"])
def test_columns_come_apart_as_they_were_read(categories):
    """Source: the frame itself; numbers up to the scale that they were standardised by."""
    data = mtl.data.from_dataframe(frame(), TARGETS, kinds={"steps": "regression"}, categories=categories)
    found, rows = apart(data.train.inputs, data.columns), frame().iloc[data.rows["train"]]
    names = [c.name for c in data.columns.columns if c.scales]
    assert found.numbers.shape == (len(rows), 3) and found.categories.shape == (len(rows), 1)
    for values, name in zip(found.numbers.T, names, strict=True):
        np.testing.assert_array_equal(np.isnan(values), rows[name].isna())
        there = ~np.isnan(values)
        assert np.corrcoef(values[there], rows[name][there])[0, 1] > 1 - 1e-9
    known = data.columns.categories["city"]
    assert ["" if c < 0 else known[c] for c in found.categories[:, 0]] == rows["city"].fillna("").tolist()
    assert found.cardinalities == (3,)


def test_columns_of_arrays():
    numbers, codes = np.array([[1.0, np.nan]]), np.array([[2, -1]])
    found = apart({"numbers": numbers, "categories": codes})
    np.testing.assert_array_equal(found.numbers, numbers)
    assert found.cardinalities == (3, 1) and apart(numbers).categories.shape == (1, 0)
    for wrong in (np.zeros((2, 3, 4)), {"tokens": numbers}):
        with pytest.raises(ValueError, match="inputs are no table: "):
            apart(wrong)


def test_trees_see_what_is_missing_and_linear_models_a_column_per_category():
    data, _ = trained()
    table = apart(data.train.inputs, data.columns)
    trees = plain_models.for_trees(table)
    assert np.isnan(trees[:, 2]).sum() == frame().iloc[data.rows["train"]]["gap"].isna().sum() and trees.shape[1] == 4
    (boosted,) = plain_models.boosted_models(table, False)
    assert isinstance(boosted, HistGradientBoostingRegressor)
    assert boosted.categorical_features == [False, False, False, True]
    known = np.arange(100)
    linear = plain_models.for_linear(table, known)
    np.testing.assert_allclose(linear[:100, :2].mean(0), 0, atol=1e-9)
    np.testing.assert_array_equal(linear[:, 3], np.isnan(table.numbers[:, 2]))
    np.testing.assert_array_equal(linear[:, 4:].sum(1), table.categories[:, 0] >= 0)
    wide = plain_models.for_linear(table._replace(cardinalities=(plain_models.WIDE + 1,)), known)
    assert wide.shape == (len(trees), 4 + plain_models.WIDE + 1) and wide.nnz < wide.shape[0] * 6


def test_scores_are_scikit_learns():
    draw = np.random.default_rng(0)
    labels, weights = (draw.random(60) < 0.4).astype(float), draw.uniform(0, 3, (2, 60))
    p = draw.random(60).round(1)  # with ties
    found = plain_scores.score("auroc", p, labels, weights, p)
    expected = [metrics.roc_auc_score(labels, p, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isnan(plain_scores.score("auroc", p, np.ones(60), weights, p)).all()
    chances = draw.random((60, 3))
    classes = draw.integers(0, 3, 60).astype(float)
    expected = [metrics.accuracy_score(classes, chances.argmax(1), sample_weight=w) for w in weights]
    np.testing.assert_allclose(plain_scores.score("accuracy", chances, classes, weights, chances), expected)
    expected = [np.sqrt(1 - metrics.r2_score(labels, p, sample_weight=w)) for w in weights]
    floor = np.array([np.average(labels, weights=w) for w in weights])
    found = [
        plain_scores.score("rrmse", p, labels, w[None], np.full(60, f))[0] for w, f in zip(weights, floor, strict=True)
    ]
    np.testing.assert_allclose(found, expected)


def test_the_bootstrap_is_the_standard_error():
    """Of a difference of accuracies it has a closed form; of groups it is larger where they are alike."""
    draw = np.random.default_rng(0)
    labels = np.zeros(400)
    hits = {"ours": draw.random(400) < 0.6, "trees": draw.random(400) < 0.7}
    chances = {m: np.stack([h, ~h], 1).astype(float) for m, h in hits.items()}
    how = ("accuracy", chances, labels, np.ones(400), chances["ours"])
    found = plain_scores.errors_of_differences(*how, draws=2000)["trees"]
    difference = hits["trees"].astype(float) - hits["ours"]
    assert found == pytest.approx(difference.std(ddof=1) / 20, rel=0.05)
    groups = np.argsort(np.argsort(difference)) // 40  # ten groups, alike within
    assert plain_scores.errors_of_differences(*how, groups=groups)["trees"] > 3 * found
    assert plain_scores.errors_of_differences(*how, groups=np.zeros(400, int))["trees"] == np.inf


def test_trees_and_lines_are_told_from_the_network():
    data, run = trained()
    found = beside_trees(run, data)
    assert [(r.task, r.split, r.metric) for r in found.rows] == [
        (t, s, m)
        for t, m in zip(TARGETS, ("rrmse", "rrmse", "auroc", "accuracy"), strict=True)
        for s in ("val", "test")
    ]
    by = {(r.task, r.split): r for r in found.rows}
    steps, line = by["steps", "test"], by["line", "test"]
    assert steps.verdict("trees") == "trees" and steps.scores["trees"] < 0.2 < 0.5 < steps.scores["linear"]
    assert line.scores["linear"] < line.scores["trees"]
    mae = [np.sqrt(((p - y) ** 2).mean()) for y in [data.test.targets["steps"]]
           for p in (run.predict(data.test.inputs)["steps"], data.train.targets["steps"].mean())]  # fmt: skip
    assert steps.scores["ours"] == pytest.approx(mae[0] / mae[1], rel=1e-4) and steps.scores["constant"] == 1
    own = run.evaluate(data.test)
    assert by["sold", "test"].scores["ours"] == pytest.approx(own["sold"]["auroc"], abs=1e-3)
    assert by["kind", "test"].scores["ours"] == pytest.approx(own["kind"]["accuracy"], abs=1e-6)
    assert by["sold", "test"].scores["constant"] == 0.5
    said = found.sentences()
    assert said[0].startswith("on test, boosted trees are better than this run on 1 of 4: steps (rrmse ")
    assert said[1].startswith("on test, a linear model is ") and str(found).endswith(said[1])
    assert found.content()["rows"][0]["scores"] == found.rows[0].scores
    held = dataclasses.replace(data, test=None)
    assert "no test split, and these rows chose our variables" in beside_trees(run, held).sentences()[0]


def row(task, ours, trees, error, metric="rrmse"):
    return Row(task, "test", metric, {"constant": 1.0, "linear": ours, "trees": trees, "ours": ours},
               {"trees": error, "linear": error})  # fmt: skip


def test_what_is_within_noise():
    rows = (row("a", 0.5, 0.4, 0.04), row("b", 0.5, 0.4, 0.06), row("c", 0.4, 0.5, 0.04),
            row("d", 0.8, 0.9, 0.04, "auroc"), row("e", 0.8, 0.9, np.inf))  # fmt: skip
    found = BesideTrees(rows, {"f": "its kind is box"})
    assert [r.verdict("trees") for r in found.rows] == ["trees", "within noise", "ours", "trees", "within noise"]
    assert found.sentences() == [
        "on test, boosted trees are better than this run on 2 of 5: a (rrmse 0.400 against 0.500), d (auroc 0.900 "
        "against 0.800); worse on c (rrmse 0.500 against 0.400); within noise on 2",
        "on test, a linear model is better than this run on none of 5 beyond noise; within noise on 5",
        "not compared: f (its kind is box)",
    ]
    assert found.content()["rows"][4]["errors"]["trees"] is None


def test_vectors_weights_groups_and_labels_that_are_missing():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(240, 3)).astype(np.float32)
    many = np.stack([x[:, 0] > 0, x[:, 1] + draw.normal(size=240) > 0], 1).astype(float)
    weights = np.where(np.arange(240) % 2, 1.0, 0.0)
    pair = np.stack([x[:, 0], np.where(weights > 0, x[:, 1], 99)], 1)
    data = mtl.data.from_arrays(x, {"pair": pair, "many": many}, weights={"pair": weights}, val=0.25, test=0.25,
                                split=splits.grouped(np.arange(240) // 8))  # fmt: skip
    data.test.masks["many"][:] = False
    model = mtl.sharing.hard(mtl.encoders.mlp(features=(4,)), data.tasks)
    run = mtl.fit(model, data, num_steps=5, mesh=parallel.make_mesh(1), progress=False)
    found = beside_trees(run, data, draws=50)
    assert [(r.task, r.split) for r in found.rows] == [
        ("pair[0]", "val"), ("pair[0]", "test"), ("pair[1]", "val"), ("pair[1]", "test"), ("many[0]", "val"),
        ("many[1]", "val"),
    ]  # fmt: skip
    assert found.rows[2].scores["linear"] < 0.1  # rows of weight 0 would have drawn it away
    assert all(0 < r.errors["trees"] < 1 for r in found.rows)


def test_what_it_cannot_compare_is_said(monkeypatch):
    data, run = trained()
    for change, said in (({"val": None, "test": None}, "has no held-out rows to compare on; give it val= or test="),):
        with pytest.raises(ValueError, match=said):
            beside_trees(run, dataclasses.replace(data, **change))
    with pytest.raises(ValueError, match=r"has 2 members; compare one: run.member\(i\)"):
        beside_trees(dataclasses.replace(run, members=2), data)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match=r"comparing with trees needs scikit-learn: pip install 'mtl_jax\[trees\]'"):
        mtl.analysis.beside_trees(run, data)

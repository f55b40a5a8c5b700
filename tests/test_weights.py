"""Weights of rows and classes: a row of weight w is w rows, from the scaler to the metrics; against scikit-learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.utils.class_weight import compute_class_weight

import mtl_jax as mtl
from mtl_jax import metrics, parallel, parts
from mtl_jax.batch import Batch, PerTask
from mtl_jax.class_weights import balanced
from mtl_jax.data.sampling import padded_batches
from mtl_jax.gradients.engine import linearize
from mtl_jax.metrics.base import Metric
from mtl_jax.tasks import loss_sum
from mtl_jax.training import selection
from mtl_jax.training.constants import baseline_losses, constant_results
from tests import test_metrics, test_metrics_structured, test_tasks, tiny

STRUCTURED = [(name, split) for name, split, *_ in test_metrics_structured.CASES]
OF_ROWS = [(name, lambda seed, kind=kind: test_metrics.split(kind, seed)) for name, kind, _ in test_metrics.CASES]
ALL = [*OF_ROWS, *STRUCTURED, ("median_angle", test_metrics_structured.normals)]


@pytest.mark.parametrize("name, split", ALL, ids=[f"{i}-{name.split('(')[0]}" for i, (name, _) in enumerate(ALL)])
def test_in_every_metric_a_row_of_weight_w_is_w_rows(name, split):
    metric = parts.build(name, metrics.NAMES, "metric")
    outputs, targets, mask = split(0)
    weights = np.random.default_rng(1).integers(0, 4, len(targets))
    outputs[weights == 0] = np.nan  # what does not count has no effect
    found = metric.compute(metric.measure(*map(jnp.asarray, (outputs, targets, mask, weights.astype(np.float32)))))
    often = [jnp.asarray(np.repeat(x, weights, 0)) for x in (outputs, targets, mask)]
    assert metric.weighted
    np.testing.assert_allclose(found, metric.compute(metric.measure(*often)), rtol=2e-6)


def test_metrics_of_weighted_rows_are_scikit_learns():
    """Fractions whose sum is below 1, in batches that are merged."""
    draw = np.random.default_rng(0)
    weights = draw.random(48).astype(np.float32) / 60

    def found(name, outputs, targets):
        metric = parts.build(name, metrics.NAMES, "metric")
        batches = (jnp.asarray(x.reshape(3, 16, *x.shape[1:])) for x in (outputs, targets, np.ones(48, bool), weights))
        return metric.compute(metric.merge(jax.vmap(metric.measure)(*batches)))

    def close(name, expected, outputs, targets):
        np.testing.assert_allclose(found(name, outputs, targets), expected, rtol=3e-6, err_msg=name)

    y, logits = draw.integers(3, size=48).astype(np.int32), draw.normal(size=(48, 3)).astype(np.float32)
    guess = logits.argmax(1)
    close("accuracy", reference.accuracy_score(y, guess, sample_weight=weights), logits, y)
    close("macro_f1", reference.f1_score(y, guess, average="macro", sample_weight=weights), logits, y)
    close("mean_iou", reference.jaccard_score(y, guess, average="macro", sample_weight=weights), logits, y)
    y, score = (y == 1).astype(np.float32), np.round(logits[:, 1], 1)
    close("auroc", reference.roc_auc_score(y, score, sample_weight=weights), score, y)
    close("average_precision", reference.average_precision_score(y, score, sample_weight=weights), score, y)
    y, value = logits[:, 0] + 100, logits[:, 1] + 100
    close("mae", reference.mean_absolute_error(y, value, sample_weight=weights), value, y)
    close("rmse", reference.root_mean_squared_error(y, value, sample_weight=weights), value, y)
    np.testing.assert_allclose(found("r2", value, y), reference.r2_score(y, value, sample_weight=weights), rtol=1e-4)


def repeated(split, weights):
    """The rows of a split, each as often as its weight says."""
    rows = np.repeat(np.arange(len(weights)), weights)
    return jax.tree.map(lambda x: np.asarray(x)[rows], split._replace(weights=None))


def sums(task, *arrays):
    return loss_sum(task, *map(jnp.asarray, arrays))


@pytest.mark.parametrize("made", [test_tasks.sequence_data, test_tasks.image_data], ids=["sequences", "images"])
def test_for_every_kind_a_row_of_weight_w_is_w_rows(made):
    """In losses, and in the constants and their losses."""
    data = made()
    weights = np.random.default_rng(0).integers(0, 4, len(data.train.targets[data.tasks[0].name]))
    weighted = data.train._replace(weights={t.name: weights.astype(np.float32) for t in data.tasks})
    often = repeated(data.train, weights)
    draw = np.random.default_rng(1)
    for task in data.tasks:
        target = data.train.targets[task.name]
        extra = (task.size,) if task.kind in ("classification", "tagging", "segmentation", "quantile") else ()
        outputs = draw.normal(size=(*target.shape, *extra)).astype(np.float32)
        found = sums(task, outputs, target, data.train.masks[task.name], weighted.weights[task.name])
        again = sums(task, np.repeat(outputs, weights, 0), often.targets[task.name], often.masks[task.name])
        np.testing.assert_allclose(found, again, rtol=1e-5, err_msg=task.name)
    # Quantiles of weighted labels are labels, those of plain ones lie between two; the losses are the same nearly.
    np.testing.assert_allclose(baseline_losses(data.tasks, weighted), baseline_losses(data.tasks, often), rtol=0.02)
    exact = [t for t in data.tasks if t.kind not in ("quantile", "depth")]
    found, again = (constant_results(exact, s, s) for s in (weighted, often))
    for path, value in jax.tree.leaves_with_path(found):
        other = dict(jax.tree.leaves_with_path(again))[path]
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6, err_msg=str(path))


@pytest.mark.parametrize("mode", ["map", "vmap", "layers", "columns"])
def test_gradients_of_weighted_rows_are_those_of_repeated_rows(mode):
    data = tiny.data()
    batch = tiny.batch(12)
    weights = {"color": np.arange(12) % 3, "price": np.arange(12) % 2}
    model = tiny.model(data.tasks)
    variables = tiny.init(model, batch)
    given = batch._replace(weights={t: jnp.asarray(w, jnp.float32) / 50 for t, w in weights.items()})  # sums below 1
    line = linearize(model, variables, given, tasks=data.tasks, mode=mode)
    found = line.losses, line.gramian()
    for i, task in enumerate(data.tasks):
        rows = np.repeat(np.arange(12), weights.get(task.name, np.ones(12, int)))
        alone = linearize(model, variables, jax.tree.map(lambda x, r=rows: x[r], batch), tasks=data.tasks, mode="map")
        np.testing.assert_allclose(found[0][i], alone.losses[i], rtol=1e-5)
        np.testing.assert_allclose(found[1][i, i], alone.gramian()[i, i], rtol=1e-4)
        own = {p: g for p, g in line.own().items() if p.startswith(f"tasks/{task.name}/")}
        tiny.assert_close(own, {p: alone.own()[p] for p in own}, rtol=1e-4, atol=1e-6)


def test_halves_and_examples_of_weighted_rows():
    """Halves are what each is alone; examples' losses have the weighted loss as their mean, and weight 0 is absent."""
    data, batch = tiny.data(), tiny.batch(12)
    weights = jnp.asarray(np.arange(12) % 3, jnp.float32) / 50
    given = batch._replace(weights={t.name: weights for t in data.tasks})
    model = tiny.model(data.tasks)
    variables = tiny.init(model, batch)
    line = linearize(model, variables, given, tasks=data.tasks, mode="map")
    halves = [jax.tree.map(lambda x, i=i: x[i::2], given) for i in (0, 1)]
    one, two = (linearize(model, variables, h, tasks=data.tasks, mode="map").jacobian() for h in halves)
    expected = sum(one[p].reshape(3, -1) @ two[p].reshape(3, -1).T for p in one)
    np.testing.assert_allclose(line.cross()[0], expected, rtol=1e-4, atol=1e-6)
    found = line.examples()
    mean = np.where(found.present, found.losses, 0).sum(1) / np.asarray(found.scale)
    np.testing.assert_allclose(mean, line.losses, rtol=1e-5)
    there = np.stack([np.asarray(batch.masks[t.name]) & (np.asarray(weights) > 0) for t in data.tasks])
    np.testing.assert_array_equal(found.present, there)


def noisy(weights=None, masks=None):
    """Rows from 60 on hold labels that are nonsense."""
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    bad = np.arange(100) >= 60
    targets = {"a": np.where(bad, 1e4, x.sum(1)), "b": np.where(bad, 1.0, x[:, 0] > 0)}
    return mtl.data.from_arrays(x, targets, kinds={"b": "binary"}, weights=weights, masks=masks)


def test_rows_of_weight_0_are_rows_without_labels():
    """The whole way: scaler, training, selection, metrics; with one device and several, jit and pmap."""
    good = np.arange(100) < 60
    weighted, masked = noisy(weights=good * 0.5), noisy(masks={"a": good, "b": good})
    assert weighted.tasks[0].scaler == masked.tasks[0].scaler
    model = tiny.model(weighted.tasks)
    one = tiny.fit(model, masked, balancer="upgrad")
    for options in ({}, {"mesh": parallel.make_mesh(2), "parallel": "pmap"}):
        run = tiny.fit(model, weighted, balancer="upgrad", **options)
        tiny.assert_close(run.variables, one.variables, rtol=2e-4, atol=2e-5)
    found, expected = run.evaluate(weighted.test), one.evaluate(masked.test)
    for task in expected:
        assert found[task] == pytest.approx(expected[task], rel=1e-3, nan_ok=True)
    by = [selection.yardstick(d.tasks, d.train, d.val)[0] for d in (weighted, masked)]
    np.testing.assert_allclose(by[0].constants, by[1].constants, rtol=1e-5)
    np.testing.assert_allclose(by[0].say, by[1].say, rtol=1e-5)


def test_weights_go_where_their_rows_go():
    weights = np.arange(1, 101, dtype=np.float64)
    data = mtl.data.from_arrays(weights[:, None], {"a": weights * 1.0, "b": weights % 2}, weights={"a": weights})
    for split in (data.train, data.val, data.test, data.take(7).train, data.select(("a",)).train):
        assert set(split.weights) == {"a"}
        np.testing.assert_array_equal(split.weights["a"], split.inputs[:, 0])
    assert data.select(("b",)).train.weights is None
    padded = padded_batches(data.test, 4)
    rows = np.asarray(padded.masks["a"])
    np.testing.assert_array_equal(padded.weights["a"][rows], padded.inputs[..., 0][rows])
    own = PerTask({"a": weights[:, None], "b": weights[:50, None]})
    data = mtl.data.from_arrays(own, {"a": weights, "b": weights[:50] % 2}, weights={"b": weights[:50]})
    np.testing.assert_array_equal(data.val.weights["b"], data.val.inputs["b"][:, 0])
    run = tiny.fit(tiny.model(data.tasks), data, num_steps=5, eval_every=5, log_every=5)
    assert np.isfinite(run.evaluate(data.test)["b"]["loss"])
    both = mtl.data.from_arrays(
        weights[:, None], {"a": weights}, val=(weights[:3, None], {"a": weights[:3]}, None, [1, 2, 3])
    )
    assert both.train.weights is None and both.val.weights["a"].tolist() == [1, 2, 3]


def test_weights_that_make_no_sense():
    x, y = np.ones((4, 1)), {"a": np.arange(4.0)}

    def load(weights):
        return mtl.data.from_arrays(x, y, weights=weights, val=0, test=0)

    for weights, message in {
        (1, -1, 1, 1): r"task 'a': weights of train: -1 in row 1 must be finite and at least 0; 0 leaves a row out",
        (1, 1, np.nan, 1): "weights of train: nan in row 2",
        (1, 1, 1, np.inf): "weights of train: inf in row 3",
        (0, 0, 0, 0): "task 'a': every labelled row of train has weight 0; leave it out or give it weights above 0",
        (1, 1, 1): r"task 'a': weights are int64 \(3,\); they must be numbers, one for each of 4 rows",
        ("x",) * 4: "task 'a': weights are <U1",
    }.items():
        with pytest.raises(ValueError, match=message):
            load(np.asarray(weights))
    with pytest.raises(ValueError, match="unknown task in weights 'A'"):
        load({"A": np.ones(4)})

    def hits(outputs, targets, mask):
        return (outputs > targets).sum(where=mask)

    own = Metric("hits", hits, lambda s: s.sum(), lambda s: s, True)
    data = noisy(weights=np.ones(100))
    task = dataclasses.replace(data.tasks[0], metrics=(own,))
    with pytest.raises(
        ValueError, match="task 'a' has row weights, and its metric 'hits' takes none; give it a measure"
    ):
        tiny.fit(tiny.model((task,)), data)


def test_missing_codes():
    x = np.ones((6, 1))
    targets = {"tox": np.array([0, 1, -1, 1, 0, -1]), "score": np.array([-1.0, 2.5, -100, 3, -1, 4]),
               "kind": np.array(["?", "a", "b", "a", "-1", "b"])}  # fmt: skip
    data = mtl.data.from_arrays(x, targets, missing={"tox": -1, "score": (-1, -100), "kind": "?"}, val=0, test=0)
    masks = data.train.masks
    assert masks["tox"].tolist() == [True, True, False, True, True, False]
    assert masks["score"].tolist() == [False, True, False, True, False, True]
    assert masks["kind"].tolist() == [False] + [True] * 5 and data.tasks[2].classes == ("-1", "a", "b")
    assert data.tasks[0].kind == "binary" and data.tasks[1].scaler.mean[0] == pytest.approx(9.5 / 3)
    # For all tasks, and in splits of their own; text is no number.
    held = mtl.data.from_arrays(x, targets, missing=-1, val=(x[:3], {k: v[:3] for k, v in targets.items()}), test=0)
    assert held.val.masks["tox"].tolist() == [True, True, False] and held.train.masks["kind"].all()
    with pytest.raises(ValueError, match="unknown task in missing 'toxic'"):
        mtl.data.from_arrays(x, targets, missing={"toxic": -1})


def test_class_weights_are_scikit_learns():
    """The loss is log_loss with the class's weight as sample weight; "balanced" that of compute_class_weight."""
    draw = np.random.default_rng(0)
    y, logits = draw.choice(3, 40, p=[0.7, 0.2, 0.1]).astype(np.int32), draw.normal(size=(40, 3)).astype(np.float32)
    mask = draw.random(40) < 0.8
    split = Batch(np.zeros((40, 1)), {"t": y}, {"t": mask})
    task = balanced(mtl.Task("t", "classification", 3, class_weights="balanced"), split)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=y[mask])
    np.testing.assert_allclose(task.class_weights, weights, rtol=1e-6)
    total, count = sums(task, logits, y, mask)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = reference.log_loss(y[mask], p[mask], sample_weight=weights[y[mask]], labels=[0, 1, 2])
    assert float(total / count) == pytest.approx(expected, rel=1e-5)
    # With weights of rows they multiply, and balance what the rows weigh.
    rows = draw.random(40).astype(np.float32)
    total, count = sums(task, logits, y, mask, rows)
    expected = reference.log_loss(y[mask], p[mask], sample_weight=(rows * weights[y])[mask], labels=[0, 1, 2])
    assert float(total / count) == pytest.approx(expected, rel=1e-5)
    again = balanced(dataclasses.replace(task, class_weights="balanced"), split._replace(weights={"t": rows}))
    parts_of = np.bincount(y[mask], (rows * np.asarray(again.class_weights)[y])[mask])
    np.testing.assert_allclose(parts_of, parts_of[0], rtol=1e-5)
    # The constant that scores are measured from is the best of the weighted loss: all classes alike, log 3.
    assert baseline_losses([task], split)[0] == pytest.approx(np.log(3), rel=1e-4)


def test_class_weights_train_save_and_load(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    rare = (x[:, 0] > 1.5) * 1.0
    recall = {}
    for weights in (None, "balanced", {1: 30}):
        task = mtl.Task("rare", "binary", class_weights=weights, metrics=("accuracy", "auroc"))
        data = mtl.data.from_arrays(x, {"rare": rare}, kinds={"rare": task})
        run = tiny.fit(tiny.model(data.tasks), data, num_steps=40)
        recall[str(weights)] = (run.predict(x)["rare"][rare > 0] > 0.5).mean()
    assert recall["None"] < recall["balanced"] and recall["{1: 30}"] == 1
    assert run.tasks[0].class_weights == (1.0, 30.0)
    run.save(tmp_path / "run")
    assert mtl.load_run(tmp_path / "run").tasks == run.tasks


def test_class_weights_that_make_no_sense():
    def task(weights, kind="classification", **more):
        return mtl.Task("t", kind, class_weights=weights, **({"size": 3} if kind == "classification" else {}) | more)

    assert task({2: 5}).class_weights == (1.0, 1.0, 5.0)
    assert task({"no": 2}, classes=("no", "yes", "so")).class_weights == (2.0, 1.0, 1.0)
    for weights, message in {
        "even": "task 't': class_weights='even' is neither 'balanced', a number per class, nor {class: number}",
        (1, 2): "class_weights holds 2 numbers for 3 classes",
        (1, -2, 1): "class weight -2 of 1 must be a finite number, at least 0",
        (0, 0, 0): "every class weight is 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            task(weights)
    with pytest.raises(ValueError, match="unknown class in class_weights of task 't': '7'"):
        task({7: 1})
    with pytest.raises(ValueError, match="kind 'regression' has none; weights of rows serve any kind"):
        task((1, 2), "regression")
    with pytest.raises(ValueError, match="'balanced' is counted from training labels"):
        sums(task("balanced"), np.zeros((2, 3), np.float32), np.zeros(2, np.int32), np.ones(2, bool))

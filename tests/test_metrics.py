"""Metrics of batches that are measured, merged and computed inside one jitted program, against scikit-learn on all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as reference

from mtl_jax import metrics, parts
from mtl_jax.metrics import base, curves

SEEDS, BATCHES, ROWS, PADDING = 2, 3, 16, 5  # the last batch ends in padding
CLASSES, WIDTH = 4, 3


def split(kind, seed):
    """Outputs, targets and mask of a split with missing labels, [BATCHES * ROWS, ...]; nan where there is no label.

    Outputs lie on a grid of 0.5 and so have many ties; of "classes", no row has two equal logits.
    """
    random = np.random.default_rng(seed)
    rows = BATCHES * ROWS
    shape = {"classes": (rows,), "binary": (rows,), "scalar": (rows,)}.get(kind, (rows, WIDTH))
    mask = random.random((rows,) if kind == "vector" else shape) < 0.8
    mask[-PADDING:] = False
    if kind == "classes":
        targets = random.integers(CLASSES - 1, size=rows).astype(np.int32)  # no row is of the last class
        outputs = random.permuted(np.tile(np.arange(CLASSES, dtype=np.float32), (rows, 1)), axis=1)
        outputs[np.arange(rows), targets] += 1.5 * random.integers(2, size=rows)
    elif kind in ("binary", "multilabel"):
        targets = random.integers(2, size=shape).astype(np.float32)
        outputs = (np.round(4 * (random.standard_normal(shape) + targets - 0.5)) / 2).astype(np.float32)
    else:
        targets = random.normal(10.0, 2.0, size=shape).astype(np.float32)
        outputs = (targets + random.standard_normal(shape)).astype(np.float32)
    outputs[~mask] = np.nan
    targets[~mask] = 0
    return outputs, targets, mask


def measured(metric, outputs, targets, mask):
    """The metric of batches [batch, row, ...]."""
    return metric.compute(metric.merge(jax.lax.map(lambda batch: metric.measure(*batch), (outputs, targets, mask))))


@functools.partial(jax.jit, static_argnums=0)
def of_one(metric, outputs, targets, mask=None):
    """The metric of one batch, by default of labelled rows only."""
    mask = jnp.ones(len(targets), bool) if mask is None else mask
    return metric.compute(metric.measure(outputs, targets, mask))


def per_column(score):
    """The mean over columns of a reference for one label or dim, each over its own labelled rows."""

    def mean(outputs, targets, mask):
        mask = np.broadcast_to(mask.reshape(len(mask), -1), targets.shape)
        columns = range(targets.shape[1])
        return np.mean([score(targets[mask[:, c], c], outputs[mask[:, c], c]) for c in columns])

    return mean


def rows(score):
    return lambda outputs, targets, mask: score(targets[mask], outputs[mask])


def by_sign(score):
    return lambda targets, outputs: score(targets, (outputs > 0).astype(np.float32))


def by_class(score):
    return lambda targets, outputs: score(targets, outputs.argmax(-1))


def macro_f1(targets, predicted):
    return reference.f1_score(targets, predicted, average="macro")


def mean_iou(targets, predicted):
    return reference.jaccard_score(targets, predicted, average="macro")


CASES = [
    ("accuracy", "classes", rows(by_class(reference.accuracy_score))),
    ("accuracy", "binary", rows(by_sign(reference.accuracy_score))),
    ("accuracy", "multilabel", per_column(by_sign(reference.accuracy_score))),
    ("top_k(k=2)", "classes", rows(lambda t, o: reference.top_k_accuracy_score(t, o, k=2, labels=range(CLASSES)))),
    ("macro_f1", "classes", rows(by_class(macro_f1))),
    ("mean_iou", "classes", rows(by_class(mean_iou))),
    ("macro_f1", "binary", rows(by_sign(macro_f1))),
    ("macro_f1", "multilabel", per_column(by_sign(reference.f1_score))),
    ("auroc", "binary", rows(reference.roc_auc_score)),
    ("auroc", "multilabel", per_column(reference.roc_auc_score)),
    ("average_precision", "binary", rows(reference.average_precision_score)),
    ("average_precision", "multilabel", per_column(reference.average_precision_score)),
    ("mae", "scalar", rows(reference.mean_absolute_error)),
    ("mae", "vector", rows(reference.mean_absolute_error)),
    ("rmse", "scalar", rows(reference.root_mean_squared_error)),
    ("rmse", "vector", rows(reference.root_mean_squared_error)),
    ("abs_rel", "scalar", rows(reference.mean_absolute_percentage_error)),
    ("r2", "scalar", rows(reference.r2_score)),
    ("r2", "vector", rows(reference.r2_score)),
]


@pytest.mark.parametrize("name, kind, score", CASES, ids=[f"{name}-{kind}" for name, kind, _ in CASES])
def test_merged_batches_equal_scikit_learn_on_all_rows(name, kind, score):
    """Source: scikit-learn, on the labelled rows of the whole split; two seeds at once under vmap, within jit."""
    metric = parts.build(name, metrics.NAMES, "metric")
    splits = [split(kind, seed) for seed in range(SEEDS)]
    stacked = [jnp.asarray(np.stack(arrays)) for arrays in zip(*splits, strict=True)]
    batched = [a.reshape(SEEDS, BATCHES, ROWS, *a.shape[2:]) for a in stacked]
    found = jax.jit(jax.vmap(lambda *arrays: measured(metric, *arrays)))(*batched)
    np.testing.assert_allclose(found, [score(*arrays) for arrays in splits], rtol=2e-6)


ROW_METRICS = sorted({name.split("(")[0] for name, _, _ in CASES})


@pytest.mark.parametrize("name", ROW_METRICS)
def test_no_label_gives_nan_and_a_batch_without_labels_changes_nothing(name):
    """Source: the contract that a missing label is normal; equal to the bit."""
    metric = parts.build(f"{name}(k=2)" if name == "top_k" else name, metrics.NAMES, "metric")
    kind = {
        "top_k": "classes",
        "mean_iou": "classes",
        "abs_rel": "vector",
        "mae": "vector",
        "rmse": "vector",
        "r2": "vector",
    }.get(name, "multilabel")
    outputs, targets, mask = split(kind, 0)
    masks = np.zeros((3, 3, *mask.shape), bool)  # [split, batch, ...]
    masks[1, 0], masks[2, 1] = mask, mask  # split 0: no label; 1: labels in the first batch; 2: in the second

    def of_split(masks):
        states = jax.vmap(lambda m: metric.measure(jnp.asarray(outputs), jnp.asarray(targets), m))(masks)
        return metric.compute(metric.merge(states))

    nothing, first, second = jax.jit(jax.vmap(of_split))(masks)
    alone = of_one(metric, outputs, targets, mask)
    assert np.isnan(nothing) and np.isfinite(alone)
    assert first == second == alone


@pytest.mark.parametrize("name", ROW_METRICS)
def test_direction(name):
    """Source: the meaning of `higher_is_better`; targets as predictions are best, and reach 1 or 0."""
    metric = parts.build(f"{name}(k=1)" if name == "top_k" else name, metrics.NAMES, "metric")
    kind = {
        "top_k": "classes",
        "mean_iou": "classes",
        "abs_rel": "scalar",
        "mae": "scalar",
        "rmse": "scalar",
        "r2": "scalar",
    }.get(name, "binary")
    outputs, targets, mask = split(kind, 1)
    perfect = {"scalar": targets, "binary": targets - 0.5}.get(kind)
    perfect = np.eye(CLASSES, dtype=np.float32)[targets] if perfect is None else perfect
    best, real = of_one(metric, perfect, targets, mask), of_one(metric, outputs, targets, mask)
    assert best == (1 if metric.higher_is_better else 0)
    assert best > real if metric.higher_is_better else best < real


def test_undefined_labels_are_left_out_of_the_mean():
    """Source: scikit-learn on the labels that have both classes (a curve needs both), or a positive (precision)."""
    random = np.random.default_rng(0)
    targets = random.integers(2, size=(20, 4)).astype(np.float32)
    targets[:, 1], targets[:, 2] = 0, 1
    mask = np.ones((20, 4), bool)
    mask[:, 3] = False
    scores = random.standard_normal((20, 4)).astype(np.float32)
    area = reference.roc_auc_score(targets[:, 0], scores[:, 0])
    np.testing.assert_allclose(of_one(metrics.auroc(), scores, targets, mask), area, rtol=1e-6)
    precision = (reference.average_precision_score(targets[:, 0], scores[:, 0]) + 1) / 2  # all positive: 1
    np.testing.assert_allclose(of_one(metrics.average_precision(), scores, targets, mask), precision, rtol=1e-6)
    assert np.isnan(of_one(metrics.auroc(), scores[:, 2], targets[:, 2]))
    assert np.isnan(of_one(metrics.average_precision(), scores[:, 1], targets[:, 1]))


def test_r2_needs_two_rows_and_targets_that_differ():
    """Source: the definition divides by the targets' sum of squares, exactly 0 here though 0.1 has no exact float."""
    targets = np.full((7, 2), 10000.1, np.float32)
    outputs = targets + np.linspace(-1, 1, 14, dtype=np.float32).reshape(7, 2)
    assert np.isnan(of_one(metrics.r2(), outputs, targets))
    assert np.isnan(of_one(metrics.r2(), outputs[:1], targets[:1]))
    targets[:, 1] += np.arange(7, dtype=np.float32)
    expected = reference.r2_score(targets[:, 1], outputs[:, 1])
    np.testing.assert_allclose(of_one(metrics.r2(), outputs, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("mean", [1e4, -1e6])
def test_r2_in_float32_with_a_large_mean(mean):
    """Source: scikit-learn in float64 on the same float32 numbers; batches have means of their own."""
    random = np.random.default_rng(3)
    targets = (mean + random.standard_normal((8, 32)) + 0.5 * np.arange(8)[:, None]).astype(np.float32)
    outputs = (targets + 0.3 * random.standard_normal((8, 32))).astype(np.float32)
    found = measured(metrics.r2(), jnp.asarray(outputs), jnp.asarray(targets), jnp.ones((8, 32), bool))
    expected = reference.r2_score(targets.ravel().astype(np.float64), outputs.ravel().astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ranking_of_many_rows_in_float32():
    """Source: scikit-learn; 5e9 pairs and ranks above 2^16, which a float32 or int32 sum of ranks would lose."""
    random = np.random.default_rng(4)
    targets = random.integers(2, size=150_000).astype(np.float32)
    scores = np.round(random.standard_normal(targets.size) + targets, 2).astype(np.float32)
    state = curves.Scored(jnp.asarray(scores), jnp.asarray(targets > 0), jnp.ones(targets.size, jnp.int32))
    area, precision = (jax.jit(f)(state)[0] for f in (curves.roc_area, curves.precision_area))
    np.testing.assert_allclose(area, reference.roc_auc_score(targets, scores), rtol=3e-7)
    np.testing.assert_allclose(precision, reference.average_precision_score(targets, scores), rtol=3e-7)


def test_counts_pass_the_integers_that_float32_holds():
    """Source: integer arithmetic; float32 stops counting at 2^24."""
    many = base.Mean(jnp.array([2**24, 1]), jnp.array([2**24, 1]))
    assert metrics.accuracy().merge(many).count == 2**24 + 1


def test_extreme_scores_are_ranked():
    """Source: scikit-learn for the finite ones; infinities are the largest and smallest scores, and 0 ties with -0."""
    targets = np.array([0, 1, 0, 1, 1, 0], np.float32)
    scores = np.array([-np.inf, np.inf, 0.0, -0.0, 1.0, 2.0], np.float32)
    finite = np.array([-9, 9, 0, 0, 1, 2], np.float32)
    np.testing.assert_allclose(of_one(metrics.auroc(), scores, targets), reference.roc_auc_score(targets, finite))


def test_a_diverged_output_is_not_hidden():
    """Source: by hand; a nan output is a wrong class, and a nan in one dim or label makes the mean over them nan."""
    logits = np.eye(3, dtype=np.float32)
    logits[0] = np.nan
    assert of_one(metrics.accuracy(), logits, np.arange(3, dtype=np.int32)) == np.float32(2 / 3)
    assert of_one(metrics.top_k(k=2), logits, np.arange(3, dtype=np.int32)) == np.float32(2 / 3)
    assert of_one(metrics.macro_f1(), logits, np.arange(3, dtype=np.int32)) == np.float32(2 / 3)
    assert of_one(metrics.accuracy(), np.float32([np.nan, -1]), np.zeros(2, np.float32)) == 0.5
    for kind, names in {"vector": ("mae", "rmse", "r2"), "multilabel": ("auroc", "average_precision")}.items():
        outputs, targets, mask = split(kind, 0)
        outputs[np.flatnonzero(mask[:, 0] if mask.ndim > 1 else mask)[0], 0] = np.nan
        for name in names:
            assert np.isnan(of_one(metrics.NAMES[name](), outputs, targets, mask)), name


def test_top_k_breaks_ties_as_lax_top_k():
    """Source: `jax.lax.top_k`, which puts the lower of two equal classes first; argmax does so too."""
    random = np.random.default_rng(5)
    logits = random.integers(3, size=(40, 6)).astype(np.float32)
    targets = random.integers(6, size=40).astype(np.int32)
    for k in (1, 2, 4):
        expected = np.mean((np.asarray(jax.lax.top_k(logits, k)[1]) == targets[:, None]).any(1))
        np.testing.assert_allclose(of_one(metrics.top_k(k=k), logits, targets), expected, rtol=1e-6)
    expected = np.mean(logits.argmax(1) == targets)
    np.testing.assert_allclose(of_one(metrics.accuracy(), logits, targets), expected, rtol=1e-6)
    assert metrics.top_k(k=3).name == "top_3"


def test_classes_of_tokens_count_like_rows():
    """Source: scikit-learn on the flattened tokens; the mask is of rows."""
    random = np.random.default_rng(6)
    logits = random.standard_normal((6, 5, 3)).astype(np.float32)
    targets = random.integers(3, size=(6, 5)).astype(np.int32)
    mask = np.arange(6) < 4
    flat = targets[mask].ravel(), logits[mask].argmax(-1).ravel()
    np.testing.assert_allclose(of_one(metrics.accuracy(), logits, targets, mask), reference.accuracy_score(*flat))
    np.testing.assert_allclose(of_one(metrics.macro_f1(), logits, targets, mask), macro_f1(*flat), rtol=1e-6)


def test_half_precision_outputs_are_measured_in_float32():
    """Source: scikit-learn; in bfloat16 a sum of 300 ones stops at 256."""
    outputs, targets = jnp.ones(300, jnp.bfloat16), jnp.zeros(300, jnp.float32)
    assert of_one(metrics.mae(), outputs, targets) == reference.mean_absolute_error(targets, np.ones(300))


def test_wrong_shapes_and_arguments_are_named():
    for k in (0, -1):
        with pytest.raises(ValueError, match=r"top_k: k=.* must be an integer of at least 1"):
            metrics.top_k(k)
    with pytest.raises(ValueError, match=r"top_5 is for classification with more than 5 classes, not outputs \(4, 3\)"):
        of_one(metrics.top_k(), np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
    for name in ("accuracy", "macro_f1", "auroc", "mae", "r2"):  # [N, 1] against [N] would broadcast to [N, N]
        with pytest.raises(ValueError, match=r"same shape, not \(4, 1\) and \(4,\)"):
            of_one(metrics.NAMES[name](), np.zeros((4, 1), np.float32), np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        parts.build("acuracy", metrics.NAMES, "metric")

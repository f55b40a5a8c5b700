"""Metrics of spans, lists, quantiles, boxes and normals: batches merged inside one program, against other programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as reference

from mtl_jax import metrics, parts
from tests.test_metrics import measured, of_one

BATCHES, ROWS = 3, 8
TAGS = ("O", "B-city", "I-city", "B-date", "I-date")


def conlleval_spans(tags):
    """Spans of one sequence by a plain reading of the CoNLL-2000 script's rules, token by token."""
    found, start, kind = [], None, None
    for i, tag in enumerate([*tags, "O"]):
        goes_on = tag.startswith("I-") and tag[2:] == kind
        if kind is not None and not goes_on:
            found.append((start, i, kind))
            kind = None
        if tag != "O" and not goes_on:
            start, kind = i, tag[2:]
    return set(found)


def conlleval_f1(logits, tags, mask):
    """F1 over all spans, of sequences from which tokens without a label were removed beforehand."""
    hit = predicted = actual = 0
    for row in range(len(tags)):
        left, right = (
            conlleval_spans([TAGS[c] for c in classes[row][mask[row]]]) for classes in (logits.argmax(-1), tags)
        )
        hit, predicted, actual = hit + len(left & right), predicted + len(left), actual + len(right)
    return 2 * hit / (predicted + actual)


def sequences(seed):
    """Logits that are right two times out of three, tags, and a mask with padding and holes."""
    draw = np.random.default_rng(seed)
    tags = draw.choice(len(TAGS), p=(0.4, 0.15, 0.2, 0.1, 0.15), size=(BATCHES * ROWS, 9)).astype(np.int32)
    logits = draw.normal(size=(*tags.shape, len(TAGS))).astype(np.float32)
    right = draw.random(tags.shape) < 0.6
    logits[right] += 9 * np.eye(len(TAGS), dtype=np.float32)[tags[right]]
    mask = (np.arange(9) < draw.integers(1, 10, size=len(tags))[:, None]) & (draw.random(tags.shape) < 0.9)
    return logits, tags, mask


def lists(seed):
    """Scores with ties, grades 0 to 3, lists of different lengths; every list has an item of grade above 0."""
    draw = np.random.default_rng(seed)
    grades = draw.integers(4, size=(BATCHES * ROWS, 13)).astype(np.float32)
    scores = np.round(draw.normal(size=grades.shape) + grades / 2).astype(np.float32)
    mask = np.arange(13) < draw.integers(2, 14, size=len(grades))[:, None]
    grades[:, 0] = 1 + grades[:, 0] % 3
    return scores, grades, mask


def ndcg(k, gain):
    def mean(scores, grades, mask):
        pairs = [(gain(g[m])[None], s[m][None]) for s, g, m in zip(scores, grades, mask, strict=True)]
        return np.mean([reference.ndcg_score(g, s, k=k) for g, s in pairs])

    return mean


LEVELS = (0.1, 0.5, 0.9)


def quantiles(seed):
    draw = np.random.default_rng(seed)
    targets = draw.normal(20, 3, size=BATCHES * ROWS).astype(np.float32)
    outputs = np.sort(targets[:, None] + 2 * draw.normal(size=(len(targets), 3)), axis=1).astype(np.float32)
    return outputs, targets, draw.random(len(targets)) < 0.8


def pinball(outputs, targets, mask):
    columns = enumerate(LEVELS)
    return np.mean([reference.mean_pinball_loss(targets[mask], outputs[mask, i], alpha=q) for i, q in columns])


def boxes(seed):
    """Boxes on a grid of whole numbers, so that overlaps can be counted cell by cell."""
    draw = np.random.default_rng(seed)
    low = draw.integers(0, 8, size=(2, BATCHES * ROWS, 2))
    both = np.concatenate([low, low + draw.integers(1, 7, size=low.shape)], -1).astype(np.float32)
    return both[0], both[1], draw.random(BATCHES * ROWS) < 0.8


def cells(box):
    x0, y0, x1, y1 = box.astype(int)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def box_iou(outputs, targets, mask):
    pairs = [(cells(o), cells(t)) for o, t in zip(outputs[mask], targets[mask], strict=True)]
    return np.mean([len(a & b) / max(len(a | b), 1) for a, b in pairs])


def normals(seed):
    """Vectors of any length near others, some very near; pixels without a label."""
    draw = np.random.default_rng(seed)
    targets = draw.normal(size=(BATCHES * ROWS, 4, 5, 3))
    outputs = targets / np.linalg.norm(targets, axis=-1, keepdims=True)
    outputs += draw.choice([1e-4, 0.1, 0.5, 2.0], size=targets.shape[:3] + (1,)) * draw.normal(size=targets.shape)
    return outputs.astype(np.float32), targets.astype(np.float32), draw.random(targets.shape[:3]) < 0.8


def angles(finish):
    """Of arc cosines in float64."""

    def score(outputs, targets, mask):
        a, b = (x[mask].astype(np.float64) for x in (outputs, targets))
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        return finish(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    return score


def images(seed):
    """Depths above 0, and a few zeros, which no relative error counts."""
    draw = np.random.default_rng(seed)
    targets = draw.uniform(1, 9, size=(BATCHES * ROWS, 4, 5)).astype(np.float32)
    targets[draw.random(targets.shape) < 0.1] = 0
    outputs = (targets + draw.normal(size=targets.shape)).astype(np.float32)
    return outputs, targets, draw.random(targets.shape) < 0.8


def pixels(score):
    return lambda outputs, targets, mask: score(targets[mask], outputs[mask])


def relative(targets, outputs):
    return reference.mean_absolute_percentage_error(targets[targets > 0], outputs[targets > 0])


# (metric, split, reference, what a perfect output is)
CASES = [
    (f"span_f1(classes={TAGS})", sequences, conlleval_f1, 1.0),
    ("ndcg(k=5)", lists, ndcg(5, lambda g: 2**g - 1), 1.0),
    ("ndcg(gain='linear')", lists, ndcg(10, lambda g: g), 1.0),
    (f"pinball(quantiles={LEVELS})", quantiles, pinball, 0.0),
    ("coverage", quantiles, lambda o, t, m: np.mean((o[m, 0] <= t[m]) & (t[m] <= o[m, 2])), 1.0),
    ("box_iou", boxes, box_iou, 1.0),
    ("mean_angle", normals, angles(np.mean), 0.0),
    ("angle_within(22.5)", normals, angles(lambda a: np.mean(a < 22.5)), 1.0),
    ("mae", images, pixels(reference.mean_absolute_error), 0.0),
    ("rmse", images, pixels(reference.root_mean_squared_error), 0.0),
    ("r2", images, pixels(reference.r2_score), 1.0),
    ("abs_rel", images, pixels(relative), 0.0),
]


@functools.partial(jax.jit, static_argnums=0)
def of_splits(metric, outputs, targets, masks):
    """One metric of several splits [split, batch, row, ...]."""
    return jax.vmap(lambda *arrays: measured(metric, *arrays))(outputs, targets, masks)


def perfect(name, targets):
    if name.startswith("span"):
        return np.eye(len(TAGS), dtype=np.float32)[targets]
    return np.repeat(targets[:, None], 3, 1) if name.startswith(("pinball", "coverage")) else targets


@pytest.mark.parametrize(
    "name, split, score, best", CASES, ids=[c[0].split("(")[0] + f"-{i}" for i, c in enumerate(CASES)]
)
def test_merged_batches_equal_the_reference_on_all_rows(name, split, score, best):
    """Source: scikit-learn, or the plain counting above, on labelled elements; nan where there is no label.

    One program measures five splits: two of different draws; one of perfect outputs; one without any label; and one
    whose second and third batches hold no label, which is the first batch alone.
    """
    metric = parts.build(name, metrics.NAMES, "metric")
    first, second = split(0), split(1)
    given = [first, second, (perfect(name, first[1]), *first[1:]), first, first]
    expected = [score(*first), score(*second), best, np.nan, score(*(x[:ROWS] for x in first))]
    given[3] = (*first[:2], np.zeros_like(first[2]))
    given[4] = (*first[:2], first[2] & (np.arange(len(first[2])) < ROWS).reshape(-1, *[1] * (first[2].ndim - 1)))
    hidden = []
    for outputs, targets, mask in given:
        outputs, targets = outputs.copy(), targets.copy()
        if targets.dtype == np.float32:
            targets[~mask] = np.nan
        outputs[~mask] = np.nan
        hidden.append((outputs, targets, mask))
    stacked = [np.stack(arrays) for arrays in zip(*hidden, strict=True)]
    found = of_splits(metric, *(jnp.asarray(a.reshape(len(given), BATCHES, ROWS, *a.shape[2:])) for a in stacked))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-5 if best == 0 else 0)
    assert best == (1 if metric.higher_is_better else 0)


def test_median_angle():
    """Source: NumPy's median, which a bin of 0.05 degrees bounds where half of the angles lie densely."""
    outputs, targets, mask = normals(0)
    found = of_one(metrics.median_angle(), outputs, targets, mask)
    assert abs(found - angles(np.median)(outputs, targets, mask)) < 0.3  # angles near the median are 0.2 degrees apart
    spread = np.linspace(0, 60, 4001)
    vectors = np.stack([np.cos(np.radians(spread)), np.sin(np.radians(spread)), 0 * spread], -1).astype(np.float32)
    dense, x = vectors[None, None], np.zeros((1, 1, 4001, 3), np.float32)
    x[..., 0] = 2
    np.testing.assert_allclose(of_one(metrics.median_angle(), dense, x), 30, atol=0.05)
    assert np.isnan(of_one(metrics.median_angle(), dense, x, jnp.zeros(1, bool)))
    np.testing.assert_allclose(of_one(metrics.median_angle(), -x, x), 180, atol=0.05)


# Tags, predicted tags, and (hit, predicted, actual) as seqeval 1.2.2 counts them: its classification_report's true
# positives, and its get_entities on both, in its default mode, which is conlleval's.
SEQEVAL = [
    ("B-x I-x O B-y", "B-x I-x O B-y", (2, 2, 2)),
    ("B-x I-x I-x O", "B-x I-x O O", (0, 1, 1)),
    ("B-x I-x O O", "I-x I-x O O", (1, 1, 1)),
    ("B-x B-x O O", "B-x I-x O O", (0, 1, 2)),
    ("B-x I-y O O", "B-x B-y O O", (2, 2, 2)),
    ("O I-y I-y B-y", "O B-y I-y I-y", (0, 1, 2)),
    ("B-x O I-x I-x", "O O I-x I-x", (1, 1, 2)),
    ("O O O O", "B-x I-y I-x I-x", (0, 3, 0)),
]


def test_spans_are_those_of_seqeval():
    """Source: seqeval 1.2.2, recorded above; all cases as rows of one call, and each by itself."""
    names = ("O", "B-x", "I-x", "B-y", "I-y")
    metric = metrics.span_f1(names)
    tags, guessed = (
        np.array([[names.index(t) for t in case[i].split()] for case in SEQEVAL], np.int32) for i in (0, 1)
    )
    logits = np.eye(len(names), dtype=np.float32)[guessed]
    counts = jax.jit(jax.vmap(lambda o, t: metric.measure(o[None], t[None], jnp.ones(1, bool))))(logits, tags)
    np.testing.assert_array_equal(np.stack(counts, -1), [counts for _, _, counts in SEQEVAL])
    hit, predicted, actual = np.sum([counts for _, _, counts in SEQEVAL], 0)
    np.testing.assert_allclose(of_one(metric, logits, tags), 2 * hit / (predicted + actual), rtol=1e-6)


def test_tokens_without_a_label_are_skipped():
    """Source: the definition; the second piece of a word has no label and breaks no span."""
    tags = np.array([[1, 0, 2, 0]], np.int32)
    mask = np.array([[True, False, True, True]])
    assert of_one(metrics.span_f1(TAGS), np.eye(5, dtype=np.float32)[tags], tags, mask) == 1
    shorter = np.eye(5, dtype=np.float32)[np.array([[1, 2, 0, 0]])]
    assert of_one(metrics.span_f1(TAGS), shorter, tags, mask) == 0


def test_equal_scores_and_empty_lists():
    """Source: by hand; scores that are all equal earn the mean over orders, and a list of grades 0 has no order."""
    grades = np.array([[0, 0, 1], [0, 0, 0]], np.float32)
    mean = (1 + 1 / np.log2(3) + 1 / 2) / 3
    np.testing.assert_allclose(of_one(metrics.ndcg(), np.zeros((2, 3), np.float32), grades), mean, rtol=1e-6)
    assert np.isnan(of_one(metrics.ndcg(), np.zeros((1, 3), np.float32), grades[1:]))
    low = np.array([[-np.inf, 1, 2]], np.float32)  # an item scored -inf is last, but there
    expected = reference.ndcg_score([[1, 0, 1]], [[-9, 1, 2]])
    np.testing.assert_allclose(of_one(metrics.ndcg(), low, np.float32([[1, 0, 1]])), expected, rtol=1e-6)


def test_a_diverged_output_is_not_hidden():
    """Source: the contract: a nan output is wrong where things are counted, and makes other metrics nan."""
    nan = np.float32(np.nan)
    logits = np.eye(5, dtype=np.float32)[[[1, 2, 0, 0]]]
    tags = np.array([[1, 2, 0, 0]], np.int32)
    logits[0, 3] = nan
    np.testing.assert_allclose(of_one(metrics.span_f1(TAGS), logits, tags), 2 / 3, rtol=1e-6)  # one span too many
    assert of_one(metrics.coverage(), np.array([[nan, nan], [0, 2]]), np.ones(2, np.float32)) == 0.5
    vectors = np.ones((1, 1, 2, 3), np.float32)
    broken = vectors.copy()
    broken[0, 0, 0, 0] = nan
    assert of_one(metrics.angle_within(30), broken, vectors) == 0.5
    assert np.isnan(of_one(metrics.mean_angle(), broken, vectors))
    assert np.isnan(of_one(metrics.median_angle(), broken, vectors))
    box = np.array([[0, 0, 1, 1]], np.float32)
    assert np.isnan(of_one(metrics.box_iou(), box * nan, box))
    assert np.isnan(of_one(metrics.ndcg(), np.array([[nan, 1]], np.float32), np.ones((1, 2), np.float32)))
    assert np.isnan(of_one(metrics.pinball(), np.full((1, 1), nan), np.ones(1, np.float32)))
    assert np.isnan(of_one(metrics.abs_rel(), np.full(1, nan), np.ones(1, np.float32)))


def test_every_metric_has_a_reference():
    from tests.test_metrics import CASES as of_rows

    named = {name.split("(")[0] for name, *_ in (*CASES, *of_rows)}
    assert named | {"median_angle"} == set(metrics.NAMES)


def test_wrong_shapes_and_arguments_are_named():
    with pytest.raises(ValueError, match="span_f1 needs class names O, B-type and I-type, .* they are NOUN, VERB"):
        metrics.span_f1(("NOUN", "VERB"))
    with pytest.raises(ValueError, match="span_f1 needs class names .* they are none"):
        metrics.span_f1()
    with pytest.raises(ValueError, match=r"outputs \(2, 3, 4\) do not fit targets \(2, 3\) of 5 tags"):
        of_one(metrics.span_f1(TAGS), np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.int32))
    for text, message in {
        "ndcg(k=0)": "ndcg: k=0 must be an integer of at least 1",
        "ndcg(gain='squared')": r"unknown gain of ndcg 'squared'; \(exponential, linear\)",
        "pinball(quantiles=(0.0,))": "pinball: quantiles=.* must be levels in",
        "angle_within(0.0)": "angle_within: degrees=0.0 must lie between 0 and 180",
    }.items():
        with pytest.raises(ValueError, match=message):
            parts.build(text, metrics.NAMES, "metric")
    with pytest.raises(ValueError, match=r"outputs \(4, 3\) must be the targets' shape \(4,\) and one axis of 2"):
        of_one(metrics.pinball((0.1, 0.9)), np.zeros((4, 3), np.float32), np.zeros(4, np.float32))

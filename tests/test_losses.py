"""Losses per element, in float64 where a formula is compared, against scikit-learn and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.special
import sklearn.metrics as reference
from jax.test_util import check_grads

from mtl_jax import losses, parts

ROWS, CLASSES = 12, 4
WEIGHTS = (0.5, 1.0, 0.0, 3.0)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def logits_and_classes():
    random = np.random.default_rng(0)
    return random.standard_normal((ROWS, CLASSES)), random.integers(CLASSES, size=ROWS).astype(np.int32)


def logits_and_labels(shape=(ROWS,)):
    random = np.random.default_rng(1)
    return 2 * random.standard_normal(shape), random.integers(2, size=shape).astype(np.float64)


def values_and_targets():
    random = np.random.default_rng(2)
    return 2 * random.standard_normal((ROWS, 3)), random.standard_normal((ROWS, 3))


def call(text, outputs, targets):
    values = jax.jit(parts.build(text, losses.NAMES, "loss"))(outputs, targets)
    assert values.shape == targets.shape
    return np.asarray(values)


def test_cross_entropy(float64):
    """Source: scikit-learn's log_loss, row by row and with the target class's weight as the row's."""
    logits, classes = logits_and_classes()
    probabilities = scipy.special.softmax(logits, axis=-1)
    found, weighted = call("cross_entropy", logits, classes), call(f"cross_entropy(0.0, {WEIGHTS})", logits, classes)
    for i in range(ROWS):
        expected = reference.log_loss(classes[i : i + 1], probabilities[i : i + 1], labels=range(CLASSES))
        np.testing.assert_allclose(found[i], expected, rtol=1e-12)
        np.testing.assert_allclose(weighted[i], WEIGHTS[classes[i]] * expected, rtol=1e-12)


def test_cross_entropy_with_label_smoothing(float64):
    """Source: SciPy; 1 - a of the loss of the target class, plus a of the mean loss over all classes."""
    logits, classes = logits_and_classes()
    costs = -scipy.special.log_softmax(logits, axis=-1)
    expected = 0.9 * costs[np.arange(ROWS), classes] + 0.1 * costs.mean(-1)
    np.testing.assert_allclose(call("cross_entropy(label_smoothing=0.1)", logits, classes), expected, rtol=1e-12)


def test_cross_entropy_of_tokens(float64):
    """Source: each token is a row of its own."""
    logits, classes = logits_and_classes()
    tokens = call("cross_entropy", logits.reshape(3, -1, CLASSES), classes.reshape(3, -1))
    np.testing.assert_array_equal(tokens.ravel(), call("cross_entropy", logits, classes))


def test_binary_cross_entropy(float64):
    """Source: scikit-learn's log_loss, row by row."""
    logits, labels = logits_and_labels()
    found = call("binary_cross_entropy", logits, labels)
    expected = [
        reference.log_loss([t], [[1 - p, p]], labels=[0, 1])
        for t, p in zip(labels, scipy.special.expit(logits), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_binary_cross_entropy_with_weights_and_smoothing(float64):
    """Source: the documented formula in SciPy, of several labels with a weight each, or one for all."""
    logits, labels = logits_and_labels((ROWS, 3))
    smoothed = 0.8 * labels + 0.1
    for weight in (2.5, (0.5, 1.0, 4.0)):
        positive, negative = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
        expected = -(np.asarray(weight) * smoothed * positive + (1 - smoothed) * negative)
        found = call(f"binary_cross_entropy(label_smoothing=0.2, pos_weight={weight})", logits, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_regression_losses(float64):
    """Source: scikit-learn for the means, SciPy's huber for its elements."""
    outputs, targets = values_and_targets()
    np.testing.assert_allclose(call("mse", outputs, targets).mean(), reference.mean_squared_error(targets, outputs))
    np.testing.assert_allclose(call("mae", outputs, targets).mean(), reference.mean_absolute_error(targets, outputs))
    for delta in (1.0, 0.3):
        found = call(f"huber(delta={delta})", outputs, targets)
        np.testing.assert_allclose(found, scipy.special.huber(delta, outputs - targets), rtol=1e-12)


def test_hinge(float64):
    """Source: scikit-learn's hinge_loss, which takes labels -1 and 1."""
    logits, labels = logits_and_labels()
    expected = reference.hinge_loss(2 * labels - 1, logits)
    np.testing.assert_allclose(call("hinge", logits, labels).mean(), expected, rtol=1e-12)


LEVELS = (0.1, 0.5, 0.9)


def directions():
    random = np.random.default_rng(3)
    return 3 * random.standard_normal((2, 4, 5, 3)), random.standard_normal((2, 4, 5, 3))


def boxes():
    """Corners on a grid, for targets in order; half of the outputs in another order."""
    random = np.random.default_rng(4)
    low = random.integers(0, 6, size=(2, ROWS, 2))
    outputs, targets = np.concatenate([low, low + random.integers(1, 6, size=low.shape)], -1).astype(np.float64)
    outputs[::2] = outputs[::2][:, [2, 1, 0, 3]]
    return outputs, targets


def quantiles():
    random = np.random.default_rng(5)
    return 2 * random.standard_normal((ROWS, len(LEVELS))), random.standard_normal(ROWS)


def lists():
    """Scores and grades, of which the first three items are labelled; the last list has no grade above 0 there."""
    random = np.random.default_rng(6)
    grades = random.integers(4, size=(ROWS, 5)).astype(np.float64)
    grades[-1, :3] = 0
    return 2 * random.standard_normal((ROWS, 5)), grades


LISTS = ("listwise_softmax", "pairwise_logistic")


def three_items(text):
    """The loss as a function of outputs and targets; for lists, with their first three items labelled."""
    loss = parts.build(text, losses.NAMES, "loss")
    return (lambda o, t: loss(o, t, jnp.broadcast_to(jnp.arange(5) < 3, t.shape))) if text in LISTS else loss


def test_cosine(float64):
    """Source: SciPy's cosine distance, vector by vector; one of length 0 has the loss of a right angle."""
    outputs, targets = directions()
    found = np.asarray(jax.jit(losses.cosine())(outputs, targets))
    pairs = zip(outputs.reshape(-1, 3), targets.reshape(-1, 3), strict=True)
    np.testing.assert_allclose(found.ravel(), [scipy.spatial.distance.cosine(a, b) for a, b in pairs], rtol=1e-9)
    value, gradient = jax.value_and_grad(lambda o: losses.cosine()(o, jnp.array([0.0, 1e-9, 0.0])))(jnp.zeros(3))
    assert value == 1
    np.testing.assert_allclose(gradient, [0, -1000, 0], rtol=1e-6)  # towards the target, whatever its length


def test_box(float64):
    """Source: SciPy's Huber for the corners; for GIoU, grid cells of both, of either, and of the box around."""
    outputs, targets = boxes()
    corners = scipy.special.huber(0.5, outputs - targets).mean(-1) / 0.5
    np.testing.assert_allclose(np.asarray(jax.jit(losses.box(beta=0.5))(outputs, targets)), corners, rtol=1e-12)

    def cells(*given):
        x, y = (sorted(c for box in given for c in box[axis::2].astype(int)) for axis in (0, 1))
        return {(i, j) for i in range(x[0], x[-1]) for j in range(y[0], y[-1])}

    giou = []
    for a, b in zip(outputs, targets, strict=True):
        either, around = len(cells(a) | cells(b)), len(cells(a, b))
        giou.append(len(cells(a) & cells(b)) / either - (around - either) / around)
    found = np.asarray(jax.jit(losses.box(beta=0.5, giou=2.0))(outputs, targets))
    np.testing.assert_allclose(found, corners + 2 * (1 - np.array(giou)), rtol=1e-12)
    scale = np.array([3.0, 0.1, 3.0, 0.1])  # a scaler of x and y leaves GIoU as it is
    outputs, targets = jnp.asarray(outputs * scale), jnp.asarray(targets * scale)
    both = losses.box(giou=1.0)(outputs, targets) - losses.box()(outputs, targets)
    np.testing.assert_allclose(both, 1 - np.array(giou), rtol=1e-9)


def test_pinball(float64):
    """Source: scikit-learn, level by level and row by row."""
    outputs, targets = quantiles()
    found = np.asarray(jax.jit(losses.pinball(LEVELS))(outputs, targets))
    expected = [
        np.mean([reference.mean_pinball_loss([t], [o], alpha=q) for o, q in zip(row, LEVELS, strict=True)])
        for row, t in zip(outputs, targets, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_listwise_softmax(float64):
    """Source: SciPy's log-softmax of the labelled items alone; what the others hold has no effect, nor a gradient."""
    scores, grades = lists()
    loss = three_items("listwise_softmax")
    values = np.asarray(loss(jnp.asarray(scores), jnp.asarray(grades)))
    gradient = jax.grad(lambda s: loss(s, jnp.asarray(grades)).sum())(jnp.asarray(scores))
    share = grades[:, :3] / np.maximum(grades[:, :3].sum(-1, keepdims=True), 1)
    expected = -(share * scipy.special.log_softmax(scores[:, :3], axis=-1)).sum(-1)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert values[-1] == 0
    assert not gradient[:, 3:].any() and gradient[:-1, :3].all() and not gradient[-1].any()


def test_pairwise_logistic(float64):
    """Source: every pair in turn; what items without labels hold has no effect, nor a gradient."""
    scores, grades = lists()
    loss = three_items("pairwise_logistic")
    values = np.asarray(loss(jnp.asarray(scores), jnp.asarray(grades)))
    gradient = jax.grad(lambda s: loss(s, jnp.asarray(grades)).sum())(jnp.asarray(scores))
    for found, score, grade in zip(values, scores, grades, strict=True):
        pairs = [np.log1p(np.exp(score[j] - score[i])) for i in range(3) for j in range(3) if grade[i] > grade[j]]
        assert found == pytest.approx(np.mean(pairs) if pairs else 0, rel=1e-12)
    assert not gradient[:, 3:].any() and not gradient[-1].any() and gradient[:-1].any()


ALL = {
    "cross_entropy": logits_and_classes,
    f"cross_entropy(0.1, {WEIGHTS})": logits_and_classes,
    "binary_cross_entropy": logits_and_labels,
    "binary_cross_entropy(0.1, 3.0)": logits_and_labels,
    "mse": values_and_targets,
    "mae": values_and_targets,
    "huber": values_and_targets,
    "hinge": logits_and_labels,
    "cosine": directions,
    "box(giou=0.5)": lambda: tuple(x + 0.1 * np.arange(4) for x in boxes()),  # off the corners of min and max
    f"pinball({LEVELS})": quantiles,
    "listwise_softmax": lists,
    "pairwise_logistic": lists,
}


@pytest.mark.parametrize("text", ALL)
def test_gradients(text, float64):
    """Source: finite differences in float64."""
    outputs, targets = ALL[text]()
    loss = three_items(text)
    function = jax.jit(lambda o: loss(o, jnp.asarray(targets)))
    check_grads(function, (jnp.asarray(outputs),), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize("text", ALL)
def test_masked_and_extreme_elements_have_finite_losses_and_gradients(text):
    """Source: the contract that a missing label holds target 0; float32, where exp overflows above 88."""
    outputs, targets = ALL[text]()
    outputs, targets = jnp.asarray(outputs, jnp.float32), jnp.asarray(np.zeros_like(targets))
    targets = targets if targets.dtype == jnp.int32 else targets.astype(jnp.float32)
    loss = three_items(text)
    scaled = jnp.stack([0 * outputs, outputs, 1e4 * outputs])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda o: loss(o, targets).sum())))(scaled)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


@pytest.mark.parametrize("text", ["mse", "mae", "huber"])
def test_an_exact_fit_is_not_pushed_away(text):
    """Source: 0 is the minimum, where the subgradient nearest to 0 is 0."""
    loss = parts.build(text, losses.NAMES, "loss")
    np.testing.assert_array_equal(jax.grad(lambda o: loss(o, jnp.ones(3)).sum())(jnp.ones(3)), 0)


def test_half_precision_outputs_lose_nothing_to_the_loss():
    """Source: the targets; 1000 and 1001 are one number in bfloat16, but targets stay float32."""
    values = losses.mse()(jnp.full(2, 1000, jnp.bfloat16), jnp.array([1000.0, 1001.0]))
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, [0, 1])
    assert losses.cross_entropy()(jnp.zeros((2, 3), jnp.bfloat16), jnp.zeros(2, jnp.int32)).dtype == jnp.float32


@pytest.mark.parametrize(
    "text, message",
    [
        ("cross_entropy(label_smoothing=1.0)", r"label_smoothing: 1.0 must be a finite number in \[0, 1\)"),
        ("cross_entropy(class_weights=(1.0, -1.0))", "class_weights: -1.0 must be a finite number >= 0"),
        ("cross_entropy(class_weights=(0.0, 0.0))", "at least one factor above 0"),
        ("binary_cross_entropy(label_smoothing=-0.1)", "label_smoothing: -0.1"),
        ("binary_cross_entropy(pos_weight=0.0)", "pos_weight: 0.0 must be a finite number above 0"),
        ("binary_cross_entropy(pos_weight=(1.0, 1e999))", "pos_weight: inf must be"),
        ("huber(delta=0.0)", "delta: 0.0 must be a finite number above 0"),
        ("box(beta=0.0)", "beta: 0.0 must be a finite number above 0"),
        ("box(giou=-1.0)", "giou: -1.0 must be a finite number >= 0"),
        ("pinball(quantiles=(0.5, 1.0))", r"pinball: quantiles=\(0.5, 1.0\) must be levels in \(0, 1\)"),
        ("crossentropy", "did you mean 'cross_entropy'"),
    ],
)
def test_values_out_of_range(text, message):
    with pytest.raises(ValueError, match=message):
        parts.build(text, losses.NAMES, "loss")


def test_shapes_that_do_not_fit():
    column, row, square = jnp.zeros((4, 1)), jnp.zeros(4), jnp.zeros((4, 3))
    for text in ("binary_cross_entropy", "mse", "mae", "huber", "hinge"):  # [4, 1] with [4] would broadcast to [4, 4]
        with pytest.raises(ValueError, match=rf"{text}: outputs \(4, 1\) and targets \(4,\) must have the same shape"):
            losses.NAMES[text]()(column, row)
    with pytest.raises(ValueError, match=r"targets \(4, 1\) do not fit logits \(4, 3\)"):
        losses.cross_entropy()(square, jnp.zeros((4, 1), jnp.int32))
    with pytest.raises(ValueError, match="class_weights has 2 entries, but there are 3 classes"):
        losses.cross_entropy(class_weights=(1.0, 2.0))(square, jnp.zeros(4, jnp.int32))
    with pytest.raises(
        ValueError, match=r"pinball: outputs \(4, 3\) must be the targets' shape \(4,\) and one axis of 2"
    ):
        losses.pinball((0.1, 0.9))(square, row)
    for outputs in (square, row):  # four rows are not four labels
        with pytest.raises(ValueError, match="pos_weight has 4 entries"):
            losses.binary_cross_entropy(pos_weight=(1.0, 2.0, 3.0, 4.0))(outputs, outputs)

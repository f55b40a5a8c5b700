"""Merging trees: each method against an independent small form, on trees of a kernel, a bias and a counter."""

import jax
import numpy as np
import pytest

from mtl_jax import partition
from mtl_jax.transfer import merging
from mtl_jax.transfer.merging import trees
from mtl_jax.transfer.merging.regmean import nearest_minimum
from mtl_jax.transfer.merging.ties import threshold
from mtl_jax.transfer.merging.wudi import by_adam
from tests import tiny


def tree(seed, size=(6, 4), dtype=np.float32):
    draw = np.random.default_rng(seed)
    kernel, bias = draw.normal(size=size).astype(dtype), draw.normal(size=size[-1:]).astype(dtype)
    return {"layer": {"kernel": kernel, "bias": bias}, "count": np.asarray(3, np.int32)}


BASE, MODELS = tree(0), [tree(i) for i in (1, 2, 3)]


def kernels(trees=MODELS):
    return np.stack([t["layer"]["kernel"] for t in trees]).astype(np.float64)


def vectors(trees=MODELS):
    return kernels(trees) - BASE["layer"]["kernel"]


def mean_bias(scale=1.0):
    """Leaves that are no matrices are averaged."""
    start = BASE["layer"]["bias"]
    return start + scale * (np.mean([m["layer"]["bias"] for m in MODELS], 0) - start)


def test_averages():
    found = merging.average(MODELS, weights=(1, 0, 3))
    expected = (MODELS[0]["layer"]["kernel"] + 3 * MODELS[2]["layer"]["kernel"]) / 4
    np.testing.assert_allclose(found["layer"]["kernel"], expected, rtol=1e-6)
    assert found["count"] == 3 and found["count"].dtype == np.int32
    tiny.assert_close(merging.average([BASE]), BASE, rtol=0)
    half = merging.wise_ft(BASE, MODELS[:1], alpha=0.25)
    np.testing.assert_allclose(half["layer"]["bias"], 0.75 * BASE["layer"]["bias"] + 0.25 * MODELS[0]["layer"]["bias"],
                               rtol=1e-6)  # fmt: skip
    tiny.assert_close(merging.wise_ft(BASE, MODELS[:1], alpha=1.0), MODELS[0], rtol=1e-6)


def test_a_greedy_soup_keeps_what_does_not_lower_the_score():
    """Scores of single models 2 > 1 > 0; with the second the mean is nearer to the aim, with the third it is not."""
    models = [{"w": np.array(v)} for v in ([9.0, 9.0], [0.0, 1.5], [1.0, 0.0])]
    aim = np.array([0.5, 0.7])
    found, kept = merging.greedy_soup(models, lambda m: -float(np.abs(m["w"] - aim).sum()))
    assert kept == [2, 1]
    np.testing.assert_array_equal(found["w"], [0.5, 0.75])
    with pytest.raises(ValueError, match=r"the scores of the models are \[nan, nan, nan\]; they must be finite"):
        merging.greedy_soup(models, lambda m: float("nan"))


def test_task_arithmetic_and_dare():
    found = merging.task_arithmetic(BASE, MODELS, scale=0.3)
    np.testing.assert_allclose(found["layer"]["kernel"], BASE["layer"]["kernel"] + 0.3 * vectors().sum(0), rtol=2e-5)
    key = jax.random.key(0)
    tiny.assert_close(merging.dare(BASE, MODELS, key, drop=0.0), found, rtol=1e-5)
    big = [tree(i, (300, 200)) for i in (1, 2)]
    start = tree(0, (300, 200))
    dropped = merging.dare(start, big[:1], key, drop=0.9, scale=1.0)
    change = dropped["layer"]["kernel"] - start["layer"]["kernel"]
    whole = (big[0]["layer"]["kernel"] - start["layer"]["kernel"]).astype(np.float64)
    assert (change != 0).mean() == pytest.approx(0.1, abs=0.005)
    np.testing.assert_allclose(change[change != 0], 10 * whole[change != 0], rtol=1e-3, atol=1e-5)
    again = merging.dare(start, big[:1], key, drop=0.9, scale=1.0)
    tiny.assert_same(dropped, again)
    other = merging.dare(start, big[:1], jax.random.key(1), drop=0.9, scale=1.0)
    assert (other["layer"]["kernel"] != dropped["layer"]["kernel"]).any()
    trimmed = merging.dare(start, big, key, drop=0.0, keep=0.2, scale=1.0)
    tiny.assert_close(trimmed, merging.ties(start, big), rtol=1e-5)


def test_ties_by_hand():
    """Kept are the two largest of four: [5, -4, 0, 0], [-6, 0, 3, 0], [2, -1, 0, 0]. Of the sums the signs are +, -, +
    and none. Agreeing: 5 and 2; -4 and -1; 3."""
    base = {"w": np.zeros(4, np.float32)}
    models = [{"w": np.array(v, np.float32)} for v in ([5, -4, 1, 0.5], [-6, 1, 3, 0.5], [2, -1, 0.5, -0.5])]
    found = merging.ties(base, models, keep=0.5)
    np.testing.assert_allclose(found["w"], [3.5, -2.5, 3, 0])
    np.testing.assert_allclose(merging.ties(base, models, keep=0.5, scale=2)["w"], [7, -5, 6, 0])
    assert threshold({"w": models[0]["w"]}, base, 0.5) == 4


def test_a_tie_of_signs_goes_with_the_majority():
    base = {"w": np.zeros(3, np.float32)}
    models = [{"w": np.array(v, np.float32)} for v in ([2, -1, -1], [-2, -1, -1])]
    np.testing.assert_allclose(merging.ties(base, models, keep=1.0)["w"], [-2, -1, -1])


def test_tsv_m_is_the_product_of_orthogonal_factors():
    """By the polar factor U (U'U)^-1/2 of an eigendecomposition; of one model it is the model."""
    found = merging.tsv_m(BASE, MODELS[:2], scale=0.7)
    parts = [np.linalg.svd(v, full_matrices=False) for v in vectors()[:2]]
    left, right = (np.concatenate([p[i] for p in two], 1) for i, two in
                   ((0, [(u[:, :2],) for u, _, _ in parts]), (0, [(v[:2].T,) for _, _, v in parts])))  # fmt: skip
    spread = np.concatenate([s[:2] for _, s, _ in parts])

    def polar(matrix):
        values, turn = np.linalg.eigh(matrix.T @ matrix)
        return matrix @ turn @ np.diag(values**-0.5) @ turn.T

    expected = BASE["layer"]["kernel"] + 0.7 * polar(left) @ np.diag(spread) @ polar(right).T
    np.testing.assert_allclose(found["layer"]["kernel"], expected, atol=1e-5)
    tiny.assert_close(merging.tsv_m(BASE, MODELS[:1]), MODELS[0], atol=1e-5)
    many = [tree(i) for i in range(1, 8)]  # more tasks than the rank
    assert np.isfinite(merging.tsv_m(BASE, many)["layer"]["kernel"]).all()


def test_iso_c_has_equal_singular_values_and_the_directions_of_the_sum():
    found = merging.iso_c(BASE, MODELS, scale=0.5)
    change = found["layer"]["kernel"] - BASE["layer"]["kernel"]
    total = vectors().sum(0)
    mean = np.linalg.svd(total, compute_uv=False).mean()
    np.testing.assert_allclose(np.linalg.svd(change, compute_uv=False), np.full(4, 0.5 * mean), rtol=1e-5)
    # The symmetric factor of the polar decomposition is positive: change' total has only positive eigenvalues.
    assert (np.linalg.eigvalsh((change.T @ total + total.T @ change) / 2) > 0).all()
    np.testing.assert_allclose(found["layer"]["bias"], mean_bias(0.5), rtol=1e-5)


def grams(inputs):
    return [{"layer/kernel": x.T @ x / len(x)} for x in inputs]


def test_regmean_is_least_squares():
    """Against numpy.linalg.lstsq of all tasks' inputs and answers stacked; more rows of a task do not count more."""
    draw = np.random.default_rng(7)
    inputs = [draw.normal(size=(40, 6)) for _ in MODELS]
    found = merging.regmean(MODELS, grams(inputs), keep=1.0)
    stacked = np.concatenate(inputs)
    answers = np.concatenate([x @ k for x, k in zip(inputs, kernels(), strict=True)])
    expected = np.linalg.lstsq(stacked, answers, rcond=None)[0]
    np.testing.assert_allclose(found["layer"]["kernel"], expected, atol=1e-5)
    np.testing.assert_allclose(found["layer"]["bias"], mean_bias(), rtol=1e-5)
    twice = merging.regmean(MODELS, grams([np.concatenate([x, x]) if i else x for i, x in enumerate(inputs)]), keep=1.0)
    tiny.assert_close(twice, found, rtol=1e-5)
    diagonal = merging.regmean(MODELS, grams(inputs), keep=0.0)["layer"]["kernel"]
    weights = np.stack([(x**2).mean(0) for x in inputs])[..., None]
    np.testing.assert_allclose(diagonal, (weights * kernels()).sum(0) / weights.sum(0), atol=1e-5)


def test_regmean_averages_what_no_input_reaches():
    """The inverse of the formula does not exist there: dead units have rows of zeros."""
    inputs = [np.random.default_rng(i).normal(size=(40, 6)) * (np.arange(6) < 4) for i in range(3)]
    for keep in (1.0, 0.9):
        found = merging.regmean(MODELS, grams(inputs), keep=keep)["layer"]["kernel"]
        np.testing.assert_allclose(found[4:], kernels().mean(0)[4:], atol=1e-6)
    assert np.abs(found[:4] - kernels().mean(0)[:4]).max() > 0.1


def test_regmean_of_equal_models_is_the_model_and_regmean_plus_plus_goes_stage_by_stage():
    """The second stage's inputs are what the merged first stage gives, computed here by hand."""
    draw = np.random.default_rng(3)
    models = [{"first": {"kernel": draw.normal(size=(5, 4))}, "second": {"kernel": draw.normal(size=(4, 3))}}
              for _ in range(2)]  # fmt: skip
    inputs = [draw.normal(size=(30, 5)) for _ in models]
    seen = []

    def grams_of(i, params):
        hidden = np.tanh(inputs[i] @ params["first"]["kernel"])
        seen.append((i, params))
        return {"first/kernel": inputs[i].T @ inputs[i], "second/kernel": hidden.T @ hidden}

    stages = [["first/kernel"], ["second/kernel"]]
    found = merging.regmean_plus_plus(models, stages, grams_of, keep=1.0)
    first = np.linalg.lstsq(np.concatenate(inputs), np.concatenate(
        [x @ m["first"]["kernel"] for x, m in zip(inputs, models, strict=True)]), rcond=None)[0]  # fmt: skip
    hidden = [np.tanh(x @ first) for x in inputs]
    second = np.linalg.lstsq(np.concatenate(hidden), np.concatenate(
        [h @ m["second"]["kernel"] for h, m in zip(hidden, models, strict=True)]), rcond=None)[0]  # fmt: skip
    np.testing.assert_allclose(found["first"]["kernel"], first, atol=1e-8)
    np.testing.assert_allclose(found["second"]["kernel"], second, atol=1e-8)
    assert len(seen) == 4
    same = merging.regmean_plus_plus([models[0], models[0]], stages, grams_of)
    tiny.assert_close(same, models[0], rtol=1e-8)


def test_wudi_is_the_minimum_of_its_function():
    """Nothing near it has a lower value, its gradient is 0, and Adam gets there."""
    found = merging.wudi(BASE, MODELS)["layer"]["kernel"] - BASE["layer"]["kernel"].astype(np.float64)
    parts = vectors()

    def value(merged):
        return sum((((merged - v).T @ v) ** 2).sum() / (v**2).sum() for v in parts)

    draw = np.random.default_rng(0)
    assert all(value(found) < value(found + 0.01 * draw.normal(size=found.shape)) for _ in range(20))
    assert value(found) < 0.5 * value(parts.sum(0))
    weights = [v @ v.T / (v**2).sum() for v in parts]
    slow = by_adam(parts.sum(0), list(parts), weights, 4000, 0.01)
    np.testing.assert_allclose(slow, found, atol=2e-2)
    wide = [tree(i, (6, 2)) for i in range(2)]  # task vectors of rank 2 in 6 dimensions: the sum stays elsewhere
    start = tree(9, (6, 2))
    found = merging.wudi(start, wide)["layer"]["kernel"] - start["layer"]["kernel"].astype(np.float64)
    changes = [m["layer"]["kernel"] - start["layer"]["kernel"].astype(np.float64) for m in wide]
    away = np.linalg.svd(np.concatenate(changes, 1))[0][:, 4:]
    np.testing.assert_allclose(away.T @ found, away.T @ sum(changes), atol=1e-5)
    weights = [v @ v.T / (v**2).sum() for v in changes]
    np.testing.assert_allclose(found, nearest_minimum(np.sum(changes, 0), np.stack(changes), weights), atol=1e-6)
    published = merging.wudi(BASE, MODELS, steps=300)["layer"]["kernel"] - BASE["layer"]["kernel"]
    assert 0 < np.abs(published - parts.sum(0)).max() < 0.0031  # 300 steps of 1e-5


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes_stay(dtype):
    dtype = jax.numpy.dtype(dtype)
    base, models = tree(0, dtype=dtype), [tree(i, dtype=dtype) for i in (1, 2)]
    for found in (merging.average(models), merging.ties(base, models), merging.dare(base, models, jax.random.key(0)),
                  merging.iso_c(base, models)):  # fmt: skip
        assert found["layer"]["kernel"].dtype == dtype and found["count"].dtype == np.int32


def test_convolutions_are_matrices_of_patches_by_channels():
    base, models = tree(0, (3, 3, 2, 4)), [tree(i, (3, 3, 2, 4)) for i in (1, 2)]
    flat = [{"kernel": t["layer"]["kernel"].reshape(18, 4)} for t in (base, *models)]
    found = merging.iso_c(base, models)["layer"]["kernel"]
    np.testing.assert_allclose(found.reshape(18, 4), merging.iso_c(flat[0], flat[1:])["kernel"], rtol=1e-6)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"layer/bias is \(4,\) in model 0 and \(5,\) in model 1"):
        merging.average([BASE, tree(1, (6, 5))])
    with pytest.raises(ValueError, match="layer/bias is in model 0 and not in the base"):
        merging.ties({"layer": {"kernel": BASE["layer"]["kernel"]}, "count": BASE["count"]}, MODELS)
    with pytest.raises(ValueError, match="layer/bias is float32 in model 0 and float64 in model 1"):
        merging.average([BASE, tree(1, dtype=np.float64) | {"layer": {**tree(1)["layer"], "bias": np.zeros(4)}}])
    with pytest.raises(ValueError, match="count holds whole numbers, which differ between model 0 and model 1"):
        merging.average([BASE, BASE | {"count": np.asarray(4, np.int32)}])
    for method in (merging.ties, merging.task_arithmetic, merging.iso_c, merging.wise_ft):
        with pytest.raises(ValueError, match="base is None: this method needs the parameters"):
            method(None, MODELS)
    broken = {**BASE, "layer": {**BASE["layer"], "bias": np.full(4, np.nan, np.float32)}}
    with pytest.raises(ValueError, match="layer/bias of model 1 is not finite"):
        merging.average([BASE, broken])
    with pytest.raises(ValueError, match=r"keep=20 must lie in \[0, 1\]"):
        merging.ties(BASE, MODELS, keep=20)
    with pytest.raises(ValueError, match="drop=1 leaves nothing"):
        merging.dare(BASE, MODELS, jax.random.key(0), drop=1)
    with pytest.raises(ValueError, match="no leaf of two axes has a path like"):
        merging.iso_c({"w": np.eye(2)}, [{"w": np.eye(2)}])
    with pytest.raises(ValueError, match="wise_ft is of one model and its base, and 3 models are given"):
        merging.wise_ft(BASE, MODELS)
    with pytest.raises(ValueError, match="models is a dict; it must be several trees"):
        trees.read(BASE)
    with pytest.raises(ValueError, match="there is nothing to merge"):
        merging.average([])
    assert "layer/kernel" in partition.flatten(BASE)

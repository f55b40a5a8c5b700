"""Scores against values of independent codes and closed forms, and what may not change them.

Golden values: LEEP, NCE, LogME, H, TransRate, GBC and k-NN computed by independent NumPy code on sets that come with
scikit-learn (wine and diabetes z-scored; theta = softmax of the first four columns).
"""

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import minimize
from sklearn import covariance, datasets, linear_model, model_selection, neighbors

from mtl_jax.transfer import ranking
from mtl_jax.transfer.ranking.h_score import shrinkage
from mtl_jax.transfer.ranking.nleep import posterior
from mtl_jax.transfer.ranking.ridge import leave_one_out

GOLDEN = {
    "iris": {"leep": -0.98556960, "nce": -1.09861229, "log_me": -0.16006024, "h": 1.19189883, "shrunk": 1.17784250,
             "trans_rate": 0.58940541, "gbc": -0.23068558, "spherical": -0.33008822, "knn": 0.9600},
    "wine": {"leep": -0.94395920, "nce": -0.74805643, "log_me": -0.53770700, "h": 1.70582080, "shrunk": 1.67260030,
             "trans_rate": 2.45997573, "gbc": -0.03515730, "spherical": -0.15604313, "knn": 0.9551},
}  # fmt: skip
FEATURE_SCORES = {
    "log_me": lambda f, y: ranking.log_me(f, ranking.one_hot(y, 3)),
    "h": ranking.h_score,
    "shrunk": lambda f, y: ranking.h_score(f, y, shrunk=True),
    "trans_rate": ranking.trans_rate,
    "unit": lambda f, y: ranking.trans_rate(f, y, unit=True),
    "gbc": ranking.gbc,
    "spherical": lambda f, y: ranking.gbc(f, y, spherical=True),
    "parc": ranking.parc,
    "knn": lambda f, y: ranking.knn(f, y, k=1),
    "ridge": ranking.ridge,
    "nleep": ranking.nleep,
}


def load(name):
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (x if name == "iris" else (x - x.mean(0)) / x.std(0)), y


def softmax(x):
    grown = np.exp(x - x.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    x, y = load(name)
    theta = softmax(x[:, :4])
    found = {k: f(x, y) for k, f in FEATURE_SCORES.items() if k in GOLDEN[name]}
    found |= {"leep": ranking.leep(theta, y), "nce": ranking.nce(theta, y)}
    for score, value in GOLDEN[name].items():
        assert found[score] == pytest.approx(value, abs=5e-5 if score == "knn" else 6e-9 * 10), score


def test_the_hand_example_and_regression():
    theta = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4],
                      [0.5, 0.1, 0.4]])  # fmt: skip
    y = np.array([0, 0, 1, 1, 0, 1])
    assert ranking.leep(theta, y) == pytest.approx(-0.6252338955, abs=1e-10)
    assert ranking.nce(theta, y) == pytest.approx(-0.3182570841, abs=1e-10)
    x, y = datasets.load_diabetes(return_X_y=True)
    assert ranking.log_me(x, (y - y.mean()) / y.std()) == pytest.approx(-1.09904147, abs=1e-8)


@pytest.mark.parametrize("name, value, rounded", [("iris", 58.679784, 61.217010), ("wine", 64.549229, 64.865255)])
def test_parc_and_the_rounding_in_the_authors_code(name, value, rounded):
    """np.corrcoef of one-hot labels is off by 2e-16 for one class, which breaks ties: 61.217 for 58.680."""
    x, y = load(name)
    assert ranking.parc(x, y) == pytest.approx(value, abs=1e-5)
    pairs = np.tril_indices(len(y), -1)
    apart = 1 - np.corrcoef((x - x.mean(0)) / x.std(0))
    labels = 1 - np.corrcoef(ranking.one_hot(y, 3))
    assert 100 * scipy.stats.spearmanr(apart[pairs], labels[pairs]).statistic == pytest.approx(rounded, abs=0.5)
    exact = 100 * scipy.stats.spearmanr(apart[pairs], np.round(labels[pairs], 9)).statistic
    assert ranking.parc(x, y) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("score", FEATURE_SCORES)
def test_columns_of_zeros_change_nothing(score):
    """They raise the published LogME from 2.9 to 56.6; dead units and padding are such columns."""
    x, y = load("wine")
    wider = np.concatenate([x, np.zeros((len(x), 40))], 1)
    assert FEATURE_SCORES[score](wider, y) == pytest.approx(FEATURE_SCORES[score](x, y), abs=1e-7)


@pytest.mark.parametrize("score", sorted(set(FEATURE_SCORES) - {"gbc", "parc", "nleep"}))
def test_rotations_change_only_what_reads_axes(score):
    x, y = load("wine")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(13, 13)))[0]
    assert FEATURE_SCORES[score](x @ turn, y) == pytest.approx(FEATURE_SCORES[score](x, y), abs=1e-7)


def test_log_me_is_the_largest_evidence():
    """Against the density of the marginal normal, maximised by a general optimiser from several starts."""
    draw = np.random.default_rng(1)
    for width in (3, 30):  # also with more features than rows
        x = draw.normal(size=(20, width))
        y = x[:, 0] + 0.5 * draw.normal(size=20)

        def negative(logs, x=x, y=y):
            covariance = np.exp(logs[0]) * np.eye(20) + np.exp(logs[1]) * x @ x.T
            return -scipy.stats.multivariate_normal(np.zeros(20), covariance, allow_singular=True).logpdf(y) / 20

        best = min(minimize(negative, s, method="Nelder-Mead").fun for s in ([0, 0], [-3, 0], [0, -3]))
        assert ranking.log_me(x, y) == pytest.approx(-best, abs=1e-5)


def test_shrinkage_probe_neighbours_and_h_against_scikit_learn():
    x, y = load("wine")
    centred = x - x.mean(0)
    assert shrinkage(centred) == pytest.approx(covariance.ledoit_wolf_shrinkage(x), abs=1e-12)
    few = datasets.load_diabetes(return_X_y=True)
    found = leave_one_out(few[0][:40], few[1][:40, None])
    penalties = 10.0 ** np.arange(-7, 3) * np.linalg.svd(few[0][:40] - few[0][:40].mean(0), compute_uv=False)[0] ** 2
    fits = [model_selection.cross_val_predict(linear_model.Ridge(p, solver="svd"), few[0][:40], few[1][:40],
                                              cv=model_selection.LeaveOneOut()) for p in penalties]  # fmt: skip
    best = min(fits, key=lambda f: ((f - few[1][:40]) ** 2).mean())
    np.testing.assert_allclose(found[:, 0], best, rtol=1e-6)
    nearest = neighbors.KNeighborsRegressor(5)
    predicted = model_selection.cross_val_predict(nearest, few[0][:40], few[1][:40], cv=model_selection.LeaveOneOut())
    expected = 1 - ((predicted - few[1][:40]) ** 2).sum() / ((few[1][:40] - few[1][:40].mean()) ** 2).sum()
    assert ranking.knn(few[0][:40], few[1][:40], classes=False) == pytest.approx(expected, abs=1e-9)


def test_limits():
    """Perfect and useless features: H reaches C - 1, LEEP 0 and -H(y), GBC its bounds; nleep is LEEP of its mixture."""
    y = np.repeat([0, 1, 2, 3], 25)
    perfect = np.eye(4)[y]
    assert ranking.h_score(perfect, y) == pytest.approx(3, abs=1e-9)  # 4.992 where rounding is taken for a direction
    assert ranking.leep(perfect, y) == pytest.approx(0, abs=1e-12) and ranking.nce(perfect, y) == 0
    useless = np.full((100, 5), 0.2)
    assert ranking.leep(useless, y) == pytest.approx(-np.log(4)) == pytest.approx(ranking.nce(useless, y))
    dead = np.concatenate([0.5 * np.eye(4)[y] + 0.125, np.zeros((100, 1))], 1)
    assert np.isfinite(ranking.leep(dead, y))  # a source class without mass: nan in the published code
    noise = np.random.default_rng(0).normal(size=(100, 3))
    assert -12 <= ranking.gbc(noise, y) < -8 and ranking.gbc(noise + 1e3 * perfect[:, :3], y) == pytest.approx(0)
    clear = noise + 50 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[y]
    assert ranking.nleep(clear, y) == pytest.approx(0, abs=1e-6)
    assert ranking.nleep(noise, y) == pytest.approx(ranking.leep(posterior(noise, 20), y), abs=1e-12)
    assert ranking.trans_rate(3 * noise, y, unit=True) == pytest.approx(ranking.trans_rate(noise, y, unit=True))


def test_what_cannot_be_scored_is_said():
    x, y = load("iris")
    with pytest.raises(ValueError, match="features hold nan in row 2, column 1"):
        ranking.h_score(np.where(np.arange(600).reshape(150, 4) == 9, np.nan, x), y)
    with pytest.raises(ValueError, match="every label is 1; a score needs two classes"):
        ranking.gbc(x, np.ones(150, int))
    with pytest.raises(ValueError, match="labels are float64; this score reads class numbers"):
        ranking.parc(x, y + 0.5)
    with pytest.raises(ValueError, match="source probabilities of row 0 are"):
        ranking.leep(x, y)
    with pytest.raises(ValueError, match="targets hold a value that is not finite in row 3"):
        ranking.log_me(x, np.where(np.arange(150) == 3, np.nan, y))
    with pytest.raises(ValueError, match="the features of all rows are the same"):
        ranking.h_score(np.ones((150, 4)), y)
    with pytest.raises(ValueError, match="k=150 neighbours of 150 rows"):
        ranking.knn(x, y, k=150)

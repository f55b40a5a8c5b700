"""PIVRG against its equation and its scores, written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import aggregate

JACOBIAN = np.random.default_rng(0).normal(size=(3, 6))


def informed(scores, bound=2.0, least=10.0):
    """The weights of the authors' code: K softmax(s / T)."""
    temperature = max((scores.max() - scores.min()) / np.log(bound), least)
    share = np.exp((scores - scores.max()) / temperature)
    return len(scores) * share / share.sum()


def gap(weights, wanted):
    """How far G a is from (w / a)^(1/2), relatively, in float64."""
    weights = np.asarray(weights, np.float64)
    return np.abs(JACOBIAN @ (JACOBIAN.T @ weights) / np.sqrt(wanted / weights) - 1).max()


def test_scores_come_from_windows_and_solve_the_equation():
    """Windows of two steps against given baselines: even weights, then by (L - b) / b; absent tasks keep theirs."""
    baselines = np.array([1.0, 0.5, 2.0])
    method = balancing.pivrg(tuple(baselines), every=2, max_norm=None)
    losses = np.array([[2.0, 0.5, 2.0], [3.0, 0.7, 2.0], [1.0, 9.0, 1.0], [1.0, 9.0, 1.0], [1.0, 1.0, 1.0]])
    masks = np.ones((5, 3), bool)
    masks[2:4, 1] = False
    state, scores = None, np.zeros(3)
    for i in range(5):
        _, weights, state = aggregate(method, JACOBIAN.astype(np.float32), losses[i], masks[i], state)
        if masks[i].all():
            assert gap(weights, informed(scores)) < 1e-3
        else:
            assert weights[1] == 0 and (weights[np.array([0, 2])] > 0).all()
        if i == 1:
            scores = 100 * (losses[:2].mean(0) - baselines) / baselines  # 150, 20 and 0 percent
        if i == 3:
            scores = np.where([True, False, True], 100 * (losses[2:4].mean(0) - baselines) / baselines, scores)
    np.testing.assert_allclose(state.score, scores, rtol=1e-5)
    assert informed(scores).max() / informed(scores).min() == pytest.approx(2.0)


def test_without_baselines_the_first_window_is_one():
    method = balancing.pivrg(every=1, bound=3.0, min_temperature=1.0, max_norm=None)
    state, found = None, []
    for losses in np.array([[4.0, 1.0, 2.0], [2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]):
        _, weights, state = aggregate(method, JACOBIAN.astype(np.float32), losses, state=state)
        found.append(weights)
    assert gap(found[0], np.ones(3)) < 1e-3 and gap(found[1], np.ones(3)) < 1e-3
    assert gap(found[2], informed(np.array([-50.0, 0.0, -50.0]), 3.0, 1.0)) < 1e-3


def test_the_direction_is_no_longer_than_its_bound():
    short, weights, _ = aggregate(balancing.pivrg(max_norm=0.1), JACOBIAN.astype(np.float32))
    free, _, _ = aggregate(balancing.pivrg(max_norm=None), JACOBIAN.astype(np.float32))
    assert np.linalg.norm(short) == pytest.approx(0.1, rel=1e-4)
    np.testing.assert_allclose(short / 0.1, free / jnp.linalg.norm(free), rtol=1e-4)
    assert (weights > 0).all()

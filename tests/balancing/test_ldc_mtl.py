"""LDC-MTL against the scalar of the authors' code, written out anew and differentiated by differences in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Signal, aggregate


def scalar(losses, logits, first, penalty, normalization):
    share = np.exp(logits) / np.exp(logits).sum()
    if normalization == "rescale":
        losses = losses / (first / first.min())
    if normalization == "log":
        losses = np.log(losses / first)
    weighted = share * losses
    return weighted.sum() / share.sum() + penalty * np.abs(weighted[:-1] - weighted[1:]).sum()


def slope(function, at):
    steps = 1e-6 * np.eye(len(at))
    return np.array([(function(at + s) - function(at - s)) / 2e-6 for s in steps])


@pytest.mark.parametrize("normalization", ["rescale", "log", "none"])
def test_weights_and_logits_follow_the_scalar(normalization):
    """At the second of two steps, in which task 1 is absent, so that tasks 0 and 2 are neighbours."""
    first, losses, there = np.array([2.0, 5.0, 0.5, 1.0]), np.array([1.3, 2.0, 0.7, 0.2]), np.array([0, 2, 3])
    method = balancing.ldc_mtl(0.4, 0.01, normalization)
    _, _, state = aggregate(method, np.eye(4, dtype=np.float32), first)
    logits = np.asarray(state.logits.value, np.float64)
    _, weights, new = aggregate(method, np.eye(4, dtype=np.float32), losses, np.arange(4) != 1, state)
    given = first[there], 0.4, normalization
    expected = slope(lambda x: scalar(x, logits[there], *given), losses[there])
    np.testing.assert_allclose(np.asarray(weights)[there], expected, rtol=1e-3, atol=1e-5)
    assert weights[1] == 0 and new.logits.value[1] == state.logits.value[1]
    pull = slope(lambda x: scalar(losses[there], x, *given), logits[there])
    mean = np.asarray(new.logits.adam[0].mu)[there] - 0.9 * np.asarray(state.logits.adam[0].mu)[there]
    np.testing.assert_allclose(mean / 0.1, pull, rtol=1e-3, atol=1e-5)


def test_equal_weighted_losses_have_no_discrepancy():
    """At the first step all are equal by rescaling, up to rounding, which has no slope."""
    losses = np.random.default_rng(0).uniform(0.1, 9.0, 7)
    method = balancing.ldc_mtl(10.0)
    signal = Signal(jnp.asarray(losses, jnp.float32))
    result, _ = method.update(signal, method.init(7, {}), mask=jnp.ones(7, bool), key=None)
    np.testing.assert_allclose(result.weights, losses.min() / losses / 7, rtol=1e-5)

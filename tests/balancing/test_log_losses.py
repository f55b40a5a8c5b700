"""Methods on log losses, against closed forms for two tasks, the authors' formula and a grid, in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import balancing
from mtl_jax.balancing import Signal, aggregate

GRADIENTS = np.random.default_rng(0).normal(size=(2, 5))
LOSSES = np.array([0.8, 1.5])
ROWS = GRADIENTS / LOSSES[:, None]


def found(method, gradients=GRADIENTS, losses=LOSSES):
    return np.asarray(aggregate(method, gradients.astype(np.float32), losses)[0], np.float64)


def test_log_mgda_is_the_nearest_point_of_a_segment():
    """Between two gradients: w = clip((b - a) . b / |a - b|^2, 0, 1), Sener and Koltun, equation 4."""
    a, b = ROWS
    share = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
    np.testing.assert_allclose(found(balancing.log_mgda()), share * a + (1 - share) * b, rtol=1e-4, atol=1e-6)
    assert 0 < share < 1
    plain, _, _ = aggregate(balancing.mgda("loss"), GRADIENTS.astype(np.float32), LOSSES)
    np.testing.assert_allclose(found(balancing.log_mgda()), plain, rtol=1e-5)


def test_log_cagrad_is_the_minimum_of_the_papers_dual():
    """min over w of g_w . g0 + c |g0| |g_w| by a grid of 200,001 weights."""
    for c in (0.3, 0.9):
        mean = ROWS.mean(0)
        share = np.linspace(0, 1, 200_001)[:, None]
        mixed = share * ROWS[0] + (1 - share) * ROWS[1]
        lengths = np.linalg.norm(mixed, axis=1)
        best = np.argmin(mixed @ mean + c * np.linalg.norm(mean) * lengths)
        expected = mean + c * np.linalg.norm(mean) * mixed[best] / lengths[best]
        np.testing.assert_allclose(found(balancing.log_cagrad(c)), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            found(balancing.log_cagrad(c, "squared")), expected / (1 + c * c), rtol=1e-3, atol=1e-4
        )


def test_log_imtl_g_is_the_papers_closed_form():
    """a = g_1 U' (D U')^-1 with D = g_1 - g_t and U = u_1 - u_t, equation 6 of Liu et al."""
    gradients = np.random.default_rng(1).normal(size=(4, 9))
    losses = np.array([0.1, 1.0, 5.0, 0.7])
    rows = gradients / losses[:, None]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    d, u = rows[:1] - rows[1:], units[:1] - units[1:]
    rest = rows[0] @ u.T @ np.linalg.inv(d @ u.T)
    expected = np.append(1 - rest.sum(), rest) @ rows
    np.testing.assert_allclose(found(balancing.log_imtl_g(), gradients, losses), expected, rtol=1e-3, atol=1e-4)


def test_scale_invariant_is_the_gradient_of_the_summed_logs():
    losses, mask = jnp.array([0.4, 3.0, 7.0]), jnp.array([True, True, False])
    result, _ = balancing.scale_invariant().update(Signal(losses), (), mask=mask, key=None)
    np.testing.assert_allclose(result.weights[:2], jax.grad(lambda x: jnp.log(x).sum())(losses)[:2], rtol=1e-6)
    assert result.weights[2] == 0 and (result.head_weights == result.weights).all()


def test_heads_follow_their_log_losses_and_units_do_not_matter():
    """Losses and gradients of one task in thousandths: the same direction, but for the smallest losses."""
    for name in ("log_mgda", "log_cagrad", "log_imtl_g"):
        method = balancing.build(name)
        gram = jnp.asarray(GRADIENTS @ GRADIENTS.T, jnp.float32)
        result, _ = method.update(Signal(jnp.asarray(LOSSES), gram), (), mask=jnp.ones(2, bool), key=None)
        np.testing.assert_allclose(result.head_weights, 1 / LOSSES, rtol=1e-6)
        unit = np.array([1.0, 1000.0])
        np.testing.assert_allclose(
            found(method, GRADIENTS * unit[:, None], LOSSES * unit), found(method), rtol=1e-3, atol=1e-4
        )

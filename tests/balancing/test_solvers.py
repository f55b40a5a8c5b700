"""Solvers against SciPy's active-set method and the optimality conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mtl_jax.balancing.nash import power_equation
from mtl_jax.balancing.solvers import best_in_ball, dual_cone, min_norm_point, nonnegative_qp, project_simplex

SIZES = (1, 3, 10, 40)


@pytest.mark.parametrize("size", SIZES)
def test_nonnegative_qp_against_scipy(size):
    """min z'Mz / 2 + c'z over z >= 0 is non-negative least squares in a factor of M: scipy.optimize.nnls."""
    draw = np.random.default_rng(size)
    factor = draw.normal(size=(size + 4, size)) / np.sqrt(size + 4)
    target = draw.normal(size=(5, size + 4))
    z, residual = jax.jit(nonnegative_qp)(
        jnp.asarray(factor.T @ factor, jnp.float32), jnp.asarray(-target @ factor, jnp.float32), jnp.ones(size, bool)
    )
    expected = np.stack([nnls(factor, t)[0] for t in target])
    np.testing.assert_allclose(z, expected, atol=2e-4 * max(1, np.abs(expected).max()))
    assert np.asarray(residual).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_masked_programs_are_those_of_the_rest(size):
    draw = np.random.default_rng(size)
    jacobian = draw.normal(size=(size, size + 2)).astype(np.float32)
    gram = jacobian @ jacobian.T / (size + 2)
    mask = np.arange(size) % 3 != 1
    lower = np.eye(size, dtype=np.float32)
    hidden = np.where(mask[:, None] & mask[None], gram, 1e6).astype(np.float32)
    v, residual = jax.jit(dual_cone)(hidden, lower, mask)
    alone, _ = jax.jit(dual_cone)(gram[np.ix_(mask, mask)], lower[np.ix_(mask, mask)], np.ones(mask.sum(), bool))
    np.testing.assert_allclose(np.asarray(v)[np.ix_(mask, mask)], alone, atol=1e-4)
    assert (np.asarray(v)[:, ~mask] == 0).all() and np.asarray(residual).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_dual_cone_projects(size):
    """v >= u, J'v in the dual cone, and complementary slackness, for a well-conditioned Gramian."""
    draw = np.random.default_rng(size + 1)
    jacobian = draw.normal(size=(size, 2 * size + 4)).astype(np.float32)
    gram = (jacobian @ jacobian.T / (2 * size + 4)).astype(np.float32)
    lower = np.eye(size, dtype=np.float32)
    v, _ = jax.jit(dual_cone)(gram, lower, np.ones(size, bool))
    v = np.asarray(v, np.float64)
    slope = v @ gram
    assert (v - lower).min() > -1e-6 and slope.min() > -1e-4
    assert np.abs((v - lower) * slope).max() < 1e-4


def test_min_norm_point_is_optimal():
    """w'Gw <= (Gw)_i for all i: no vertex of the hull is closer to the origin in the direction of the point."""
    for size, scale in ((1, 1.0), (2, 1e-6), (5, 1e4), (20, 1.0)):
        jacobian = np.random.default_rng(size).normal(size=(size, 7)) * scale
        gram = (jacobian @ jacobian.T).astype(np.float32)
        weights, residual = jax.jit(min_norm_point)(gram, np.ones(size, bool))
        weights = np.asarray(weights, np.float64)
        assert abs(weights.sum() - 1) < 1e-5 and weights.min() >= 0
        slope = gram @ weights
        assert (weights @ slope - slope).max() <= 2e-5 * np.diag(gram).max()
        assert float(residual) <= 2e-5


def test_min_norm_point_of_a_zero_row_is_zero():
    weights, _ = min_norm_point(jnp.diag(jnp.array([1.0, 0.0, 4.0])), jnp.ones(3, bool))
    np.testing.assert_allclose(weights, [0, 1, 0], atol=1e-5)


def test_project_simplex_meets_the_optimality_conditions():
    """p = max(x - tau, 0) with sum 1 for one tau: gaps x - p are tau where p > 0 and below tau elsewhere."""
    projected = jax.jit(project_simplex)
    for scale, shift in ((0.1, 0.0), (1.0, 0.0), (30.0, 1.0), (1.0, 1e4)):
        draw = np.random.default_rng(int(scale))
        x = (shift + scale * draw.normal(size=12)).astype(np.float32)
        mask = draw.random(12) < 0.7
        p = np.asarray(projected(np.where(mask, x, np.nan), mask), np.float64)
        assert (p >= 0).all() and (p[~mask] == 0).all() and abs(p.sum() - 1) < 1e-5
        gap = x.astype(np.float64) - p
        tau = gap[p > 0].mean()
        rounding = 4e-7 * (1 + np.abs(x).max())
        np.testing.assert_allclose(gap[p > 0], tau, atol=rounding)
        assert (gap[mask & (p == 0)] <= tau + rounding).all()
    np.testing.assert_array_equal(projected(np.ones(12, np.float32), np.zeros(12, bool)), 0)
    np.testing.assert_allclose(projected(np.float32([0.2, 0.5, 0.3]), np.ones(3, bool)), [0.2, 0.5, 0.3], rtol=1e-6)


def test_power_equation_where_gradient_lengths_span_four_orders():
    """G w = w^(-1 / alpha): w is the minimum of w'Gw / 2 - sum w^(1 - 1 / alpha) / (1 - 1 / alpha), which is convex.

    Its Newton step in float64 says how far w is from the minimum. Where the minimum, rounded to float32, meets the
    equation itself to 1e-5, so does w to 1e-3; elsewhere no float32 numbers do.
    """
    solve = jax.jit(power_equation, static_argnums=2)
    checked = 0
    for count in (3, 10, 40):
        draw = np.random.default_rng(count)
        matrices = draw.normal(size=(3, count, count + 5)) * 10 ** draw.uniform(-2, 2, size=(3, count, 1))
        for alpha in (0.1, 0.3, 1.0):
            for matrix in matrices.astype(np.float32).astype(np.float64):
                gram = matrix @ matrix.T
                w, change = solve(gram.astype(np.float32), np.ones(count, bool), alpha)
                assert float(change) <= 1e-4
                w = np.asarray(w, np.float64)
                curvature = gram + np.diag(w ** (-1 / alpha - 1) / alpha)
                step = np.linalg.solve(curvature, w ** (-1 / alpha) - gram @ w)
                assert np.abs(step / w).max() < 1e-4, (count, alpha)

                def residual(w, gram=gram, alpha=alpha):
                    return np.abs(w ** (1 / alpha) * (gram @ w) - 1).max()

                if residual((w + step).astype(np.float32).astype(np.float64)) < 1e-5:
                    assert residual(w) < 1e-3, (count, alpha)
                    checked += 1
    assert checked >= 9


def test_best_in_ball_is_a_saddle_point():
    """min_i (o_i + g_i'd) equals the bound w'o + r |J'w| that any w of the simplex gives, here w = y / sum(y)."""
    solve = jax.jit(best_in_ball)
    for count, columns in ((1, 4), (3, 7), (10, 14), (40, 50)):
        draw = np.random.default_rng(count)
        jacobian = draw.normal(size=(count, columns)) / np.sqrt(columns)
        offset, mask = draw.normal(size=count), np.arange(count) != 1
        hidden = np.where(mask, offset, np.nan).astype(np.float32)
        for radius in (0.1, 3.0):
            y, residual = solve((jacobian @ jacobian.T).astype(np.float32), hidden, np.float32(radius), mask)
            y = np.asarray(y, np.float64)
            d = jacobian.T @ y
            w = y / y.sum()
            assert (y >= 0).all() and (y[~mask] == 0).all() and float(residual) < 1e-3
            assert np.linalg.norm(d) == pytest.approx(radius, rel=1e-3)
            bound = w[mask] @ offset[mask] + radius * np.linalg.norm(jacobian.T @ w)
            assert (offset + jacobian @ d)[mask].min() == pytest.approx(bound, abs=1e-3 * (1 + radius))


@pytest.mark.parametrize("rank", (3, 20, 40))
def test_dual_cone_of_hard_gramians(rank):
    """The optimality conditions in float64, for low rank and for lengths over four orders of magnitude, vmapped."""
    draw = np.random.default_rng(rank)
    jacobian = draw.normal(size=(2, 40, rank)) @ draw.normal(size=(2, rank, 60))
    jacobian[1] *= 10 ** draw.uniform(-2, 2, size=(40, 1))
    gram = jacobian @ jacobian.transpose(0, 2, 1)
    gram = gram / np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-4 * np.eye(40)
    lower = np.eye(40, dtype=np.float32) / 40
    v, residual = jax.jit(jax.vmap(dual_cone, (0, None, None)))(gram.astype(np.float32), lower, np.ones(40, bool))
    assert np.asarray(residual).max() < 1e-5
    z, length = np.asarray(v, np.float64) - lower, np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    slope = np.einsum("bri,bij->brj", z + lower, gram) / length[:, None]
    scaled = z * length[:, None]
    size = np.abs(lower @ gram / length[:, None]).max(-1, keepdims=True)
    assert np.abs(np.minimum(scaled, slope)).max() < 3e-5 * size.max()
    assert (np.abs(np.minimum(scaled, slope)) < 3e-5 * size).all()

"""ConicGrad against scipy's solution of its problem, and the two closed forms: inside the cone, and for two tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mtl_jax import balancing
from mtl_jax.balancing import aggregate


def by_scipy(jacobian, c):
    """The largest worst improvement within the unit cone around the mean gradient, by SLSQP from three starts."""
    mean = jacobian.mean(0)
    axis = mean / np.linalg.norm(mean)
    limits = [
        {"type": "ineq", "fun": lambda x: jacobian @ x[:-1] - x[-1]},
        {"type": "ineq", "fun": lambda x: 1 - x[:-1] @ x[:-1]},
        {"type": "ineq", "fun": lambda x: axis @ x[:-1] - c * np.sqrt(x[:-1] @ x[:-1] + 1e-14)},
    ]
    best = -np.inf
    for seed in range(3):
        start = axis + 0.3 * seed * np.random.default_rng(seed).normal(size=len(axis))
        found = minimize(lambda x: -x[-1], np.append(start, 0), method="SLSQP", constraints=limits,
                         jac=lambda x: -np.eye(len(x))[-1], options={"maxiter": 300, "ftol": 1e-12})  # fmt: skip
        if min(limit["fun"](found.x).min() for limit in limits) > -1e-6:
            best = max(best, found.x[-1])
    return best


def test_the_worst_improvement_is_the_best_within_the_cone():
    """Where some direction in the cone improves every task; c decides whether the optimum lies inside or on it."""
    inside = 0
    for c in (0.05, 0.5, 0.9):
        run = jax.jit(lambda m, c=c: aggregate(balancing.conicgrad(c), m)[0])
        for seed in range(6):
            draw = np.random.default_rng(seed)
            jacobian = draw.normal(size=(5, 8)) * draw.uniform(0.3, 2, size=(5, 1)) + 0.3 * draw.normal(size=8)
            d = np.asarray(run(jacobian.astype(np.float32)), np.float64)
            mean = jacobian.mean(0)
            length = np.linalg.norm(mean)
            expected = by_scipy(jacobian, c)
            cosine = d @ mean / length / np.linalg.norm(d)
            assert np.linalg.norm(d) == pytest.approx(length, rel=1e-4) and cosine > c - 1e-4
            if expected > 0.05:
                assert (jacobian @ d).min() / length == pytest.approx(expected, abs=1e-4)
            inside += cosine > c + 1e-3
    assert 3 < inside < 15


def test_closed_forms():
    """A wide cone: MGDA's direction. A narrow one: c along g0 and sqrt(1 - c^2) across it, towards the smaller gain."""
    jacobian = np.array([[1.0, 0.0, 0.0], [6.0, 2.0, 0.0]], np.float32)
    mean = jacobian.mean(0)
    length = np.linalg.norm(mean)
    shortest = np.asarray(aggregate(balancing.mgda(), jacobian)[0])
    wide, thin = (jax.jit(lambda m, c=c: aggregate(balancing.conicgrad(c), m)[0])(jacobian) for c in (0.1, 0.99))
    np.testing.assert_allclose(wide, shortest / np.linalg.norm(shortest) * length, rtol=1e-4, atol=1e-4)
    axis = mean / length
    across = jacobian[0] - jacobian[0] @ axis * axis
    narrow = length * (0.99 * axis + np.sqrt(1 - 0.99**2) * across / np.linalg.norm(across))
    np.testing.assert_allclose(thin, narrow, rtol=1e-3, atol=1e-3)


def test_zero_gradients_and_a_cone_that_is_a_ray():
    run = jax.jit(lambda m: aggregate(balancing.conicgrad(), m)[:2])
    np.testing.assert_array_equal(run(jnp.zeros((2, 2)))[1], 0)
    opposed = np.array([[2.0, 0.0], [-1.0, 0.0]], np.float32)  # nothing improves both: the mean gradient
    np.testing.assert_allclose(run(opposed)[0], [0.5, 0.0], atol=1e-4)
    with pytest.raises(ValueError, match="conicgrad: c=1.0 must lie in 0 <= c < 1; for the mean gradient use equal"):
        balancing.conicgrad(1.0)

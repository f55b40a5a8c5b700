"""EPO search on its paper's toy problem, whose Pareto front has a closed form, and against its programs by scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, linprog

from mtl_jax import balancing
from mtl_jax.balancing import Signal, aggregate

SIZE = 20


def two_losses(x):
    """f = 1 - exp(-|x -+ 1 / sqrt(n)|^2), concave Pareto front: x = t / sqrt(n), t in [-1, 1]."""
    return jnp.stack([1 - jnp.exp(-((x - s / np.sqrt(SIZE)) ** 2).sum()) for s in (1, -1)])


def front(t):
    return np.array([1 - np.exp(-((t - 1) ** 2)), 1 - np.exp(-((t + 1) ** 2))])


def descend(balancer, losses, start, steps, rate=0.1):
    """Plain gradient descent along a method's direction: the last point."""
    jacobian = jax.jacobian(losses)
    count = len(jax.eval_shape(losses, start))

    def step(x, _):
        rows = jacobian(x)
        signal = Signal(losses(x), gramian=rows @ rows.T)
        result, _ = balancer.update(signal, balancer.init(count, {}), mask=jnp.ones(count, bool), key=None)
        return x - rate * (result.weights @ rows), None

    return jax.lax.scan(step, start, length=steps)[0]


@pytest.mark.parametrize("preference", [(0.2, 0.8), (0.5, 0.5), (0.9, 0.1)])
def test_descent_reaches_the_front_on_the_ray(preference):
    """From every start to the closed form, relative 1e-2; fixed weights end elsewhere, for the front is concave."""
    r = np.array(preference)
    on_ray = front(brentq(lambda t: r[0] * front(t)[0] - r[1] * front(t)[1], -1, 1))
    starts = np.random.default_rng(0).uniform(-0.4, 0.4, size=(4, SIZE)).astype(np.float32)
    starts[3] = -0.9 / np.sqrt(SIZE)  # on the front, far from the ray of the last two

    def run(make):
        return jax.jit(jax.vmap(lambda x: two_losses(descend(make, two_losses, x, 300))))(starts)

    found = np.asarray(run(balancing.epo(preference, tolerance=1e-6)))
    np.testing.assert_allclose(found, np.tile(on_ray, (4, 1)), rtol=1e-2)
    np.testing.assert_allclose(found[:, 0] * r[0] / (found[:, 1] * r[1]), 1, rtol=1e-2)
    fixed = np.asarray(run(balancing.fixed(preference)))
    assert (np.abs(fixed / on_ray - 1).max(1) > 0.1).all()


def test_three_objectives_meet_on_the_ray():
    """r_t f_t equal and Pareto stationary: f_t = |x - e_t|^2 / 2 has the simplex as its Pareto set, x = its weights."""
    r = np.array([0.5, 0.3, 0.2])

    def losses(x):
        return ((x - jnp.eye(3)) ** 2).sum(1) / 2

    method = balancing.epo(tuple(r), tolerance=1e-6)
    x = np.asarray(jax.jit(lambda x: descend(method, losses, x, 600, 0.05))(jnp.array([0.9, 0.8, -0.4])))
    product = r * np.asarray(losses(x))
    np.testing.assert_allclose(product, product.mean(), rtol=1e-2)
    assert x.min() > 0 and x.sum() == pytest.approx(1, abs=1e-2)


def programs(jacobian, losses, r):
    """The weights by the paper's two linear programs, with scipy, and mu."""
    gram, product = jacobian @ jacobian.T, r * losses
    share = product / product.sum()
    mu = (share * np.log(share * len(r))).sum()
    pull = gram @ (r * (np.log(share * len(r)) - mu))
    lower = np.zeros(len(r))
    if (pull > 0).any():
        lower = np.where(pull > 0, -np.inf, pull)
        lower[product == product.max()] = 0
    rows = np.isfinite(lower)
    found = linprog(-pull, -gram[rows], -lower[rows], np.ones((1, len(r))), [1])
    return found.x, mu


def test_balancing_weights_are_those_of_the_papers_program():
    """Also in another order, with an absent task, and at any scale of Jacobian and losses."""
    run = jax.jit(lambda m, x, mask: aggregate(balancing.epo((1.0, 2.0, 0.5, 1.0, 3.0, 1.0)), m, x, mask)[1])
    r, mask = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0]), np.arange(6) != 3
    for seed in range(5):
        draw = np.random.default_rng(seed)
        jacobian, losses = draw.normal(size=(6, 9)).astype(np.float32), draw.uniform(0.2, 3, 6).astype(np.float32)
        expected, mu = programs(jacobian[mask].astype(np.float64), losses[mask].astype(np.float64), r[mask])
        assert mu > 1e-3
        hidden = np.where(mask[:, None], jacobian, np.nan), np.where(mask, losses, np.nan)
        weights = np.asarray(run(*hidden, mask))
        np.testing.assert_allclose(weights[mask], expected, atol=2e-3)
        assert weights[3] == 0
        scaled = run(hidden[0] * np.float32(1e-3), hidden[1] * np.float32(100), mask)
        np.testing.assert_allclose(scaled, weights, atol=1e-3)
    order = draw.permutation(6)
    moved = jax.jit(lambda m, x, mask: aggregate(balancing.epo(tuple(r[order])), m, x, mask)[1])
    given = jacobian[order], losses[order], mask[order]
    np.testing.assert_allclose(moved(*given), weights[order], atol=2e-3)


def test_on_the_ray_no_loss_rises_and_at_the_front_nothing_moves():
    run = jax.jit(lambda m: aggregate(balancing.epo(), m)[0])
    jacobian = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    assert (jacobian @ np.asarray(run(jacobian))).min() > -1e-4
    np.testing.assert_array_equal(run(np.zeros((6, 9), np.float32)), 0)
    stationary = np.concatenate([jacobian[:5], -jacobian[:5].sum(0, keepdims=True)])
    assert np.linalg.norm(run(stationary)) < 0.02 * np.linalg.norm(stationary)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="epo: 2 preferences were given for 3 tasks"):
        balancing.epo((1.0, 2.0)).init(3, {})
    with pytest.raises(ValueError, match=r"epo: preference=\(1.0, 0.0\) must be positive"):
        balancing.epo((1.0, 0.0))

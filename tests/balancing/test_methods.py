"""Every method through one table of matrices and the properties that its paper claims; values against TorchJD's.

The golden values are those of TorchJD 0.17's documentation for J = [[-4, 1, 1], [6, 1, 1]].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import balancing
from mtl_jax.balancing import Needs, aggregate

GOLDEN = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
# name: (balancer, golden direction or None, properties)
METHODS = {
    "equal": (balancing.equal, (2.0, 2.0, 2.0), {"permutation", "linear"}),
    "fixed": (lambda: balancing.fixed(tuple(range(1, 10))), None, {"linear"}),
    "uncertainty": (balancing.uncertainty, (1.0, 1.0, 1.0), {"permutation", "linear"}),
    "upgrad": (balancing.upgrad, (0.2929, 1.9004, 1.9004), {"permutation", "linear", "non-conflicting"}),
    "mgda": (balancing.mgda, (0.0, 1.0, 1.0), {"permutation", "linear", "non-conflicting", "simplex"}),
    "pcgrad": (balancing.pcgrad, (0.5848, 3.8012, 3.8012), {"linear"}),
    "graddrop": (balancing.graddrop, None, {"linear", "random"}),
}


def matrices():
    """{name: J}: of every rank, conflicting, near zero, tall, wide, badly scaled, with twin and zero rows."""
    draw = np.random.default_rng(0)
    found = {f"{k} x {n} of rank {r}": draw.normal(size=(k, r)) @ draw.normal(size=(r, n))
             for k, n, r in ((1, 4, 1), (2, 5, 1), (3, 3, 2), (5, 20, 5), (9, 4, 3), (9, 40, 9))}  # fmt: skip
    base = draw.normal(size=(4, 10))
    found["in conflict"] = np.concatenate([base, -base[:2] + 0.3 * draw.normal(size=(2, 10))])
    found["stationary"] = np.concatenate([base, -base.sum(0, keepdims=True)])
    found["near zero"] = base * 1e-12
    found["badly scaled"] = base * np.array([1e-3, 1.0, 30.0, 1e3])[:, None]
    found["twin rows"] = base[[0, 1, 1, 2]]
    found["a zero row"] = base * np.array([1.0, 0.0, 1.0, 1.0])[:, None]
    return {name: matrix.astype(np.float32) for name, matrix in found.items()}


MATRICES = matrices()


@functools.cache
def compiled(name):
    """(matrix, losses, mask, key) -> (direction, weights) of a method, compiled once per shape."""
    make = METHODS[name][0]

    def run(matrix, losses, mask, key):
        method = balancing.fixed(tuple(range(1, 1 + len(mask)))) if name == "fixed" else make()
        direction, weights, _ = aggregate(method, matrix, losses, mask, key=key)
        return direction, jnp.full_like(losses, jnp.nan) if weights is None else weights

    return jax.jit(run)


def apply(name, matrix, mask=None, seed=0):
    count = len(matrix)
    losses = np.linspace(0.5, 1.5, count, dtype=np.float32)
    mask = np.ones(count, bool) if mask is None else mask
    direction, weights = compiled(name)(matrix, losses, mask, jax.random.key(seed))
    return np.asarray(direction, np.float64), np.asarray(weights, np.float64)


def having(name):
    return [m for m, (_, _, claims) in METHODS.items() if name in claims]


def test_the_table_lists_every_method():
    assert set(METHODS) == set(balancing.NAMES)


@pytest.mark.parametrize("name", [m for m in METHODS if METHODS[m][1] is not None])
def test_golden_values(name):
    direction, _, _ = aggregate(METHODS[name][0](), GOLDEN)
    scale = 2.0 if name == "uncertainty" else 1.0  # its weights are exp(-s) / 2 of losses that count fully
    np.testing.assert_allclose(np.asarray(direction) * scale, np.multiply(METHODS[name][1], scale), atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_matrix_gives_a_finite_direction(name):
    for label, matrix in MATRICES.items():
        direction, weights = apply(name, matrix)
        assert np.isfinite(direction).all(), label
        if balancing.NAMES[name] is not balancing.graddrop:
            np.testing.assert_allclose(direction, weights @ matrix, atol=1e-5 * np.abs(matrix).max(), err_msg=label)


@pytest.mark.parametrize("name", having("non-conflicting"))
def test_no_task_gets_worse(name):
    """J d >= 0, up to what regularisation r costs: (G / tr G + r I) w >= 0 gives (G w)_i >= -r tr(G) w_i.

    MGDA regularises cosines, by 1e-6; UPGrad the scaled Gramian, by 1e-4. Float32 adds rounding of the products.
    """
    regularization = {"upgrad": 1e-4, "mgda": 1e-6}[name]
    for label, matrix in MATRICES.items():
        direction, weights = apply(name, matrix)
        trace = (matrix.astype(np.float64) ** 2).sum()
        rounding = 2e-6 * trace * np.abs(weights).max()
        change = matrix.astype(np.float64) @ direction
        assert (change >= -regularization * trace * weights - rounding).all(), (label, change)


@pytest.mark.parametrize("name", having("permutation"))
def test_reordering_tasks_reorders_weights(name):
    for label, matrix in MATRICES.items():
        if label == "twin rows":
            continue
        order = np.random.default_rng(3).permutation(len(matrix))
        direction, _ = apply(name, matrix)
        moved, _ = apply(name, matrix[order])
        np.testing.assert_allclose(moved, direction, atol=2e-4 * np.abs(matrix).max(), err_msg=label)


@pytest.mark.parametrize("name", having("linear"))
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e5, 1e12])
def test_the_direction_scales_with_the_jacobian(name, factor):
    matrix = MATRICES["in conflict"]
    direction, _ = apply(name, matrix)
    scaled, _ = apply(name, (matrix * factor).astype(np.float32))
    np.testing.assert_allclose(scaled / factor, direction, atol=1e-4 * np.abs(matrix).max())


@pytest.mark.parametrize("name", having("simplex"))
def test_weights_lie_on_the_simplex(name):
    for label, matrix in MATRICES.items():
        _, weights = apply(name, matrix)
        assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-5, label


@pytest.mark.parametrize("name", METHODS)
def test_an_absent_task_leaves_the_solver(name):
    """With a masked row of nan the result is the method's on the matrix without it; draws are per task."""
    matrix = MATRICES["5 x 20 of rank 5"]
    mask = np.array([True, True, False, True, True])
    broken = np.where(mask[:, None], matrix, np.nan).astype(np.float32)
    direction, weights = apply(name, broken, mask)
    if name != "graddrop":
        assert weights[2] == 0
    if name in ("pcgrad", "fixed", "uncertainty"):  # index-wise draws and weights: compare with a zero row
        expected, _ = apply(name, np.where(mask[:, None], matrix, 0).astype(np.float32))
    else:
        expected, _ = apply(name, matrix[mask])
    np.testing.assert_allclose(direction, expected, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_nobody_present_gives_zero(name):
    direction, _ = apply(name, MATRICES["in conflict"] * np.nan, np.zeros(6, bool))
    np.testing.assert_array_equal(direction, 0)


@pytest.mark.parametrize("name", ["upgrad", "mgda", "pcgrad"])
def test_one_task_is_plain_training(name):
    matrix = MATRICES["1 x 4 of rank 1"]
    direction, _ = apply(name, matrix)
    np.testing.assert_allclose(direction, matrix[0], rtol=2e-4)


def test_pcgrad_on_two_rows_is_upgrad_with_preference_one():
    """As TorchJD tests it: with two tasks there is one projection each, whatever the order."""
    for seed in range(5):
        matrix = np.random.default_rng(seed).normal(size=(2, 6)).astype(np.float32)
        twice, _, _ = aggregate(balancing.upgrad(preference=(1.0, 1.0), regularization=1e-7), matrix)
        direction, _ = apply("pcgrad", matrix)
        np.testing.assert_allclose(direction, twice, atol=1e-4)


def test_pcgrad_follows_the_papers_loop():
    """Algorithm 1 of Yu et al. on the vectors themselves, with the orders that the method draws."""
    matrix = MATRICES["in conflict"].astype(np.float64)
    key, count = jax.random.key(7), len(matrix)
    total = np.zeros(matrix.shape[1])
    for i in range(count):
        own = jax.random.fold_in(key, i)
        draws = [float(jax.random.uniform(jax.random.fold_in(own, j))) for j in range(count)]
        g = matrix[i].copy()
        for j in np.argsort(draws):
            if j != i and g @ matrix[j] < 0:
                g -= g @ matrix[j] / (matrix[j] @ matrix[j]) * matrix[j]
        total += g
    direction, _ = apply("pcgrad", MATRICES["in conflict"], seed=7)
    np.testing.assert_allclose(direction, total, atol=1e-4)


def test_graddrop_by_hand():
    """Where all tasks agree on a sign nothing is dropped; elsewhere one sign is kept with probability P."""
    matrix = np.array([[1.0, 2.0, -3.0], [2.0, -1.0, -1.0]], np.float32)
    draws = np.stack([apply("graddrop", matrix, seed=s)[0] for s in range(400)])
    np.testing.assert_allclose(draws[:, 0], 3.0)
    np.testing.assert_allclose(draws[:, 2], -4.0)
    assert set(np.round(np.unique(draws[:, 1]), 5)) == {-1.0, 2.0}
    # P = (1 + (2 - 1) / 3) / 2 = 2 / 3; a binomial of 400 has a standard deviation of 0.024.
    assert abs((draws[:, 1] > 0).mean() - 2 / 3) < 0.1
    leaked, _, _ = aggregate(balancing.graddrop(leak=(1.0, 1.0)), matrix)
    np.testing.assert_allclose(leaked, matrix.sum(0))


def test_uncertainty_follows_its_scalar():
    """Weights exp(-s) / 2 and the slope of sum (exp(-s) L + s) / 2, by jax.grad; an absent task's state is kept."""
    method = balancing.uncertainty(init_log_variance=0.4, learning_rate=0.1)
    losses, mask = jnp.array([0.5, 2.0, 1.0]), jnp.array([True, True, False])
    first = method.init(3, {})
    result, second = method.update(balancing.Signal(losses), first, mask=mask, key=None)
    np.testing.assert_allclose(result.weights[:2], np.exp(-0.4) / 2, rtol=1e-6)
    assert result.weights[2] == 0
    slope = jax.grad(lambda s: ((jnp.exp(-s) * losses + s) / 2).sum())(first.log_variance)
    # The first step of Adam is the learning rate against the sign of the slope.
    moved = np.asarray(second.log_variance - first.log_variance)
    np.testing.assert_allclose(moved[:2], -0.1 * np.sign(slope[:2]), rtol=1e-4)
    for new, old in zip(jax.tree.leaves(second), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(np.asarray(new)[2], np.asarray(old)[2])


def test_mgda_normalisations():
    """Each gradient is divided first; the weights then apply to the divided ones."""
    matrix, losses = MATRICES["in conflict"], np.linspace(0.5, 3.0, 6, dtype=np.float32)
    lengths = np.linalg.norm(matrix, axis=1)
    for name, divisor in (("l2", lengths), ("loss", losses), ("loss+", losses * lengths)):
        direction, _, _ = aggregate(balancing.mgda(name), matrix, losses)
        expected, _, _ = aggregate(balancing.mgda(), (matrix / divisor[:, None]).astype(np.float32))
        np.testing.assert_allclose(direction, expected, atol=1e-5)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"unknown balancer 'upgard'; did you mean 'upgrad'\? \(equal, fixed,"):
        mtl.balancing.build("upgard")
    with pytest.raises(ValueError, match="unknown argument of balancer 'upgrad' 'regularisation'; did you mean 'regul"):
        mtl.balancing.build("upgrad(regularisation=1)")
    with pytest.raises(ValueError, match="fixed: 2 weights were given for 3 tasks"):
        balancing.fixed((1.0, 2.0)).init(3, {})
    with pytest.raises(ValueError, match="unknown normalization of mgda 'l3'"):
        balancing.mgda("l3")
    with pytest.raises(ValueError, match="upgrad: 1 preferences were given for 2 tasks"):
        balancing.upgrad(preference=(1.0,)).init(2, {})
    with pytest.raises(ValueError, match="is not of the form name or name"):
        mtl.balancing.build("__import__('os').system('true')")


def test_a_method_records_the_call_that_made_it():
    assert balancing.upgrad(regularization=0.01).spec == "upgrad(regularization=0.01)"
    assert balancing.build(balancing.fixed([1, 2]).spec).spec == "fixed(weights=(1, 2))"
    assert {balancing.build(n).needs for n in ("equal", "uncertainty")} == {Needs.LOSSES}

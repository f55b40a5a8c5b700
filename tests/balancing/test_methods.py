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
    "dwa": (balancing.dwa, (2.0, 2.0, 2.0), {"permutation", "linear"}),
    "geometric": (balancing.geometric, (1.0, 1.0, 1.0), {"linear"}),
    "scale_invariant": (balancing.scale_invariant, (2.0, 2.0, 2.0), {"linear"}),
    "random_loss": (balancing.random_loss, None, {"linear", "simplex"}),
    "random_gradient": (balancing.random_gradient, None, {"linear", "simplex"}),
    "imtl_l": (balancing.imtl_l, (2.0, 2.0, 2.0), {"permutation", "linear"}),
    "stch": (balancing.stch, (2.0, 2.0, 2.0), {"permutation", "linear"}),
    "famo": (balancing.famo, (1.0, 1.0, 1.0), {"linear", "simplex"}),
    "ldc_mtl": (balancing.ldc_mtl, (1.0, 1.0, 1.0), {"linear"}),
    "cosmos": (balancing.cosmos, (1.0, 1.0, 1.0), set()),
    "pbi": (balancing.pbi, None, {"linear"}),
    "upgrad": (balancing.upgrad, (0.2929, 1.9004, 1.9004), {"permutation", "linear", "non-conflicting"}),
    "dual_proj": (balancing.dual_proj, (0.5563, 1.1109, 1.1109), {"permutation", "linear", "non-conflicting"}),
    "mgda": (balancing.mgda, (0.0, 1.0, 1.0), {"permutation", "linear", "non-conflicting", "simplex"}),
    "log_mgda": (balancing.log_mgda, (0.0, 1.0, 1.0), {"linear", "non-conflicting"}),
    "cagrad": (balancing.cagrad, (0.1835, 1.2041, 1.2041), {"permutation", "linear"}),
    "log_cagrad": (balancing.log_cagrad, (0.1835, 1.2041, 1.2041), {"linear"}),
    "conicgrad": (balancing.conicgrad, (0.0, 1.2247, 1.2247), {"permutation", "linear"}),
    "nash_mtl": (balancing.nash_mtl, (0.0542, 0.7061, 0.7061), {"permutation"}),
    "fairgrad": (balancing.fairgrad, (0.0766, 0.9985, 0.9985), {"permutation"}),
    "pivrg": (balancing.pivrg, None, {"permutation"}),
    "pcgrad": (balancing.pcgrad, (0.5848, 3.8012, 3.8012), {"linear"}),
    "gradvac": (balancing.gradvac, (0.5848, 3.8012, 3.8012), {"linear"}),
    "imtl_g": (balancing.imtl_g, (0.0767, 1.0, 1.0), {"permutation", "linear", "impartial"}),
    "imtl": (balancing.imtl, (0.0767, 1.0, 1.0), {"permutation", "linear", "impartial"}),
    "log_imtl_g": (balancing.log_imtl_g, (0.0767, 1.0, 1.0), {"linear", "impartial"}),
    "aligned_mtl": (balancing.aligned_mtl, (0.2133, 0.9673, 0.9673), {"permutation", "linear"}),
    "conflict_free": (balancing.conflict_free, (0.1588, 2.0706, 2.0706), {"permutation", "linear"}),
    "epo": (balancing.epo, (0.5, 1.0, 1.0), {"linear", "simplex"}),
    "gradnorm": (balancing.gradnorm, (2.0, 2.0, 2.0), {"permutation", "linear"}),
    "krum": (balancing.krum, None, {"linear", "simplex"}),
    "cr_mogm": (balancing.cr_mogm, (0.0, 1.0, 1.0), {"permutation", "linear", "non-conflicting", "simplex"}),
    "graddrop": (balancing.graddrop, None, {"linear"}),
    "moco": (balancing.moco, None, set()),
    "db_mtl": (balancing.db_mtl, None, {"linear"}),
    "excess_mtl": (balancing.excess_mtl, (1.0, 1.0, 1.0), {"permutation", "linear"}),
    "trimmed_mean": (balancing.trimmed_mean, None, {"permutation", "linear"}),
    "grouped": (balancing.grouped, (0.2929, 1.9004, 1.9004), {"permutation", "linear"}),
    "modo": (balancing.modo, None, {"simplex"}),
    "sdmgrad": (balancing.sdmgrad, None, {"linear", "simplex"}),
    "auto_lambda": (balancing.auto_lambda, None, set()),
    "moml": (balancing.moml, None, set()),
    "forum": (balancing.forum, None, set()),
    "samo": (balancing.samo, (2.0, 2.0, 2.0), {"permutation", "linear"}),
}
DIRECT = {
    "graddrop",
    "moco",
    "db_mtl",
    "trimmed_mean",
    "grouped",
    "forum",
    "samo",
}  # a direction that is no combination of this step's gradients
FEWEST = {"krum": 4, "trimmed_mean": 3}  # tasks


def matrices():
    """{name: J}: of every rank, conflicting, near zero, tall, wide, badly scaled, with twin and zero rows.

    Of four sizes alone, as a method is compiled for each; of two and three tasks are the values by hand.
    """
    draw = np.random.default_rng(0)
    found = {f"{k} x {n} of rank {r}": draw.normal(size=(k, r)) @ draw.normal(size=(r, n))
             for k, n, r in ((1, 4, 1), (2, 5, 1), (3, 3, 2), (5, 20, 5), (9, 4, 3), (9, 40, 9))}  # fmt: skip
    for small in ("2 x 5 of rank 1", "3 x 3 of rank 2"):
        rows = found.pop(small)
        found[f"4{small[1:]}"] = np.concatenate([rows, 0.3 * rows[::-1]])[:4]
    base = draw.normal(size=(4, 10))
    found["in conflict"] = np.concatenate([base, -base[:1] + 0.3 * draw.normal(size=(1, 10))])
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

    def run(matrix, losses, mask, key, ids):
        method = balancing.fixed(tuple(range(1, 1 + len(mask)))) if name == "fixed" else make()
        direction, weights, _ = aggregate(method, matrix, losses, mask, key=key, ids=ids)
        return direction, jnp.full_like(losses, jnp.nan) if weights is None else weights

    return jax.jit(run)


def losses_of(count):
    return np.linspace(0.5, 1.5, count, dtype=np.float32)


def given(name):
    """The matrices with enough tasks for a method."""
    return {label: matrix for label, matrix in MATRICES.items() if len(matrix) >= FEWEST.get(name, 1)}


def apply(name, matrix, mask=None, seed=0, losses=None, ids=None):
    count = len(matrix)
    losses = losses_of(count) if losses is None else losses
    mask = np.ones(count, bool) if mask is None else mask
    # Columns of zeros change nothing, and matrices of one width share their programs.
    width = matrix.shape[1]
    padded = np.pad(matrix, ((0, 0), (0, max(40 - width, 0))))
    ids = np.arange(count, dtype=np.uint32) if ids is None else ids
    direction, weights = compiled(name)(padded, losses, mask, jax.random.key(seed), ids)
    return np.asarray(direction, np.float64)[:width], np.asarray(weights, np.float64)


def having(name):
    return [m for m, (_, _, claims) in METHODS.items() if name in claims]


def test_the_table_lists_every_method():
    assert set(METHODS) == set(balancing.NAMES)


@pytest.mark.parametrize("name", [m for m in METHODS if METHODS[m][1] is not None])
def test_golden_values(name):
    """First step, at losses of 1."""
    direction, _, _ = aggregate(METHODS[name][0](), GOLDEN)
    np.testing.assert_allclose(direction, METHODS[name][1], atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_matrix_gives_a_finite_direction(name):
    for label, matrix in given(name).items():
        direction, weights = apply(name, matrix)
        assert np.isfinite(direction).all(), label
        if name not in DIRECT:
            scale = np.abs(weights).max() * np.abs(matrix).max()
            np.testing.assert_allclose(direction, weights @ matrix, atol=1e-5 * scale, err_msg=label)


@pytest.mark.parametrize("name", having("non-conflicting"))
def test_no_task_gets_worse(name):
    """J d >= 0, up to what regularisation r costs: (G / tr G + r I) w >= 0 gives (G w)_i >= -r tr(G) w_i.

    MGDA regularises cosines, by 1e-6; UPGrad and DualProj the scaled Gramian, by 1e-4. Float32 adds rounding.
    """
    regularization = 1e-4 if name in ("upgrad", "dual_proj") else 1e-6
    for label, matrix in given(name).items():
        direction, weights = apply(name, matrix)
        trace = (matrix.astype(np.float64) ** 2).sum()
        rounding = 2e-6 * trace * np.abs(weights).max()
        change = matrix.astype(np.float64) @ direction
        assert (change >= -regularization * trace * weights - rounding).all(), (label, change)


@pytest.mark.parametrize("name", having("permutation"))
def test_reordering_tasks_reorders_weights(name):
    for label, matrix in given(name).items():
        if label == "twin rows":
            continue
        if name in ("nash_mtl", "fairgrad", "pivrg") and np.linalg.matrix_rank(matrix) < len(matrix):
            continue  # at a stationary point their equation has no finite solution
        order = np.random.default_rng(3).permutation(len(matrix))
        direction, _ = apply(name, matrix)
        moved, _ = apply(name, matrix[order])
        scale = max(np.abs(direction).max(), np.abs(matrix).max() if "linear" in METHODS[name][2] else 0)
        np.testing.assert_allclose(moved, direction, atol=2e-3 * scale, err_msg=label)


@pytest.mark.parametrize("name", having("linear"))
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e5, 1e12])
def test_the_direction_scales_with_the_jacobian(name, factor):
    matrix = MATRICES["in conflict"]
    direction, _ = apply(name, matrix)
    scaled, _ = apply(name, (matrix * factor).astype(np.float32))
    np.testing.assert_allclose(scaled / factor, direction, atol=1e-4 * np.abs(matrix).max())


@pytest.mark.parametrize("name", having("simplex"))
def test_weights_lie_on_the_simplex(name):
    for label, matrix in given(name).items():
        _, weights = apply(name, matrix)
        assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-5, label


@pytest.mark.parametrize("name", METHODS)
def test_an_absent_task_leaves_the_solver(name):
    """With a masked row of nan the result is the method's on the matrix without it; draws are per task name."""
    matrix = MATRICES["5 x 20 of rank 5"]
    mask = np.array([True, True, False, True, True])
    broken = np.where(mask[:, None], matrix, np.nan).astype(np.float32)
    direction, weights = apply(name, broken, mask)
    if name not in DIRECT:
        assert weights[2] == 0
    if name == "fixed":  # its weights are by index: compare with a zero row
        expected, _ = apply(name, np.where(mask[:, None], matrix, 0).astype(np.float32))
    else:
        ids = np.arange(5, dtype=np.uint32)[mask]
        expected, _ = apply(name, matrix[mask], losses=losses_of(5)[mask], ids=ids)
    np.testing.assert_allclose(direction, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", METHODS)
def test_nobody_present_gives_zero(name):
    direction, _ = apply(name, MATRICES["in conflict"] * np.nan, np.zeros(5, bool))
    np.testing.assert_array_equal(direction, 0)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"moco", *FEWEST}))
def test_one_task_is_plain_training(name):
    """Up to a positive factor that does not depend on the gradient's coordinates (1 for most)."""
    matrix = MATRICES["1 x 4 of rank 1"]
    direction, _ = apply(name, matrix, losses=np.ones(1, np.float32))
    factor = direction @ matrix[0] / (matrix[0] @ matrix[0])
    pivrg = (matrix[0] @ matrix[0]) ** (-2 / 3)
    expected = {"pivrg": min(pivrg, 1 / np.linalg.norm(matrix[0])), "log_cagrad": 1.5,
                "uncertainty": 0.5, "nash_mtl": 1 / np.linalg.norm(matrix[0]), "cagrad": 1.5,
                "fairgrad": 1 / np.linalg.norm(matrix[0]), "auto_lambda": 0.101, "moml": 1.001}  # fmt: skip
    assert factor == pytest.approx(expected.get(name, 1.0), rel=1e-3)
    np.testing.assert_allclose(direction, factor * matrix[0], rtol=1e-4)


@pytest.mark.parametrize("name", having("impartial"))
def test_projections_on_all_gradients_are_equal(name):
    """For linearly independent gradients, whatever their lengths."""
    for label in ("5 x 20 of rank 5", "9 x 40 of rank 9", "badly scaled"):
        matrix = MATRICES[label].astype(np.float64)
        direction, _ = apply(name, MATRICES[label], losses=np.ones(len(matrix), np.float32))
        projections = matrix @ direction / np.linalg.norm(matrix, axis=1)
        np.testing.assert_allclose(projections, projections.mean(), rtol=5e-3, err_msg=label)


def test_conflict_free_has_equal_cosines_and_the_length_of_the_projections():
    matrix = MATRICES["9 x 40 of rank 9"].astype(np.float64)
    direction, _ = apply("conflict_free", MATRICES["9 x 40 of rank 9"])
    cosine = matrix @ direction / np.linalg.norm(matrix, axis=1) / np.linalg.norm(direction)
    np.testing.assert_allclose(cosine, cosine.mean(), rtol=1e-3)
    unit = direction / np.linalg.norm(direction)
    np.testing.assert_allclose(np.linalg.norm(direction), (matrix @ unit).sum(), rtol=1e-3)


def test_nash_and_fairgrad_solve_their_equations():
    """|w^(1 / alpha) G w - 1| <= 1e-3 in float64, also where gradient norms span four orders of magnitude."""
    for count in (3, 10, 40):
        draw = np.random.default_rng(count)
        matrix = draw.normal(size=(count, count + 5)) * 10 ** draw.uniform(-2, 2, size=(count, 1))
        for alpha in (0.5, 1.0, 3.0):
            weights = np.asarray(aggregate(balancing.fairgrad(alpha), matrix.astype(np.float32))[1], np.float64)
            assert np.abs(weights ** (1 / alpha) * (matrix @ (matrix.T @ weights)) - 1).max() < 1e-3, (count, alpha)
        nash = aggregate(balancing.nash_mtl(max_norm=None), matrix.astype(np.float32))[1]
        np.testing.assert_allclose(nash, aggregate(balancing.fairgrad(), matrix.astype(np.float32))[1], rtol=1e-6)


def test_cagrad_maximises_the_worst_improvement():
    """Of a thousand random directions in the ball of radius c |g0| around g0 none improves the worst task more."""
    matrix = MATRICES["in conflict"].astype(np.float64)
    mean = matrix.mean(0)
    draw = np.random.default_rng(0).normal(size=(1000, matrix.shape[1]))
    for c in (0.2, 0.5, 1.5):
        direction = np.asarray(aggregate(balancing.cagrad(c), MATRICES["in conflict"])[0], np.float64)
        radius = c * np.linalg.norm(mean)
        assert np.linalg.norm(direction - mean) == pytest.approx(radius, rel=1e-3)
        around = direction + 0.1 * radius * draw / np.linalg.norm(draw, axis=1, keepdims=True)
        inside = mean + (around - mean) * np.minimum(1, radius / np.linalg.norm(around - mean, axis=1))[:, None]
        assert (matrix @ direction).min() >= (inside @ matrix.T).min(1).max() - 1e-4
    assert (matrix @ direction).min() > -1e-4  # with c >= 1 no task gets worse
    halved = aggregate(balancing.cagrad(0.5, "squared"), GOLDEN)[0]
    np.testing.assert_allclose(halved, np.array(METHODS["cagrad"][1]) / 1.25, atol=1e-4)


def test_aligned_mtl_is_the_polar_factor():
    """With p = 1: sqrt(lambda) times the sum of the rows of the nearest matrix with orthonormal rows, by SVD."""
    matrix = MATRICES["5 x 20 of rank 5"].astype(np.float64)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    level = {"min": values.min(), "median": np.median(values), "rmse": np.sqrt((values**2).mean())}
    for scale, factor in level.items():
        found = aggregate(balancing.aligned_mtl(scale, (1.0,) * 5), MATRICES["5 x 20 of rank 5"])[0]
        np.testing.assert_allclose(found, factor * (left @ right).sum(0), rtol=1e-3, atol=1e-3)


def steps(method, losses, matrices, masks=None):
    """The weights of each of several updates."""
    state, found = None, []
    for i, row in enumerate(losses):
        mask = None if masks is None else masks[i]
        direction, weights, state = aggregate(method, matrices[i % len(matrices)], np.float32(row), mask, state)
        found.append(np.asarray(direction if weights is None else weights))
    return np.stack(found), state


def test_dwa_by_hand():
    """Windows of two steps: weights K softmax((mean of the last / mean of the one before) / T)."""
    losses = [[4.0, 1.0], [2.0, 1.0], [1.0, 1.0], [2.0, 1.0], [9.0, 9.0]]
    found, _ = steps(balancing.dwa(temperature=2.0, every=2), losses, [GOLDEN])
    np.testing.assert_allclose(found[:4], 1.0)
    ratio = np.exp(np.array([1.5 / 3.0, 1.0]) / 2)
    np.testing.assert_allclose(found[4], 2 * ratio / ratio.sum(), rtol=1e-5)


def test_scalarizations_are_the_gradients_of_their_scalars():
    """Geometric mean, smooth Tchebycheff with an ideal point, and after its warm-up, by jax.grad."""
    losses = jnp.array([0.5, 2.0, 1.2])
    matrix = np.eye(3, dtype=np.float32)
    geometric = jax.grad(lambda x: jnp.prod(x) ** (1 / 3))(losses)
    np.testing.assert_allclose(aggregate(balancing.geometric(), matrix, losses)[1], geometric, rtol=1e-5)

    ideal, p = jnp.array([0.1, 0.0, 0.3]), jnp.array([1.0, 0.5, 2.0])
    smooth = jax.grad(lambda x: 0.3 * jax.nn.logsumexp(p * (x - ideal) / 0.3))(losses)
    method = balancing.stch(mu=0.3, preference=(1.0, 0.5, 2.0), ideal=(0.1, 0.0, 0.3))
    np.testing.assert_allclose(aggregate(method, matrix, losses)[1], smooth, rtol=1e-4)

    found, _ = steps(balancing.stch(mu=0.7, warmup=2), [[1.0, 2, 4], [3.0, 2, 4], np.asarray(losses)], [matrix])
    unit = jnp.array([2.0, 2.0, 4.0])
    warmed = jax.grad(lambda x: 0.7 * jax.nn.logsumexp(jnp.log(x / unit) / 0.7))(losses)
    np.testing.assert_allclose(found[:2], 1.0)
    np.testing.assert_allclose(found[2], warmed, rtol=1e-4)


def test_imtl_l_drives_weighted_losses_to_one():
    losses = [[0.2, 5.0]] * 600
    found, _ = steps(balancing.imtl_l(learning_rate=0.05), losses[:1], [GOLDEN])
    np.testing.assert_allclose(found[0], 1.0)
    method = balancing.imtl_l(learning_rate=0.05)

    def one(state, _):
        result, state = method.update(balancing.Signal(jnp.array([0.2, 5.0])), state, mask=jnp.ones(2, bool), key=None)
        return state, result.weights

    _, weights = jax.lax.scan(one, method.init(2, {}), length=600)
    np.testing.assert_allclose(weights[-1] * jnp.array([0.2, 5.0]), 1.0, rtol=1e-2)


def test_famo_takes_weight_from_the_task_that_fell_fast():
    """One update by the authors' rule: Adam's first step against d/d xi sum z (log before - log after) + decay xi."""
    method = balancing.famo(learning_rate=0.1)
    state, mask = method.init(3, {}), jnp.array([True, True, False])
    state = method.after(jnp.array([1.0, 1.0, 5.0]), jnp.array([0.2, 0.9, 1.0]), state, mask)
    np.testing.assert_allclose(state.value, [-0.1, 0.1, 0.0], rtol=1e-3)
    result, _ = method.update(balancing.Signal(jnp.array([0.2, 0.9, 1.0])), state, mask=mask, key=None)
    z = np.exp([-0.1, 0.1]) / np.exp([-0.1, 0.1]).sum() / np.array([0.2, 0.9])
    np.testing.assert_allclose(result.weights, [*(z / z.sum()), 0], rtol=1e-4)


def test_gradnorm_evens_out_gradient_lengths():
    """With equal training rates the weighted gradients tend to one length."""
    matrix = np.array([[10.0, 0.0], [0.0, 1.0]], np.float32)
    method = balancing.gradnorm(alpha=0.0, learning_rate=0.05)
    signal = balancing.Signal(jnp.ones(2), gramian=jnp.asarray(matrix @ matrix.T))

    def one(state, _):
        result, state = method.update(signal, state, mask=jnp.ones(2, bool), key=None)
        return state, result.weights

    _, weights = jax.lax.scan(one, method.init(2, {}), length=400)
    np.testing.assert_allclose(weights.sum(-1), 2.0, rtol=1e-5)
    assert float(weights[-1][0] * 10) == pytest.approx(float(weights[-1][1]), rel=0.1)


def test_gradvac_follows_the_papers_rule():
    """Two tasks, two steps: a cosine below its target is raised to it; the target is a moving average."""
    matrix = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    tilted = np.array([[1.0, 0.0], [-0.6, 0.8]], np.float32)
    method = balancing.gradvac(beta=0.5)
    _, _, state = aggregate(method, matrix)
    np.testing.assert_allclose(state[0], [[0, 0.3], [0.3, 0]], atol=1e-6)
    direction, weights, state = aggregate(method, tilted, state=state)
    added = (0.3 * 0.8 + 0.6 * np.sqrt(1 - 0.09)) / np.sqrt(1 - 0.09)
    np.testing.assert_allclose(weights, 1 + added, rtol=1e-5)
    raised = tilted[0] + added * tilted[1]
    assert raised @ tilted[1] / np.linalg.norm(raised) == pytest.approx(0.3, abs=1e-5)
    np.testing.assert_allclose(state[0], [[0, -0.15], [-0.15, 0]], atol=1e-6)


@pytest.mark.parametrize("groups", ["layer", "leaf"])
def test_gradvac_by_groups_is_gradvac_on_each_group(groups):
    draw = np.random.default_rng(0)
    jacobian = {f"shared/{m}/{leaf}": jnp.asarray(draw.normal(size=(3, 4)), jnp.float32)
                for m in ("one", "two") for leaf in ("kernel", "bias")}  # fmt: skip
    method = balancing.gradvac(groups=groups)
    state = method.init(3, {p: x[0] for p, x in jacobian.items()})
    key, mask, ids = jax.random.key(0), jnp.ones(3, bool), jnp.arange(3, dtype=jnp.uint32)
    signal = balancing.Signal(jnp.ones(3), jacobian=jacobian, ids=ids)
    result, _ = method.update(signal, state, mask=mask, key=key)
    modules = {"layer": [["shared/one/bias", "shared/one/kernel"], ["shared/two/bias", "shared/two/kernel"]],
               "leaf": [[p] for p in sorted(jacobian)]}[groups]  # fmt: skip
    assert state.shape == (len(modules), 3, 3)
    for i, paths in enumerate(modules):
        flat = jnp.concatenate([jacobian[p] for p in paths], 1)
        alone, _, _ = aggregate(balancing.gradvac(), flat, key=jax.random.fold_in(key, i))
        np.testing.assert_allclose(jnp.concatenate([result.direction[p] for p in paths]), alone, atol=1e-5)


def test_cosmos_and_pbi_are_the_gradients_of_their_scalars():
    """Written out anew from the papers and differentiated by jax.grad, without the absent task."""
    losses, mask = jnp.array([0.5, 2.0, 1.2, 9.0]), np.array([True, True, True, False])
    ray, matrix = jnp.array([1.0, 0.5, 2.0, 1.0]), np.eye(4, dtype=np.float32)
    there, r = losses[:3], ray[:3]

    def cosmos(x):
        return r @ x - 0.7 * (r @ x) / jnp.linalg.norm(r) / jnp.linalg.norm(x)

    def pbi(x):
        along = x @ r / jnp.linalg.norm(r)
        return along + 3.0 * jnp.linalg.norm(x - along * r / jnp.linalg.norm(r))

    for method, scalar in ((balancing.cosmos(tuple(map(float, ray)), 0.7), cosmos),
                           (balancing.pbi(tuple(map(float, ray)), 3.0), pbi)):  # fmt: skip
        weights = aggregate(method, matrix, losses, mask)[1]
        np.testing.assert_allclose(weights[:3], jax.grad(scalar)(there), rtol=1e-4)
        assert weights[3] == 0
    on_the_ray = aggregate(balancing.pbi(), np.eye(2, dtype=np.float32), jnp.ones(2))[1]
    np.testing.assert_allclose(on_the_ray, 1 / np.sqrt(2), rtol=1e-5)


def test_krum_and_trimmed_mean_leave_the_outlier_out():
    """Four gradients near each other and one far off; by hand from the definitions."""
    near = 1 + 0.1 * np.random.default_rng(0).normal(size=(4, 6))
    matrix = np.concatenate([near[:2], 50 * np.ones((1, 6)), near[2:]]).astype(np.float32)
    weights = np.asarray(aggregate(balancing.krum(outliers=1, selected=2), matrix)[1])
    distance = ((matrix[:, None] - matrix[None]) ** 2).sum(-1)
    score = np.sort(distance + 1e9 * np.eye(5), 1)[:, :2].sum(1)
    expected = np.zeros(5)
    expected[np.argsort(score)[:2]] = 0.5
    np.testing.assert_allclose(weights, expected)
    trimmed = aggregate(balancing.trimmed_mean(1), matrix)[0]
    np.testing.assert_allclose(trimmed, np.sort(matrix, 0)[1:-1].mean(0), rtol=1e-5)
    with pytest.raises(ValueError, match="krum: 3 tasks are too few for outliers=1 and selected=1; it takes 4"):
        balancing.krum().init(3, {})
    with pytest.raises(ValueError, match="trimmed_mean: trim=1 leaves none of 2 tasks; it takes 3"):
        balancing.trimmed_mean().init(2, {})


def test_cr_mogm_averages_weights():
    """alpha old + (1 - alpha) new from the second step on; alpha = 0 is the method itself."""
    first, second = MATRICES["in conflict"], MATRICES["in conflict"][::-1].copy()
    plain = [np.asarray(aggregate(balancing.upgrad(), m)[1]) for m in (first, second)]
    found, _ = steps(balancing.cr_mogm("upgrad", alpha=0.75), np.ones((2, 5)), [first, second])
    np.testing.assert_allclose(found, [plain[0], 0.75 * plain[0] + 0.25 * plain[1]], rtol=1e-4, atol=1e-5)
    found, _ = steps(balancing.cr_mogm("upgrad", alpha=0.0), np.ones((2, 5)), [first, second])
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    with pytest.raises(ValueError, match=r"cr_mogm: 'graddrop\(\)' decides on a direction"):
        balancing.cr_mogm("graddrop")


def test_moco_db_mtl_and_excess_mtl_by_hand():
    """Two steps of each recurrence, written out in NumPy."""
    first = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32).astype(np.float64)
    second = first[::-1]
    given = [first.astype(np.float32), second.astype(np.float32)]
    losses = np.array([[0.5, 2.0, 1.0], [0.4, 1.0, 3.0]])

    y = 0.5 * first
    w = np.exp(np.full(3, 1 / 3) - 0.1 * (y @ y.T) @ np.full(3, 1 / 3))
    w /= w.sum()
    y2 = y - 0.5 / np.sqrt(2) * (y - second)
    w2 = np.exp(w - 0.1 / np.sqrt(2) * (y2 @ y2.T) @ w)
    w2 /= w2.sum()
    found, _ = steps(balancing.moco(), losses, given)
    np.testing.assert_allclose(found, [y.T @ w, y2.T @ w2], rtol=1e-3, atol=1e-4)

    average = first / losses[0][:, None]
    later = 0.9 * average + 0.1 * second / losses[1][:, None]
    lengths = [np.linalg.norm(a, axis=1) for a in (average, later)]
    expected = [a.T @ (n.max() / n) for a, n in zip((average, later), lengths, strict=True)]
    found, _ = steps(balancing.db_mtl(), losses, given)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    squares = first**2
    e1 = (first**2 / np.sqrt(squares)).sum(1)
    squares = squares + second**2
    e2 = (second**2 / np.sqrt(squares)).sum(1) / e1
    w1 = np.full(3, 1 / 3)
    w2 = w1 * np.exp(0.5 * e2)
    found, _ = steps(balancing.excess_mtl(step_size=0.5), losses, given)
    np.testing.assert_allclose(found, [w1, w2 / w2.sum()], rtol=1e-4)


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
    slope = jax.grad(lambda s: ((jnp.exp(-s) * losses + s) / 2).sum())(first.value)
    # The first step of Adam is the learning rate against the sign of the slope.
    moved = np.asarray(second.value - first.value)
    np.testing.assert_allclose(moved[:2], -0.1 * np.sign(slope[:2]), rtol=1e-4)
    for new, old in zip(jax.tree.leaves(second), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(np.asarray(new)[2], np.asarray(old)[2])


def test_mgda_normalisations():
    """Each gradient is divided first; the weights then apply to the divided ones."""
    matrix, losses = MATRICES["in conflict"], np.linspace(0.5, 3.0, 5, dtype=np.float32)
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

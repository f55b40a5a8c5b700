"""What methods are made with: refused where it makes no sense, and each option against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Signal, aggregate
from mtl_jax.balancing.arguments import check_whole, numbers

MATRIX = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
WRONG = {
    "fixed((1, -1))": "weights",
    "fixed((0, 0))": "weights",
    "fixed(())": "weights",
    "uncertainty(learning_rate=-0.1)": "learning_rate",
    "uncertainty(init_log_variance=1000)": "init_log_variance",
    "dwa(temperature=0)": "temperature",
    "imtl_l(learning_rate=0)": "learning_rate",
    "imtl(learning_rate=-1)": "learning_rate",
    "stch(mu=0)": "mu",
    "stch(warmup=0)": "warmup",
    "stch(preference=(1, -1))": "preference",
    "famo(learning_rate=-1)": "learning_rate",
    "famo(weight_decay=-1)": "weight_decay",
    "cosmos(penalty=-1)": "penalty",
    "cosmos(preference=())": "preference",
    "pbi(penalty=-1)": "penalty",
    "pbi(preference=(0, 0))": "preference",
    "upgrad(regularization=-1)": "regularization",
    "upgrad(preference=(-1, 1))": "preference",
    "dual_proj(regularization=-1e-3)": "regularization",
    "dual_proj(preference=(0,))": "preference",
    "cagrad(c=-0.1)": "c",
    "conicgrad(c=1)": "c",
    "nash_mtl(max_norm=0)": "max_norm",
    "fairgrad(alpha=0)": "alpha",
    "gradvac(beta=1.1)": "beta",
    "aligned_mtl(preference=(-1,))": "preference",
    "conflict_free(preference=(1, -1))": "preference",
    "epo(preference=(1, 0))": "preference",
    "epo(tolerance=0)": "tolerance",
    "gradnorm(alpha=-1)": "alpha",
    "gradnorm(learning_rate=0)": "learning_rate",
    "krum(outliers=-1)": "outliers",
    "krum(selected=0)": "selected",
    "cr_mogm(alpha=1.1)": "alpha",
    "cr_mogm(first_weights=(1, 1))": "first_weights",
    "graddrop(leak=(2,))": "leak",
    "moco(beta=0)": "beta",
    "moco(gamma=-1)": "gamma",
    "moco(rho=-1)": "rho",
    "db_mtl(beta=1)": "beta",
    "db_mtl(beta_sigma=-1)": "beta_sigma",
    "excess_mtl(step_size=0)": "step_size",
    "excess_mtl(warmup=-1)": "warmup",
    "trimmed_mean(trim=-1)": "trim",
    "modo(gamma=0)": "gamma",
    "modo(rho=-1)": "rho",
    "sdmgrad(momentum=1)": "momentum",
    "sdmgrad(learning_rate=-1)": "learning_rate",
    "sdmgrad(preference_weight=-1)": "preference_weight",
    "sdmgrad(inner_steps=0)": "inner_steps",
    "sdmgrad(preference=(-1, 2))": "preference",
    "auto_lambda(inner_rate=0)": "inner_rate",
    "auto_lambda(first_weight=-1)": "first_weight",
    "auto_lambda(primary='depth')": "primary",
    "moml(learning_rate=-1)": "learning_rate",
    "forum(inner_steps=0)": "inner_steps",
    "forum(average=1)": "average",
    "forum(rho=-1)": "rho",
    "log_cagrad(c=-1)": "c",
    "ldc_mtl(penalty=-1)": "penalty",
    "ldc_mtl(learning_rate=0)": "learning_rate",
    "pivrg(baselines=(1, 0))": "baselines",
    "pivrg(bound=1)": "bound",
    "pivrg(every=0)": "every",
    "pivrg(max_norm=0)": "max_norm",
    "samo(rho=-1)": "rho",
    "samo(local=2)": "local",
    "samo(step=0)": "step",
}


@pytest.mark.parametrize("call", WRONG)
def test_what_makes_no_sense_is_refused(call):
    """By a ValueError that names the method and the argument, when the method is made."""
    name = "imtl_l" if call.startswith("imtl(") else call.partition("(")[0]  # imtl's rate is imtl_l's
    with pytest.raises(ValueError, match=rf"^{name}: {WRONG[call]}="):
        balancing.build(call)


@pytest.mark.parametrize("value", ["ab", 0.1, ("a",), (1.0, None), (True,), (1.0, float("nan")), ()])
def test_what_is_no_number_per_task_is_refused(value):
    with pytest.raises(ValueError, match=r"^stch: ideal="):
        numbers("stch", "ideal", value)


@pytest.mark.parametrize("value", ["large", None, 1.5])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^dwa: every=.* must be a whole number, 1 or more"):
        check_whole("dwa", 1, every=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True])
def test_what_is_no_finite_number_is_refused(value):
    for make, argument in ((balancing.cagrad, "c"), (balancing.modo, "gamma"), (balancing.upgrad, "regularization")):
        with pytest.raises(ValueError, match=f": {argument}="):
            make(**{argument: value})
    with pytest.raises(ValueError, match="preference="):
        balancing.upgrad(preference=(1.0, value))


def test_arguments_per_task_are_counted():
    template = {"": jnp.zeros(2)}
    for method in (balancing.conflict_free((1.0, 2.0)), balancing.sdmgrad(preference=(1.0, 2.0)),
                   balancing.pbi(reference=(0.0, 0.0)), balancing.famo(min_losses=(0.0, 0.0)),
                   balancing.cr_mogm("equal", first_weights=(1.0, 2.0)), balancing.stch(ideal=(0.0, 0.0))):  # fmt: skip
        with pytest.raises(ValueError, match=r"^[a-z_]+: 2 [a-z_ ]+ were given for 3 tasks"):
            method.init(3, template)


def test_a_preference_for_conflict_free():
    """Equation 2 of the paper with U^+ p by NumPy's pseudo-inverse in float64; cosines are in proportion to p."""
    p = np.array([1.0, 2.0, 0.5])
    direction, _, _ = aggregate(balancing.conflict_free(tuple(p)), MATRIX)
    matrix = MATRIX.astype(np.float64)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    u = np.linalg.pinv(unit) @ p
    u /= np.linalg.norm(u)
    np.testing.assert_allclose(direction, (matrix @ u).sum() * u, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unit @ direction / p, (unit @ direction / p).mean(), rtol=1e-4)


def test_a_preference_for_sdmgrad():
    """One projected step towards min |J'(w + l p)|^2, by hand; p is divided by its sum over the present tasks."""
    cross = np.array([[1.0, -0.2, 0.1], [0.3, 2.0, 0.0], [0.1, 0.4, 0.5]])
    method = balancing.sdmgrad(0.5, 0.1, 0.0, inner_steps=1, preference=(1.0, 2.0, 1.0))
    signal = Signal(jnp.ones(3), cross=jnp.asarray(cross, jnp.float32))
    result, state = method.update(signal, method.init(3, {}), mask=jnp.ones(3, bool), key=None)
    p = np.array([0.25, 0.5, 0.25])
    moved = 1 / 3 - 0.1 * (cross / np.abs(np.diag(cross)).mean()) @ (1 / 3 + 0.5 * p)
    w = moved + (1 - moved.sum()) / 3  # the projection, as no entry falls to 0
    assert (w > 0).all()
    np.testing.assert_allclose(result.weights, (w + 0.5 * p) / 1.5, rtol=1e-5)
    mask = jnp.array([True, False, True])
    result, _ = method.update(signal, state, mask=mask, key=None)
    assert result.weights[1] == 0 and float(result.weights.sum()) == pytest.approx(1, abs=1e-6)


def test_a_function_of_the_purity_for_graddrop():
    """A majority of 2 to 1 wins always under a step at a half, and loses never."""
    matrix = np.array([[2.0, -2.0], [-1.0, 1.0]], np.float32)
    method = balancing.graddrop(f=lambda p: jnp.where(p > 0.5, 1.1, -0.1))
    assert method.spec is None
    for seed in range(5):
        direction, _, _ = aggregate(method, matrix, key=jax.random.key(seed))
        np.testing.assert_array_equal(direction, [2.0, -2.0])


def test_warm_up_for_excess_mtl():
    """Weights are even for two steps; then relative to the mean of their estimates, by hand."""
    first, second = np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])
    method, state = balancing.excess_mtl(step_size=0.5, warmup=2), None
    for matrix in (first, second):
        _, weights, state = aggregate(method, matrix.astype(np.float32), state=state)
        np.testing.assert_allclose(weights, 0.5, rtol=1e-6)
    _, weights, _ = aggregate(method, first.astype(np.float32), state=state)
    before = (np.array([2.0, 1.0]) + np.array([1.0, 4.0]) / np.sqrt(5)) / 2
    grown = np.exp(0.5 * np.array([4 / 3, 1 / np.sqrt(6)]) / before)
    np.testing.assert_allclose(weights, grown / grown.sum(), rtol=1e-5)


def test_excess_mtl_does_not_overflow():
    """A first batch with gradients a millionth of later ones, and the task that took all gives it back."""
    method, state = balancing.excess_mtl(step_size=1.0), None
    for scale in (1e-6, 1.0, 1.0):
        _, weights, state = aggregate(method, scale * MATRIX, state=state)
        assert np.isfinite(weights).all() and float(weights.sum()) == pytest.approx(1, abs=1e-5)


def test_first_weights_for_cr_mogm():
    """The average before the first step; alpha = 1 keeps it, or the first that the method gives."""
    plain = np.asarray(aggregate(balancing.mgda(), MATRIX)[1])
    start = np.array([0.5, 0.3, 0.2])
    _, weights, _ = aggregate(balancing.cr_mogm("mgda", 0.5, tuple(start)), MATRIX)
    np.testing.assert_allclose(weights, 0.5 * start + 0.5 * plain, atol=1e-5)
    for method, expected in ((balancing.cr_mogm("mgda", 1.0, tuple(start)), start),
                             (balancing.cr_mogm("mgda", 1.0), plain)):  # fmt: skip
        _, _, state = aggregate(method, MATRIX)
        _, weights, _ = aggregate(method, MATRIX[::-1].copy(), state=state)
        np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_cr_mogm_of_a_method_that_reads_the_jacobian():
    """The average of ExcessMTL's own weights."""
    method, plain = balancing.cr_mogm("excess_mtl(step_size=1.0)", alpha=0.5), balancing.excess_mtl(step_size=1.0)
    state, own, average = None, None, None
    for matrix in (MATRIX, 3 * MATRIX[::-1], MATRIX):
        _, weights, state = aggregate(method, matrix.astype(np.float32), state=state)
        _, fresh, own = aggregate(plain, matrix.astype(np.float32), state=own)
        average = np.asarray(fresh) if average is None else 0.5 * average + 0.5 * np.asarray(fresh)
        np.testing.assert_allclose(weights, average, rtol=1e-5)


def test_min_losses_for_famo():
    """Both the weights and what they learn from are those of the losses less their bounds."""
    bounds, losses, later = np.array([0.1, -1.0]), np.array([0.5, 1.0]), np.array([0.3, 0.9])
    method, plain = balancing.famo(min_losses=tuple(bounds)), balancing.famo()
    mask, states = jnp.ones(2, bool), [balancing.famo().init(2, {})] * 2
    found = []
    for i, (one, given) in enumerate(((method, 0 * bounds), (plain, bounds))):
        before, after = (jnp.asarray(x - given, jnp.float32) for x in (losses, later))
        states[i] = one.after(before, after, states[i], mask)
        found.append(one.update(Signal(after), states[i], mask=mask, key=None)[0].weights)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    below = method.update(Signal(jnp.array([0.05, 1.0])), states[0], mask=mask, key=None)[0].weights
    assert np.isnan(below[0])


def test_a_reference_for_pbi():
    """The scalar of the paper around the reference point, by jax.grad."""
    losses, ray, point = jnp.array([0.5, 2.0, 1.2]), jnp.array([1.0, 0.5, 2.0]), jnp.array([0.1, -0.5, 0.3])

    def scalar(x):
        unit = ray / jnp.linalg.norm(ray)
        along = (x - point) @ unit
        return along + 3.0 * jnp.linalg.norm(x - point - along * unit)

    method = balancing.pbi(tuple(map(float, ray)), 3.0, tuple(map(float, point)))
    weights = aggregate(method, np.eye(3, dtype=np.float32), losses)[1]
    np.testing.assert_allclose(weights, jax.grad(scalar)(losses), rtol=1e-4)


@pytest.mark.parametrize("call", ["uncertainty(learning_rate=1.0)", "imtl_l(learning_rate=1.0)"])
def test_the_scale_of_a_loss_of_zero_stays_finite(call):
    """exp(-s) L + s falls without end where L is 0: the scale stops within float32."""
    method = balancing.build(call)

    def one(state, _):
        result, state = method.update(Signal(jnp.array([0.0, 1.0])), state, mask=jnp.ones(2, bool), key=None)
        return state, result.weights

    state, weights = jax.lax.scan(one, method.init(2, {}), length=200)
    assert np.isfinite(weights).all() and abs(state.value[0]) == 40


def test_cagrad_harms_no_task_at_a_stationary_point():
    """With 0 in the convex hull and c >= 1 nothing is better than a direction that harms none; here that is 0 alone."""
    matrix = np.array([[2.0, 0.0], [-1.0, 1.0], [-0.2, -0.2]], np.float32)
    for c in (1.0, 1.5):
        np.testing.assert_allclose(aggregate(balancing.cagrad(c), matrix)[0], 0, atol=1e-5)
    with_a_way_out = np.concatenate([np.pad(matrix, ((0, 0), (0, 1))), [[0.0, 0.0, 1.0]]]).astype(np.float32)
    direction = np.asarray(aggregate(balancing.cagrad(1.5), with_a_way_out)[0])
    np.testing.assert_allclose(direction, [0, 0, 0.25], atol=1e-5)


def test_krum_shares_a_place_between_equals():
    """Of two tasks at the same distance from each other neither is first."""
    mask = np.array([True, True, False, False])
    matrix = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(aggregate(balancing.krum(), matrix, mask=mask)[1], [0.5, 0.5, 0, 0])


def test_gradvac_of_equal_gradients_stays_their_sum():
    """Their goal tends to 1, where raising a cosine that is 1 up to rounding would add hundreds of gradients."""
    matrix = np.repeat(MATRIX[:1], 3, 0)
    state = None
    for _ in range(40):
        direction, _, state = aggregate(balancing.gradvac(), matrix, state=state)
    np.testing.assert_allclose(direction, 3 * MATRIX[0], rtol=1e-4)


def test_whole_numbers_count_as_floats():
    np.testing.assert_allclose(aggregate(balancing.equal(), np.array([[1, 2], [3, 4]]))[0], [4.0, 6.0])

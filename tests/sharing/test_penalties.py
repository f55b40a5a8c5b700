"""What ties networks and codes, against NumPy, SciPy and closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.special
from flax import linen as nn

from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.mlp import mlp
from mtl_jax.encoders.positions import mean_over_positions
from mtl_jax.sharing.dselect_k import selection, smooth_step
from mtl_jax.sharing.neighbours import Neighbours
from mtl_jax.sharing.positions import at_positions_of
from mtl_jax.sharing.soft import PENALTIES, covariance_of, covariance_penalty, learned_relations, soft, trace_norm
from tests import tiny
from tests.sharing.test_architectures import TWO, drawn, quick


class Flat(nn.Module):
    """A stage without weights."""

    def __call__(self, x, *, train):
        return x.reshape(len(x), -1)


def networks(scale=0.5):
    """Three stacked leaves of two tasks, and the rows they make up."""
    draw = np.random.default_rng(3)
    leaves = [scale * draw.normal(size=s) for s in [(2, 5, 4), (2, 4), (2, 4, 3)]]
    return leaves, np.concatenate([x.reshape(2, -1) for x in leaves], 1)


def test_trace_norm_and_its_gradient():
    """Singular values, and U V' as the gradient (Watson 1992)."""
    leaves, _ = networks()
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(trace_norm)(jnp.asarray(leaves[0]))
    left, singular, right = np.linalg.svd(leaves[0].reshape(2, -1), full_matrices=False)
    np.testing.assert_allclose(value, singular.sum(), rtol=1e-7)
    np.testing.assert_allclose(gradient.reshape(2, -1), left @ right, atol=1e-7)


def test_equal_weights_have_a_finite_gradient():
    same = jnp.broadcast_to(jnp.arange(6.0), (3, 6))
    for function in (trace_norm, lambda w: covariance_penalty([w])):
        value, gradient = jax.value_and_grad(function)(same)
        assert np.isfinite(value) and np.abs(gradient).max() < 1e3
    np.testing.assert_allclose(trace_norm(same), np.sqrt(3 * 55), rtol=2e-2)


def test_the_learned_covariance_is_the_minimiser():
    """(W W')^(1/2) over its trace by SciPy; no other trace-one matrix has a lower tr(W' Omega^-1 W)."""
    leaves, rows = networks()
    with jax.enable_x64(True):
        given = [jnp.asarray(x) for x in leaves]
        omega, penalty = covariance_of(given), float(covariance_penalty(given))
    root = scipy.linalg.sqrtm(rows @ rows.T)
    np.testing.assert_allclose(omega, root / np.trace(root), rtol=1e-7)
    np.testing.assert_allclose(penalty, np.linalg.svd(rows)[1].sum() ** 2, rtol=1e-7)
    for seed in range(20):
        other = np.random.default_rng(seed).normal(size=(2, 2))
        other = other @ other.T
        assert np.trace(np.linalg.solve(other / np.trace(other), rows @ rows.T)) >= penalty * (1 - 1e-9)


def test_ties_by_their_formulas():
    """In place, through the model; pairs weighted 1 / K are the distances to the mean."""
    model = tiny.model(TWO, "soft(weight=2.0)")
    variables = drawn(model, tiny.batch(4))
    encoders = [variables["params"]["tasks"][t.name]["encoder"] for t in TWO]
    first, second = (np.concatenate([x.ravel() for x in jax.tree.leaves(e)]) for e in encoders)
    expected = 2 * 0.5 * ((first - second) ** 2).sum()
    np.testing.assert_allclose(model.penalty(variables), expected, rtol=1e-5)
    pairs = tiny.model(TWO, "soft('pairwise', 2.0, relations=((0, 0.5), (0.5, 0)))")
    np.testing.assert_allclose(pairs.penalty(variables), expected, rtol=1e-5)
    lower = tiny.model(TWO, "soft(weight=2.0, stages=1)")
    kernels = [np.concatenate([x.ravel() for x in jax.tree.leaves(e["stage_0"])]) for e in encoders]
    np.testing.assert_allclose(lower.penalty(variables), ((kernels[0] - kernels[1]) ** 2).sum(), rtol=1e-5)
    learned = tiny.model(TWO, "soft('covariance', 2.0)")
    rows = np.stack([first, second])
    np.testing.assert_allclose(learned.penalty(variables), 2 * np.linalg.svd(rows)[1].sum() ** 2, rtol=1e-4)
    root = scipy.linalg.sqrtm(rows @ rows.T)
    np.testing.assert_allclose(learned_relations(learned, variables), root / np.trace(root), rtol=1e-4)
    thin = tiny.model(TWO, "soft('trace_norm', 2.0)")
    leaves = zip(*map(jax.tree.leaves, encoders), strict=True)
    norms = [np.linalg.svd(np.stack([a.ravel(), b.ravel()]))[1].sum() for a, b in leaves]
    np.testing.assert_allclose(thin.penalty(variables), 2 * sum(norms), rtol=1e-3)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_stages_without_weights_tie_nothing(penalty):
    """That was no penalty at all, or an error of an array library's."""
    model = soft(Encoder((Flat(), *mlp((4,)).stages)), TWO, penalty, stages=1)
    variables = jax.eval_shape(lambda key: model.init(key, tiny.batch(4)), jax.random.key(0))
    with pytest.raises(ValueError, match="stage_0 of the encoder has no weights"):
        jax.eval_shape(model.penalty, variables)


def test_relations_are_those_of_networks_made_of_an_encoder():
    model = tiny.model(TWO, "soft()")._replace(encoder=None)
    with pytest.raises(ValueError, match="this model has none"):
        learned_relations(model, {})


def test_sparse_codes_by_their_formula():
    model = tiny.model(TWO, "go_mtl(sparsity=0.5, decay=0.25)")
    params = drawn(model, tiny.batch(4))["params"]
    codes = sum(np.abs(x).sum() for t in TWO for x in jax.tree.leaves(params["tasks"][t.name]["codes"]))
    latent = sum((x**2).sum() for x in jax.tree.leaves(params["shared"]["encoder"]))
    heads = sum((params["tasks"][t.name]["head"]["out"]["kernel"] ** 2).sum() for t in TWO)
    np.testing.assert_allclose(model.penalty({"params": params}), 0.5 * codes + 0.25 * (latent + heads), rtol=1e-5)


def test_codes_cannot_flee_into_heads():
    """Codes times a and heads divided by it are the same linear model; the penalty has its least value where the
    derivative of sparsity * a * S + decay * H / a^2 is 0, and grows without bound where codes vanish.
    """
    model = tiny.model(TWO, "go_mtl(sparsity=0.5, decay=0.25)", "linear(features=3)")
    params = drawn(model, tiny.batch(4))["params"]
    own = [params["tasks"][t.name] for t in TWO]
    codes = sum(float(np.abs(x).sum()) for o in own for x in jax.tree.leaves(o["codes"]))
    heads = sum(float((o["head"]["out"]["kernel"] ** 2).sum()) for o in own)

    def at(a):
        scaled = {
            t.name: o | {
                "codes": jax.tree.map(lambda x: x * a, o["codes"]),
                "head": {"out": o["head"]["out"] | {"kernel": o["head"]["out"]["kernel"] / a}},
            }
            for t, o in zip(TWO, own, strict=True)
        }  # fmt: skip
        return float(model.penalty({"params": params | {"tasks": scaled}}))

    best = (2 * 0.25 * heads / (0.5 * codes)) ** (1 / 3)
    assert all(at(a) > at(best) for a in (best / 1.3, best * 1.3))
    assert at(1e-3) > 1e3 * at(best)
    with pytest.raises(ValueError, match="needs decay above 0"):
        tiny.model(TWO, "go_mtl(decay=0.0)")


@pytest.mark.parametrize("shape", [(2, 5), (2, 7, 5), (2, 4, 6, 5)], ids=["vectors", "sequences", "images"])
def test_neighbours_by_scipy(shape):
    """Vectors: a dense map. Sequences and images: what SciPy's correlation gives, with zeros beyond the edge and the
    mask."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=shape).astype(np.float32)
    x, seen = jnp.asarray(values), values
    if len(shape) == 3:
        mask = np.arange(7) < np.array([[7], [4]])
        x, seen = {"values": x, "mask": jnp.asarray(mask)}, np.where(mask[..., None], values, 0)
    module = Neighbours(3, bias=True)
    variables = module.init(jax.random.key(0), x, train=True)
    kernel, bias = (np.asarray(variables["params"]["map"][k]) for k in ("kernel", "bias"))
    assert kernel.shape == (*(3,) * (len(shape) - 2), 5, 3)
    expected = np.zeros((*shape[:-1], 3))
    for row, i, o in np.ndindex(2, 5, 3):
        if len(shape) == 2:
            expected[row, o] += seen[row, i] * kernel[i, o]
        else:
            expected[row, ..., o] += scipy.signal.correlate(seen[row, ..., i], kernel[..., i, o], "same", "direct")
    np.testing.assert_allclose(module.apply(variables, x, train=True), expected + bias, atol=1e-5)


def test_orthogonality_by_its_formula():
    """Sum over columns, stages and pairs of subspaces of |G_i' G_j|^2."""
    model = tiny.model(TWO, "sluice(orthogonality=3.0)")
    variables = drawn(model, tiny.batch(4))
    total = 0
    for stage in variables["params"]["shared"]["columns"].values():
        for kernel in stage["dense"]["kernel"]:
            half = kernel.shape[1] // 2
            total += (np.matmul(kernel[:, :half].T, kernel[:, half:]) ** 2).sum()
    np.testing.assert_allclose(model.penalty(variables), 3 * total, rtol=1e-5)
    assert tiny.model(TWO, "sluice(subspaces=1)").penalty(variables) == 0


def test_smooth_step_and_codes():
    """0, 1/2 and 1 at -gamma / 2, 0 and gamma / 2 with slopes 0, 3 / (2 gamma), 0; hard bits are binary numbers."""
    value, slope = jax.vmap(jax.value_and_grad(lambda x: smooth_step(x, 2.0)))(jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0]))
    np.testing.assert_allclose(value, [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(slope[jnp.array([0, 2, 4])], [0, 0.75, 0], atol=1e-6)
    bits = jnp.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]], float)
    np.testing.assert_array_equal(selection(bits, 6), np.eye(6)[[0, 1, 2, 5]])
    soft_bits = np.random.default_rng(0).random((4, 3))
    np.testing.assert_allclose(selection(jnp.asarray(soft_bits), 8).sum(-1), 1, rtol=1e-5)


def test_means_and_resampling_over_positions():
    values = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    x = {"values": jnp.asarray(values), "mask": jnp.asarray(mask)}
    np.testing.assert_allclose(mean_over_positions(x), [values[0, :2].mean(0), values[1].mean(0)], rtol=1e-5)
    flat = jnp.asarray(values[:, 0])
    np.testing.assert_array_equal(at_positions_of(flat, x), np.repeat(values[:, :1], 4, 1))
    np.testing.assert_allclose(at_positions_of(x, flat), mean_over_positions(x))
    image = jnp.ones((2, 8, 6, 3))
    np.testing.assert_allclose(at_positions_of(image, jnp.ones((2, 4, 3, 5))), np.ones((2, 4, 3, 3)), rtol=1e-6)


@pytest.mark.parametrize("gate", ["input", "features"])
def test_gate_weights_by_numpy(gate):
    """softmax(W x + b) over what the gate reads, through the logged loads."""
    model = tiny.model(TWO, f"mmoe(experts=2, gate={gate!r})", "mlp(features=(3,), activation='tanh')")
    batch = tiny.batch(6)
    variables = drawn(model, batch)
    _, _, aux = quick(lambda v: model.encode(v, batch, train=False))(variables)
    params = variables["params"]
    expert = params["shared"]["experts"]["stage_0"]["dense"]
    features = np.tanh(np.einsum("bi,eio->ebo", batch.inputs, expert["kernel"]) + expert["bias"][:, None])
    read = np.asarray(batch.inputs) if gate == "input" else features.mean(0)
    own = params["tasks"]["color"]["gate"]["shared"]
    weights = scipy.special.softmax(read @ own["kernel"] + own["bias"], -1)
    np.testing.assert_allclose([aux["metrics"][f"load/color/shared_{e}"] for e in range(2)], weights.mean(0), rtol=1e-5)
    share = weights.mean(0)
    np.testing.assert_allclose(aux["metrics"]["gate_entropy/color"], -(share * np.log(share)).sum(), rtol=1e-5)

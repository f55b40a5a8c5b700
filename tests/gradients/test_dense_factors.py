"""Which dense layers are factored; that their Gramian and directions are right is in test_engine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import partition
from mtl_jax.gradients import dense_factors
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.gramian import combine, gramian
from tests import tiny


class Net(nn.Module):
    """Layers that are called once and twice, inside calls of their own, and a kernel that is read elsewhere."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(40, name="once")(x))
        twice, tied = nn.Dense(40, name="twice"), nn.Dense(40, name="tied")
        x = tied(twice(jnp.tanh(twice(x))))
        x = nn.remat(nn.Dense)(40, name="remat")(x)
        inside, looped = nn.Dense(40, name="inside"), nn.Dense(40, name="looped")
        if self.is_initializing():
            inside(x), looped(x)
        else:  # closed over by calls of their own
            dense, once, often = nn.Dense(40, parent=None), inside.variables, looped.variables
            x = jax.checkpoint(lambda x: dense.apply(once, x))(x)
            x, _ = jax.lax.scan(lambda x, _: (dense.apply(often, x), None), x, length=2)
        return x @ tied.variables["params"]["kernel"].T


@pytest.mark.parametrize("rows, expected", [(12, {"once/kernel"}), (60, set())])
def test_what_is_factored(rows, expected):
    """A kernel with one use, and only where the layer is wider than its rows."""
    x = jnp.ones((rows, 30))
    variables = jax.jit(Net().init)(jax.random.key(0), x)
    leaves = partition.flatten(variables["params"])
    kernels = [p for p, w in leaves.items() if w.ndim == 2]
    assert len(kernels) == 6

    def run(leaves):
        return Net().apply({"params": partition.unflatten(leaves, variables["params"])}, x)

    found = dense_factors.take_apart(run, kernels, 8, leaves)
    assert set(found.zeros) == expected
    assert set(found.left) == set(kernels) - expected
    assert found.left["twice/kernel"] == "read 2 times"
    assert found.left["inside/kernel"].startswith("read by remat") and found.left["looped/kernel"] == "read by scan"
    whole, entering = found.run(leaves, {p: jnp.ones_like(z) for p, z in found.zeros.items()})
    if expected:  # what entered the product, and what comes after it when ones are added there
        np.testing.assert_array_equal(entering["once/kernel"], x)
        moved = partition.unflatten(leaves | {"once/bias": leaves["once/bias"] + 1}, variables["params"])
        np.testing.assert_allclose(whole, Net().apply({"params": moved}, x), rtol=1e-5)


def test_one_task_is_not_factored():
    assert dense_factors.pays(dense_factors.Product(None, 8, 64, 64), 4)
    assert not dense_factors.pays(dense_factors.Product(None, 8, 64, 64), 1)


def test_what_is_left_out_is_said():
    data = tiny.data()
    model = tiny.model(data.tasks, encoder="mlp(features=(300, 4))")
    run = tiny.fit(model, data, balancer="upgrad", engine="layers", num_steps=5, batch_size=16)
    assert "; no layer is taken apart, so rows are pulled as by 'map' (shared/" in run.engine
    assert "rows are too many for 5 x 300" in run.engine


def test_half_precision_and_members():
    """Computed in bfloat16, with weights of several members at once: factors give what rows give, in float32."""
    model = tiny.model(tiny.data().tasks, encoder="mlp(features=(48, 64), dtype='bfloat16')")
    batch = tiny.batch(12)
    variables = jax.vmap(lambda key: model.init(key, batch))(jax.random.split(jax.random.key(0), 2))

    def taken(mode):
        def one(variables):
            rows = linearize(model, variables, batch, tasks=tiny.data().tasks, mode=mode).jacobian()
            assert any(map(dense_factors.is_factored, rows.values())) == (mode == "layers")
            return gramian(rows), combine(jnp.arange(1.0, 4.0), rows)

        return jax.jit(jax.vmap(one))(variables)

    (gram, direction), (other, expected) = taken("layers"), taken("map")
    assert {x.dtype for x in jax.tree.leaves((gram, direction))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(gram, other, rtol=0.02, atol=0.01 * np.abs(other).max())
    for path, leaf in direction.items():
        np.testing.assert_allclose(leaf, expected[path], atol=0.02 * np.abs(expected[path]).max())

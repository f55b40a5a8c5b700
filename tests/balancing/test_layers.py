"""Which dense layers are factored; that their Gramian and directions are right is in test_engine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import partition
from mtl_jax.balancing import layers
from mtl_jax.balancing.engine import linearize
from mtl_jax.balancing.gramian import combine, gramian
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
    kernels = {p: w for p, w in partition.flatten(variables["params"]).items() if w.ndim == 2}
    assert len(kernels) == 6

    def run(kernels):
        return Net().apply({"params": partition.unflatten(kernels, variables["params"])}, x)

    assert set(layers.find(run, kernels, num_tasks=8)) == expected


def test_one_task_is_not_factored():
    output = jax.ShapeDtypeStruct((8, 64), np.float32)
    assert layers.pays(layers.Watched(output, 64), 4)
    assert not layers.pays(layers.Watched(output, 64), 1)


def test_half_precision_and_members():
    """Computed in bfloat16, with weights of several members at once: factors give what rows give, in float32."""
    model = tiny.model(tiny.data().tasks, encoder="mlp(features=(48, 64), dtype='bfloat16')")
    batch = tiny.batch(12)
    variables = jax.vmap(lambda key: model.init(key, batch))(jax.random.split(jax.random.key(0), 2))

    def taken(mode):
        def one(variables):
            rows = linearize(model, variables, batch, tasks=tiny.data().tasks, mode=mode).jacobian()
            assert any(map(layers.is_factored, rows.values())) == (mode == "layers")
            return gramian(rows), combine(jnp.arange(1.0, 4.0), rows)

        return jax.jit(jax.vmap(one))(variables)

    (gram, direction), (other, expected) = taken("layers"), taken("map")
    assert {x.dtype for x in jax.tree.leaves((gram, direction))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(gram, other, rtol=0.02, atol=0.01 * np.abs(other).max())
    for path, leaf in direction.items():
        np.testing.assert_allclose(leaf, expected[path], atol=0.02 * np.abs(expected[path]).max())

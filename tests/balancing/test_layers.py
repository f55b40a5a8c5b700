"""Which dense layers are factored; that their Gramian and directions are right is in test_engine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import partition
from mtl_jax.balancing import layers


class Net(nn.Module):
    """Layers that are called once and twice, one inside a rematerialised call, and a kernel that is read elsewhere."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(40, name="once")(x))
        twice, tied = nn.Dense(40, name="twice"), nn.Dense(40, name="tied")
        x = tied(twice(jnp.tanh(twice(x))))
        x = nn.remat(nn.Dense)(40, name="remat")(x)
        return x @ tied.variables["params"]["kernel"].T


@pytest.mark.parametrize("rows, expected", [(12, {"once/kernel"}), (60, set())])
def test_what_is_factored(rows, expected):
    """A kernel with one use, and only where the layer is wider than its rows."""
    x = jnp.ones((rows, 30))
    variables = jax.jit(Net().init)(jax.random.key(0), x)
    kernels = {p: w for p, w in partition.flatten(variables["params"]).items() if w.ndim == 2}
    assert len(kernels) == 4

    def run(kernels):
        return Net().apply({"params": partition.unflatten(kernels, variables["params"])}, x)

    assert set(layers.find(run, kernels, num_tasks=8)) == expected


def test_one_task_is_not_factored():
    output = jax.ShapeDtypeStruct((8, 64), np.float32)
    assert layers.pays(layers.Watched(output, 64), 4)
    assert not layers.pays(layers.Watched(output, 64), 1)

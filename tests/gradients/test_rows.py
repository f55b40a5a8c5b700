"""Rows taken apart where they belong to the losses: heads that join rows, and what is known of programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.gradients import rows
from mtl_jax.gradients.engine import linearize
from mtl_jax.model import spread
from tests import tiny

SIZE = 4
KERNEL = jnp.ones((3, 3))
BY_ROW = {
    "dense": lambda x: jnp.tanh(x @ KERNEL + 1).mean(-1),
    "dense from the left": lambda x: (KERNEL @ x.T).T,
    "normalised per row": lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True),
    "compiled": jax.jit(lambda x: jax.nn.gelu(x) + jax.nn.relu(x)),
    "per row attention": lambda x: jax.nn.softmax(jnp.einsum("bi,bj->bij", x, x)) @ x[:, :, None],
    "convolved": lambda x: jax.lax.conv(x[:, None], jnp.ones((2, 1, 2)), (1,), "SAME").reshape(len(x), -1),
    "constant": lambda x: jnp.arange(SIZE) * 1.0,
    "vmapped": jax.vmap(lambda row: jnp.concatenate([row, jnp.cumsum(row)])),
}
JOINED = {
    "batch mean": lambda x: x - x.mean(0),
    "attention over rows": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "ranks": lambda x: jnp.sort(x, 0),
    "turned round": lambda x: x[::-1],
    "running sum": lambda x: jnp.cumsum(x, 0),
    "transposed": lambda x: (x @ x.T).T,
    "kernel over rows": lambda x: jnp.ones((SIZE, SIZE)) @ x,
    "one row for all": lambda x: jnp.broadcast_to(x[:1], x.shape),
    "shifted": lambda x: jnp.roll(x, 1, 0),
    "branch": lambda x: jax.lax.cond(x.sum() > 0, lambda: x, lambda: -x),
    "flattened": lambda x: x.reshape(-1, SIZE).T,
    "turned axes": lambda x: jnp.ones((SIZE, 3)) @ x.T,
}


@pytest.mark.parametrize("name", BY_ROW)
def test_rows_by_themselves(name):
    assert rows.meet(BY_ROW[name], jnp.ones((SIZE, 3)), SIZE) is None


@pytest.mark.parametrize("name", JOINED)
def test_rows_that_meet(name):
    """Each is checked by hand too: some row of the output moves with another row of the argument."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(SIZE, 3)), jnp.float32)
    assert rows.meet(JOINED[name], x, SIZE) in (rows.MIXED, rows.UNKNOWN)
    if name != "branch":
        jacobian = np.asarray(jax.jacrev(lambda x: JOINED[name](x).reshape(SIZE, -1))(x))
        assert any(np.abs(jacobian[i, :, j]).max() > 0 for i in range(SIZE) for j in range(SIZE) if i != j)


@pytest.mark.parametrize(
    "sharing, norm, joins",
    [
        ("hard(shared_stages=1)", "batch", ("map", "vmap")),
        ("hard", "batch", ()),
        ("cascade(order=('a', 'b'), shared_stages=1)", "batch", ("map", "vmap", "columns")),
    ],
)
def test_rows_of_losses_through_batch_statistics(sharing, norm, joins):
    """Examples and halves against jacrev of the rows' losses, in float64, where a task's own stages normalise.

    `joins`: the modes that pull rows from the outputs for it; where heads share features, "columns" always does.
    """
    size, draw = 4, np.random.default_rng(0)
    tasks = [mtl.Task("a", "regression"), mtl.Task("b", "regression")]
    with jax.enable_x64(True):
        batch = tiny.double(Batch(
            draw.normal(size=(size, 5)), {t.name: draw.normal(size=size) for t in tasks},
            {t.name: np.ones(size, bool) for t in tasks},
        ))  # fmt: skip
        model = mtl.sharing.build(sharing, mtl.encoders.mlp(features=(5, 4), norm=norm), tasks)
        variables = tiny.double(model.init(jax.random.key(0), batch))
        weights = jnp.asarray(draw.normal(size=(2, size)))

        @jax.jit
        def run(variables):
            def losses(params):
                moved = {**variables, "params": params}
                features, _, _ = model.encode(moved, batch, train=True)
                outputs, _ = model.decode(moved, spread(model, features), train=True)
                return jnp.stack([(outputs[t.name] - batch.targets[t.name]) ** 2 for t in tasks])

            jacobian = partition.flatten(jax.jacrev(losses)(variables["params"]))
            found = {}
            for mode in ("map", "vmap", "columns"):
                line = linearize(model, variables, batch, mode=mode)
                found[mode] = line.gramian(examples=True), line.cross()[0], line.weighted(weights)
                assert any("rows may meet" in note for note in line.notes) == (mode in joins)
            return jacobian, found

        jacobian, found = run(variables)
        shared = {p: np.asarray(j) for p, j in jacobian.items() if partition.owner(p) == "shared"}
        flat = np.concatenate([j.reshape(2, size, -1) for j in shared.values()], -1)
        half = np.arange(size) % 2
        cross = flat[:, half == 0].mean(1) @ flat[:, half == 1].mean(1).T
        objectives = flat.reshape(2 * size, -1)
        for gram, crossed, weighted in found.values():
            np.testing.assert_allclose(gram, objectives @ objectives.T, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(crossed, cross, rtol=1e-9, atol=1e-10)
            tiny.assert_close(
                weighted, {p: np.tensordot(weights, j, 2) / size for p, j in shared.items()}, rtol=1e-9, atol=1e-10
            )


def test_a_loss_that_joins_rows_has_no_rows():
    def centred(outputs, targets):
        error = outputs - targets
        return (error - error.mean()) ** 2

    task = mtl.Task("a", "regression", loss=centred)
    batch = Batch(jnp.ones((4, 5)), {"a": jnp.arange(4.0)}, {"a": jnp.ones(4, bool)})
    model = tiny.model([task])
    variables = model.init(jax.random.key(0), batch)
    line = linearize(model, variables, batch)
    for ask in (line.cross, line.examples):
        with pytest.raises(ValueError, match="loss of task 'a' joins rows of the batch.*use objectives='tasks'"):
            ask()

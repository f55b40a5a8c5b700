"""Experts: auxiliary losses reach the gates, several layers keep the invariant, gates refuse what they cannot read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition, sharing
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.reference import reference_jacobian
from tests import tiny
from tests.sharing.test_architectures import TWO, drawn, quick


def test_auxiliary_losses_reach_gates_and_the_engine_takes_each_tasks_own_inputs():
    """Three experts are no power of 2, so both losses of DSelect-k act; in float64 against reverse mode."""
    data = tiny.per_task_data()
    model = tiny.model(
        data.tasks, "dselect_k(experts=3, entropy=0.5, unreached=0.25)", "mlp(features=(4,), norm='batch')"
    )
    with jax.enable_x64(True):
        batch = tiny.double(tiny.batch(8, data))
        variables = tiny.double(drawn(model, batch))

        @quick
        def both(variables):
            def added(params):
                _, _, aux = model.encode({**variables, "params": params}, batch, train=True)
                return sum(aux["losses"].values()), aux["losses"]

            line = linearize(model, variables, batch)
            losses, expected = reference_jacobian(model, variables, batch)
            gradient, added = jax.grad(added, has_aux=True)(variables["params"])
            return (line.jacobian(), line.own(), line.extra()), (expected, gradient, added)

        (jacobian, own, extra), (expected, gradient, added) = both(variables)
        kinds = ("selector_entropy", "selector_reach")
        assert set(added) == {f"{kind}/{t}" for kind in kinds for t in ("a", "b")}
        close = {"rtol": 1e-9, "atol": 1e-12}
        tiny.assert_close(extra, partition.flatten(gradient), **close)
        for path, rows in expected.items():
            if partition.owner(path) == "shared":
                np.testing.assert_allclose(jacobian[path], rows, err_msg=path, **close)
            else:
                index = "ab".index(partition.owner(path))
                np.testing.assert_allclose(own[path], rows[index], err_msg=path, **close)
                assert not np.asarray(rows[1 - index]).any()
            if "/gate/codes" in path:
                assert np.abs(extra[path]).max() > 0


def test_what_all_tasks_reach_in_several_layers_is_shared():
    """PLE of three layers: experts of the first two and gates of the first are reached through the shared gates."""
    model = tiny.model(TWO, "ple(layers=3, experts=1)", "mlp(features=(4, 3, 3), activation='tanh')")
    batch = tiny.batch(8)
    variables = drawn(model, batch)
    _, rows = quick(lambda v: reference_jacobian(model, v, batch))(variables)
    reached = {p: [bool(np.abs(r).max() > 0) for r in jacobian] for p, jacobian in rows.items()}
    for path, tasks in reached.items():
        owner = partition.owner(path)
        assert tasks == ([True, True] if owner == "shared" else [owner == t.name for t in TWO]), path
    paths = {p.split("/stage_")[0] for p in rows}
    assert {"shared/layer_1/experts_of", "tasks/color/layer_2/experts"} <= paths
    assert any(p.startswith("shared/layer_0/gates/own/") for p in rows)
    assert any(p.startswith("tasks/color/layer_1/gate/") for p in rows)


def test_gates_that_cannot_read():
    tokens = mtl.Batch({"tokens": jnp.ones((2, 4), jnp.int32)}, {}, {})

    class Embed(mtl.encoders.mlp().stages[0].__class__):
        def __call__(self, x, *, train):
            return jax.nn.one_hot(x["tokens"].sum(1), 3)

    encoder = mtl.encoders.Encoder((Embed(3, None),))
    for text in ("mmoe", "cgc", "dselect_k"):
        with pytest.raises(ValueError, match=f"{text}: gate='input' reads numbers.* integers; use gate='features'"):
            jax.eval_shape(sharing.build(text, encoder, TWO).init, jax.random.key(0), tokens)
        jax.eval_shape(sharing.build(f"{text}(gate='features')", encoder, TWO).init, jax.random.key(0), tokens)

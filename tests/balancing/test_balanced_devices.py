"""Eight devices compute what one does: under jit over a mesh, `shard_map` and `pmap`, row by row averaged globally."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import mtl_jax as mtl
from mtl_jax import balancing, parallel
from tests import tiny
from tests.balancing import own

ROWS, SHARED = 32, "trunk/.*"
HEADS = {"features": own.features, "heads": own.HEADS}
CASES = {
    "upgrad": ("upgrad", {"losses": own.named}, {}),
    "famo": ("famo", {"losses": own.named}, {}),
    "graddrop": ("graddrop", {"losses": own.named}, {}),
    "auto_lambda": ("auto_lambda", {"losses": own.named}, {}),
    "samo": ("samo('upgrad')", {"losses": own.named}, {}),
    "functions": ("mgda", {"losses": own.EACH}, {}),
    "heads": ("upgrad", HEADS, {}),
    "features": ("upgrad", HEADS, {"level": "features"}),
    "a direction at the features": ("trimmed_mean", HEADS, {"level": "features"}),
    "columns": ("upgrad", HEADS, {"engine": "columns"}),
    "columns of one function": ("cagrad", {"losses": own.named}, {"engine": "columns"}),
    "left out": ("mgda", {"losses": own.named}, {"nonfinite": "skip_task"}),
}  # fmt: skip


def two_steps(balanced, params, batches, key, validation=None):
    """(parameters, losses) after two steps and a look at each."""
    state, losses = balanced.init(params), []
    for batch in batches:
        more = {} if validation is None else {"validation": validation}
        grads, state, info = balanced(params, state, batch, key, **more)
        new = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        state, params = balanced.after(new, state, batch), new
        losses.append(jnp.stack([info.losses[t] for t in own.TASKS]))
    return params, jnp.stack(losses)


def problem(case):
    """(method, form of losses, options, parameters, two batches, validation batch or None)."""
    name, form, options = CASES[case]
    batches = [own.batch(i, ROWS) for i in range(2)]
    validation = own.batch(9, ROWS) if balancing.build(name).needs is balancing.Needs.ORACLE else None
    if isinstance(form.get("losses"), dict):
        batches = [dict.fromkeys(own.TASKS, b) for b in batches]
    return name, form, options, own.params(), batches, validation


# Of other methods and forms by the ways of those that stay.
LATER = ("graddrop", "samo", "heads", "columns of one function")


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in LATER else c for c in CASES])
def test_shard_map_and_pmap_compute_what_one_device_does(case):
    name, form, options, params, batches, validation = problem(case)
    key = jax.random.key(5)
    how = {"balancer": name, "shared": SHARED, "tasks": own.TASKS, **form, **options}
    alone = mtl.balanced(**how)
    expected = jax.jit(lambda *args: two_steps(alone, *args))(params, batches, key, validation)
    mesh = parallel.make_mesh(8)
    together = mtl.balanced(axis_name="data", **how)
    sharded = jax.shard_map(
        lambda *args: two_steps(together, *args), mesh=mesh, in_specs=(P(), P("data"), P(), P("data")), out_specs=P()
    )
    found = jax.jit(sharded)(params, batches, key, validation)
    tiny.assert_close(found, expected, rtol=2e-4, atol=2e-5)
    by_device = jax.tree.map(lambda x: x.reshape(8, ROWS // 8, *x.shape[1:]), (batches, validation))
    mapped = jax.pmap(lambda b, v: two_steps(together, params, b, key, v), "data")(*by_device)
    tiny.assert_close(jax.tree.map(lambda x: x[3], mapped), expected, rtol=2e-4, atol=2e-5)
    assert np.abs(expected[0]["trunk"]["w"] - params["trunk"]["w"]).max() > 1e-3


def test_arrays_over_a_mesh_need_no_name():
    """Under jit arrays are global, and XLA divides the work."""
    name, form, options, params, batches, _ = problem("upgrad")
    balanced = mtl.balanced(balancer=name, shared=SHARED, **form)
    mesh = parallel.make_mesh(8)
    step = jax.jit(lambda b: two_steps(balanced, params, b, None))
    divided = jax.device_put(batches, parallel.split_rows(mesh))
    assert len(divided[0][0].sharding.device_set) == 8
    tiny.assert_close(step(divided), step(batches), rtol=2e-4, atol=2e-5)


def test_an_axis_in_scope_has_to_be_named():
    balanced = mtl.balanced(own.named, "upgrad", shared=SHARED)
    batch = jax.tree.map(lambda x: x.reshape(8, 4, -1), own.batch(0, ROWS))
    with pytest.raises(ValueError, match="axis 'data' is in scope and axis_name is None; give axis_name='data'"):
        jax.pmap(lambda b: two_steps(balanced, own.params(), [b], None), "data")(batch)
    heads = mtl.balanced(balancer="upgrad", axis_name="rows", level="features", **HEADS)
    with pytest.raises(ValueError, match="level='features' over devices needs axis_name='data'"):
        jax.pmap(lambda b: two_steps(heads, own.params(), [b], None), "rows")(batch)


def test_any_other_name_of_the_axis():
    """Of the losses' and gradients' mean; what a device of another axis holds is its own."""
    params, batches = own.params(), [own.batch(i, ROWS) for i in range(2)]
    alone = mtl.balanced(own.named, "upgrad", shared=SHARED)
    expected = jax.jit(lambda b: two_steps(alone, params, b, None))(batches)
    balanced = mtl.balanced(own.named, "upgrad", shared=SHARED, axis_name="rows")
    by_device = jax.tree.map(lambda x: x.reshape(8, ROWS // 8, *x.shape[1:]), batches)
    found = jax.jit(jax.vmap(lambda b: two_steps(balanced, params, b, None), axis_name="rows"))(by_device)
    tiny.assert_close(jax.tree.map(lambda x: x[0], found), expected, rtol=2e-4, atol=2e-5)

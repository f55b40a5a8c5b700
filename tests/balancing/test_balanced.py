"""Balancing alone: every method against its definition on `jax.jacrev`, in all forms of losses and under transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.balancing import Needs, Signal
from mtl_jax.balancing.balance import task_ids
from mtl_jax.gradients.oracle import Losses, Oracle
from tests import tiny
from tests.balancing import own

SHARED = "trunk/.*"
CLOSE = {"rtol": 1e-8, "atol": 1e-10}
SINGLE = {"rtol": 1e-5, "atol": 1e-6}  # what a method keeps is float32


def rows_of(params, batch):
    """{path: [4, ...]} over all leaves, by `jax.jacrev`."""
    return partition.flatten(jax.jacrev(own.losses)(params, batch))


def is_shared(path):
    return path.startswith("trunk")


def matrix(rows):
    return np.concatenate([np.reshape(x, (4, -1)) for p, x in rows.items() if is_shared(p)], 1)


def oracle_of(params, batch, mask, validation=None):
    """The losses as functions of all leaves, the plainest way."""

    def side(batch, mask):
        def value(leaves):
            return jnp.where(mask, own.losses(partition.unflatten(leaves, params), batch), 0)

        def slope(leaves, direction):
            rows = jax.jacrev(value)(leaves)
            return sum(jnp.tensordot(rows[p], d, d.ndim) for p, d in direction.items())

        return Losses(value, lambda x, w: jax.grad(lambda y: w @ value(y))(x), slope, mask)

    leaves = partition.flatten(params)
    other = None if validation is None else side(validation, jnp.ones(4, bool))
    return Oracle(leaves, side(batch, mask), other, frozenset(filter(is_shared, leaves)))


def definition(balancer, params, batch, state, mask, key):
    """({path: gradient}, state): the method on the gradients of `jax.jacrev`, and heads by their own losses."""
    rows = {p: jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, 0) for p, x in rows_of(params, batch).items()}
    shared = {p: x for p, x in rows.items() if is_shared(p)}
    first, second = (matrix(rows_of(params, jax.tree.map(lambda x, i=i: x[i::2], batch))) for i in (0, 1))
    flat, more = matrix(rows), own.more(balancer)
    signal = Signal(
        jnp.where(mask, own.losses(params, batch), 0),
        gramian=jnp.asarray(flat @ flat.T) if balancer.needs is Needs.GRAMIAN else None,
        jacobian=shared if balancer.needs is Needs.JACOBIAN else None,
        cross=jnp.asarray(first @ second.T) if balancer.needs is Needs.CROSS else None,
        oracle=oracle_of(params, batch, mask, more.get("validation")) if balancer.needs.functions else None,
        ids=task_ids(own.TASKS),
    )
    result, state = balancer.update(signal, state, mask=mask, key=key)
    heads = jnp.ones(4) if result.head_weights is None else result.head_weights
    gradient = {p: jnp.tensordot(heads, x, 1) for p, x in rows.items() if not is_shared(p)}
    if result.direction is None:
        return gradient | {p: jnp.tensordot(result.weights, x, 1) for p, x in shared.items()}, state
    return gradient | result.direction, state


# Of each thing that a method may read: without a state, with one, with draws, with a look at the losses afterwards.
NOW = ("fixed", "uncertainty", "dwa", "random_loss", "famo", "upgrad", "pcgrad", "gradnorm", "cr_mogm", "graddrop",
       "moco", "grouped", "modo", "auto_lambda", "forum", "samo")  # fmt: skip


@pytest.mark.parametrize("name", [n if n in NOW else pytest.param(n, marks=pytest.mark.slow) for n in balancing.NAMES])
def test_every_method_follows_its_definition(name):
    """Three steps in float64, at the second of which a task is absent: gradients of all leaves, and the state."""
    with jax.enable_x64(True):
        balancer, params = own.build(name), own.params()
        balanced = mtl.balanced(own.losses, balancer, shared=SHARED, tasks=own.TASKS)
        state, inner = balanced.init(params), balancer.init(4, partition.flatten({"trunk": params["trunk"]}))
        call = jax.jit(lambda p, s, b, mask, key, more: balanced(p, s, b, key, mask=mask, **more))
        for i in range(3):
            mask, key, batch = jnp.arange(4) != (1 if i == 1 else 9), jax.random.key(i), own.batch(i)
            more = {k: v for k, v in own.more(balancer).items() if k != "key"}
            gradients, state, info = call(params, state, batch, mask, key, more)
            expected, inner = definition(balancer, params, batch, inner, mask, key)
            close = SINGLE if jax.tree.leaves(inner) else CLOSE
            tiny.assert_close(gradients, partition.unflatten(expected, params), **close)
            assert max(np.abs(g).max() for g in jax.tree.leaves(gradients)) > 1e-3
            assert info.applied and state.step == i + 1
            np.testing.assert_array_equal(info.present, mask)
            np.testing.assert_allclose(info.losses, own.losses(params, batch), **CLOSE)
            new = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradients)
            state = balanced.after(new, state, batch)
            if balancer.after is not None:
                both = [jnp.where(mask, own.losses(p, batch), 0) for p in (params, new)]
                inner = balancer.after(*both, inner, mask)
            tiny.assert_close(state.inner, inner, **SINGLE)
            params = new


FORMS = {
    "array": lambda **how: mtl.balanced(own.losses, tasks=own.TASKS, **how),
    "named": lambda **how: mtl.balanced(own.named, **how),
    "functions": lambda **how: mtl.balanced(own.EACH, **how),
    "heads": lambda **how: mtl.balanced(features=own.features, heads=own.HEADS, **how),
    "one head": lambda **how: mtl.balanced(
        features=own.features,
        heads=lambda p, f, b: jnp.stack([h(p, f, b) for h in own.HEADS.values()]),
        tasks=own.TASKS,
        **how,
    ),
}


@functools.cache
def by_definition(name):
    """({path: gradient}, weights' state) of one step on all tasks."""
    with jax.enable_x64(True):
        balancer, params = own.build(name), own.params()
        state = balancer.init(4, partition.flatten({"trunk": params["trunk"]}))
        return definition(balancer, params, own.batch(), state, jnp.ones(4, bool), jax.random.key(7))[0]


def forms_and_engines():
    """Every form by one engine; every engine, and a task that is not finite, with two of the forms; others are slow."""
    twice = {("array", 2), ("array", "columns"), ("functions", "vmap"), ("heads", "vmap"), ("heads", "columns")}
    for form in FORMS:
        yield form, "map", "stop"
        marks = () if form in ("functions", "heads") else pytest.mark.slow
        yield pytest.param(form, "map", "skip_task", marks=marks)
    for form in ("array", "functions", "heads"):
        for engine in ("vmap", 2, "columns"):
            yield pytest.param(form, engine, "stop", marks=() if (form, engine) in twice else pytest.mark.slow)
    yield pytest.param("one head", "columns", "stop", marks=pytest.mark.slow)
    yield "named", "auto", "stop"


@pytest.mark.parametrize("form, engine, nonfinite", list(forms_and_engines()))
def test_forms_and_engines_agree(form, engine, nonfinite):
    """One function, functions with batches of their own and heads after features give the same gradients."""
    names = ["uncertainty", "upgrad", "modo"] + (["graddrop"] if engine != "columns" else [])
    how = {"shared": SHARED, "engine": engine, "nonfinite": nonfinite}
    with jax.enable_x64(True):
        batch = dict.fromkeys(own.TASKS, own.batch()) if form == "functions" else own.batch()

        @jax.jit
        def found(params):
            each = {name: FORMS[form](balancer=own.build(name), **how) for name in names}
            return {n: b(params, b.init(params), batch, jax.random.key(7))[0] for n, b in each.items()}

        for name, gradients in found(own.params()).items():
            tiny.assert_close(gradients, partition.unflatten(by_definition(name), own.params()), **CLOSE)


def test_norms_cosines_and_conflicts():
    """Against the Gramian of `jax.jacrev`, by name where losses are named."""
    with jax.enable_x64(True):
        params = own.params()
        balanced = mtl.balanced(own.named, mtl.balancing.upgrad(), shared=SHARED)
        _, _, info = balanced(params, balanced.init(params), own.batch())
        rows = matrix(rows_of(params, own.batch()))
    lengths = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows.T / lengths / lengths[:, None]
    assert tuple(info.norms) == tuple(info.losses) == tuple(info.weights) == own.TASKS
    np.testing.assert_allclose([info.norms[t] for t in own.TASKS], lengths, rtol=1e-6)
    np.testing.assert_allclose(info.cosines, cosines, rtol=1e-6)
    np.testing.assert_allclose(info.conflict, (cosines[np.triu_indices(4, 1)] < 0).mean())


LIKE_OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in ("upgrad", "moco", "sdmgrad")]


@pytest.mark.parametrize("name", ["famo", "random_gradient", "forum", *LIKE_OTHERS])
def test_scan_vmap_and_a_plain_loop_agree(name):
    """Ten steps of Adam: eagerly one by one, in one `scan`, and of two starts side by side under `vmap`."""
    with jax.enable_x64(True):
        balancer, adam = own.build(name), optax.adam(0.05)
        balanced = mtl.balanced(own.losses, balancer, shared=SHARED, tasks=own.TASKS)

        def step(carry, index):
            params, state, opt = carry
            key = jax.random.fold_in(jax.random.key(3), index)
            grads, state, info = balanced(params, state, own.batch(), **own.more(balancer, key))
            updates, opt = adam.update(grads, opt, params)
            new = optax.apply_updates(params, updates)
            return (new, balanced.after(new, state, own.batch()), opt), info.losses

        def train(params):
            first = (params, balanced.init(params), adam.init(params))
            return jax.lax.scan(step, first, jnp.arange(10))

        carry, losses = jax.jit(train)(own.params())
        one_by_one, jitted = (own.params(), balanced.init(own.params()), adam.init(own.params())), jax.jit(step)
        for i in range(10):
            one_by_one, found = jitted(one_by_one, jnp.asarray(i))
            np.testing.assert_allclose(found, losses[i], rtol=1e-6)
        tiny.assert_close(one_by_one[0], carry[0], rtol=1e-5, atol=1e-7)
        several = jax.tree.map(lambda *x: jnp.stack(x), own.params(0), own.params(1))
        (together, state, _), _ = jax.jit(jax.vmap(train))(several)
        tiny.assert_close(jax.tree.map(lambda x: x[0], together), carry[0], rtol=1e-5, atol=1e-7)
        assert state.step.tolist() == [10, 10]
        assert losses[-1].sum() < losses[0].sum()

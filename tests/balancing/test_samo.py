"""SAMO against the authors' algorithm, written out task by task with `jax.grad`, and where it may not be used."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.balancing.balance import task_ids
from mtl_jax.balancing.given import given_method
from tests import tiny
from tests.balancing import own

RHO, STEP = 0.3, 0.02


def norm(leaves):
    return np.sqrt(sum((np.asarray(x) ** 2).sum() for x in leaves))


def perturbed(params, batch, key, local):
    """{task: gradient of its loss at its own perturbed parameters}, a task at a time."""
    losses = own.named
    mean = jax.grad(lambda p: sum(losses(p, batch).values()) / 4)(params)
    keys = jax.random.fold_in(key, zlib.crc32(b"samo"))
    found = {}
    for i, task in enumerate(own.TASKS):
        drawn, of_task = {}, jax.random.fold_in(keys, task_ids(own.TASKS)[i])
        for name in params["trunk"]:
            of_leaf = jax.random.fold_in(of_task, zlib.crc32(f"trunk/{name}".encode()))
            drawn[name] = jax.random.normal(of_leaf, params["trunk"][name].shape, jnp.float64)
        ends = []
        for sign in (1, -1):
            trunk = {n: x + sign * STEP * drawn[n] for n, x in params["trunk"].items()}
            ends.append(losses({**params, "trunk": trunk}, batch)[task])
        estimate = {n: z * (ends[0] - ends[1]) / (2 * STEP) for n, z in drawn.items()}
        push = {
            n: (1 - local) * g + local * norm([g]) * estimate[n] / norm([estimate[n]]) for n, g in mean["trunk"].items()
        }
        size = norm(push.values())
        head = mean["heads"][task]["w"]
        moved = {
            "trunk": {n: x + RHO * push[n] / size for n, x in params["trunk"].items()},
            "heads": {**params["heads"], task: {"w": params["heads"][task]["w"] + RHO * head / norm([head])}},
        }
        found[task] = jax.grad(lambda p, t=task: losses(p, batch)[t])(moved)
    return found


@pytest.mark.parametrize("method, local", [("equal", 0.0), ("upgrad", 0.4)])
def test_gradients_are_those_of_the_authors_algorithm(method, local):
    with jax.enable_x64(True):
        params, batch, key = own.params(), own.batch(), jax.random.key(4)
        balanced = mtl.balanced(own.named, balancing.samo(method, RHO, local, STEP), shared=own.SHARED, engine="map")
        found, _, info = jax.jit(balanced)(params, balanced.init(params), batch, key)
        each = perturbed(params, batch, key, local)
        rows = {p: jnp.stack([partition.flatten(each[t]["trunk"])[p] for t in own.TASKS]) for p in ("w", "b")}
        flat = np.concatenate([np.reshape(x, (4, -1)) for x in rows.values()], 1)
        weights = balancing.aggregate(balancing.build(method), flat, own.losses(params, batch))[1]
        expected = {
            "trunk": {p: jnp.tensordot(weights, x, 1) for p, x in rows.items()},
            "heads": {t: each[t]["heads"][t] for t in own.TASKS},
        }
        tiny.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        plain, _, _ = own.call(own.named, method)
        assert np.abs(found["trunk"]["w"] - plain["trunk"]["w"]).max() > 1e-2 and info.applied


def test_without_a_step_it_is_the_method():
    with jax.enable_x64(True):
        more = {"shared": own.SHARED}
        for method in (balancing.upgrad(), "uncertainty"):
            balanced = mtl.balanced(own.named, balancing.samo(method, rho=0.0), **more)
            params = own.params()
            found, _, _ = balanced(params, balanced.init(params), own.batch(), jax.random.key(0))
            expected, _, _ = own.call(own.named, method)
            tiny.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_where_it_may_not_be_used():
    with pytest.raises(ValueError, match="samo: modo.* reads two samples, and gradients at perturbed parameters"):
        balancing.samo("modo")
    with pytest.raises(ValueError, match="samo.* reads losses at other parameters"):
        balancing.samo(balancing.samo())
    with pytest.raises(ValueError, match="samo: method is upgrad itself, which was not called"):
        given_method("samo: method", balancing.upgrad)
    with pytest.raises(ValueError, match="samo reads losses at other parameters, which a Jacobian does not have"):
        balancing.aggregator(balancing.samo())
    with pytest.raises(ValueError, match="grouped: samo.* cannot be the method of one group"):
        balancing.grouped(((".*", balancing.samo()),))
    with pytest.raises(ValueError, match="samo.* reads losses at other parameters, by the parameters only"):
        tiny.fit(tiny.model(tiny.data().tasks), balancer="samo", level="features")
    with pytest.raises(ValueError, match="update_every=2 needs weights to use again; samo.* returns a direction"):
        tiny.fit(tiny.model(tiny.data().tasks), balancer="samo", update_every=2)
    with pytest.raises(ValueError, match="samo draws at random and no key was given"):
        own.call(balancer="samo")

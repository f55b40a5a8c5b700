"""Optimizers by name, one state per owner, and decay, factors and clipping by path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.training.optimizers import OPTIMIZERS, build_optimizer, build_schedule, per_owner

LEAVES = {"shared/w": jnp.ones((2, 2)), "tasks/a/w": jnp.ones(3), "tasks/a/b": jnp.ones(1)}
GRADIENTS = {p: 0.5 * v for p, v in LEAVES.items()}
HERE = {"shared": jnp.array(True), "a": jnp.array(True)}


def updated(optimizer, **options):
    owners = per_owner(optimizer, **options)
    return owners.update(GRADIENTS, owners.init(LEAVES), LEAVES, HERE)[0]


def test_every_named_optimizer_is_one_of_optax():
    assert {"adam", "adamw", "sgd", "lion", "muon", "lamb"} <= set(OPTIMIZERS)
    assert all(f.__module__.startswith("optax") for f in OPTIMIZERS.values())


def test_clipping_is_by_the_norm_of_all_leaves_together():
    """As optax.clip_by_global_norm on the whole tree."""
    clipped, _ = optax.clip_by_global_norm(0.3).update(GRADIENTS, optax.EmptyState())
    expected = {p: LEAVES[p] - clipped[p] for p in LEAVES}
    found = updated(optax.sgd(1.0), clip_norm=0.3)
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-6)


def test_a_trunk_with_a_state_for_each_task():
    """Turns of two tasks against two Adams of optax, each fed with its own task's gradients; heads are as ever."""
    owners, adam = per_owner(optax.adam(0.1), trunk_states=2), optax.adam(0.1)
    params, state = LEAVES, owners.init(LEAVES)
    expected, moments = LEAVES["shared/w"], [adam.init(LEAVES["shared/w"])] * 2
    for turn, scale in ((0, 1.0), (1, -3.0), (0, 2.0), (0, -1.0), (1, 1.0)):
        gradients = {p: scale * v for p, v in LEAVES.items()}
        params, state = owners.update(gradients, state, params, HERE, jnp.asarray(turn))
        step, moments[turn] = adam.update(gradients["shared/w"], moments[turn])
        expected = optax.apply_updates(expected, step)
        np.testing.assert_allclose(params["shared/w"], expected, rtol=1e-6)
    assert int(state["a"][0].count) == 5
    np.testing.assert_array_equal(state["shared"][0].count, [3, 2])


def test_learning_rate_factors():
    found = updated(optax.sgd(1.0), factors=[("shared/.*", 0.1), (".*/b", 0.0)])
    np.testing.assert_allclose(found["shared/w"], 0.95)
    np.testing.assert_allclose(found["tasks/a/w"], 0.5)
    np.testing.assert_allclose(found["tasks/a/b"], 1.0)
    with pytest.raises(ValueError, match="rule 'share/.*' matches no parameter"):
        updated(optax.sgd(1.0), factors=[("share/.*", 0.1)])


def test_weight_decay_by_path():
    decayed = build_optimizer("adamw(weight_decay=0.5)", 0.1, decay=[(".*/b", False)])
    plain = build_optimizer("adam", 0.1)
    found, without = updated(decayed), updated(plain)
    np.testing.assert_allclose(found["tasks/a/b"], without["tasks/a/b"])
    np.testing.assert_allclose(without["shared/w"] - found["shared/w"], 0.1 * 0.5, rtol=1e-4)
    with pytest.raises(ValueError, match="optimizer 'sgd' has no weight-decay mask"):
        build_optimizer("sgd", 0.1, decay=[(".*/b", False)])


def test_an_absent_owner_keeps_leaves_and_state():
    owners = per_owner(optax.adam(0.1))
    first = owners.init(LEAVES)
    leaves, state = owners.update(GRADIENTS, first, LEAVES, {**HERE, "a": jnp.array(False)})
    np.testing.assert_array_equal(leaves["tasks/a/w"], LEAVES["tasks/a/w"])
    for new, old in zip(jax.tree.leaves(state["a"]), jax.tree.leaves(first["a"]), strict=True):
        np.testing.assert_array_equal(new, old)
    assert (leaves["shared/w"] != LEAVES["shared/w"]).all()


def test_schedules_fill_in_what_the_run_knows():
    assert build_schedule("constant", 0.1, 100) == 0.1
    cosine = build_schedule("cosine_decay", 0.1, 100)
    assert float(cosine(0)) == pytest.approx(0.1) and float(cosine(100)) == pytest.approx(0)
    warm = build_schedule("warmup_cosine_decay(warmup_steps=20)", 0.1, 100)
    assert float(warm(0)) == 0 and float(warm(20)) == pytest.approx(0.1) and float(warm(100)) == pytest.approx(0)


def test_errors():
    with pytest.raises(ValueError, match="unknown optimizer 'adma'; did you mean 'ada"):
        build_optimizer("adma")
    with pytest.raises(ValueError, match="unknown argument of optimizer 'adam' 'beta1'"):
        build_optimizer("adam(beta1=0.9)")
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        build_schedule("cosin", 0.1, 10)

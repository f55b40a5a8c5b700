"""Optimizers by name, one state per owner, and decay, factors and clipping by path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import partition
from mtl_jax.training.optimizers import OPTIMIZERS, build_optimizer, build_schedule, per_owner, suited
from tests import tiny

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


@pytest.mark.parametrize("given, name", [
    ("lbfgs", "lbfgs"), ("momo", "momo"), ("sophia", "sophia"), (optax.polyak_sgd(), "scale_by_polyak"),
    (optax.chain(optax.adam(1e-3), optax.contrib.reduce_on_plateau()), "reduce_on_plateau"),
    (optax.lookahead(optax.sgd(0.1), 5, 0.5), "the given one"),
], ids=["lbfgs", "momo", "sophia", "polyak_sgd", "reduce_on_plateau", "lookahead"])  # fmt: skip
def test_what_gradients_do_not_suffice_for_is_refused(given, name):
    """By name and in a chain, before anything is compiled."""
    with pytest.raises(ValueError, match=f"optimizer {name}: it asks for more than gradients"):
        tiny.fit(tiny.model(tiny.data().tasks), optimizer=given)


def test_only_what_gradients_suffice_for_is_offered():
    assert {"adam", "adamw", "sgd", "muon", "schedule_free_adamw"} <= set(suited()) < set(OPTIMIZERS)
    assert not {"lbfgs", "momo", "momo_adam", "sophia"} & set(suited())
    with pytest.raises(ValueError, match=r"unknown optimizer 'admw'; did you mean 'adamw'\? \((?!.*(momo|lbfgs))"):
        build_optimizer("admw")


def test_schedule_free_is_kept_and_validated_at_its_average(tmp_path):
    """x = (y - (1 - b1) z) / b1 by hand, in a chain, for two members; what validation measured is x, too."""
    optimizer = optax.chain(optax.clip(1.0), optax.contrib.schedule_free_sgd(0.1, b1=0.8))
    data = tiny.data()
    run = tiny.fit(tiny.model(data.tasks), optimizer=optimizer, seed=(0, 1), num_steps=10)
    own = partition.flatten(run.state.params)
    z = {p: x for owned in run.state.opt_state.values() for p, x in owned[1].z.items()}
    for path, kept in partition.flatten(run.params).items():
        np.testing.assert_allclose(kept, (own[path] - 0.2 * z[path]) / 0.8, rtol=1e-5, atol=1e-6, err_msg=path)
        assert np.abs(kept - own[path]).max() > 1e-5
    measured = [r for r in run.history if r["split"] == "val"][-1]["losses"]["price"]
    assert run.evaluate(data.val)["price"]["loss"] == pytest.approx(measured, rel=1e-5)
    without = type(data)(data.name, data.tasks, data.train)
    with pytest.raises(ValueError, match="give a validation split, or no workdir"):
        tiny.fit(tiny.model(data.tasks), without, optimizer="schedule_free_sgd", workdir=tmp_path)

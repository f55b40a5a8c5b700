"""What is not finite is not applied, is named, and is in no checkpoint; squares do not overflow before they must."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, parts
from mtl_jax.balancing.base import Balancer, Needs, Result, Signal
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.finite import all_finite, squared_lengths
from mtl_jax.gradients.gramian import gramian
from mtl_jax.gradients.units import in_range, largest_entries, times
from mtl_jax.training.optimizers import per_owner
from mtl_jax.training.step import AFTERWARDS, PARTS
from tests import tiny


def nan_direction():
    """A method whose direction is nan at step 3, and whose state counts steps."""

    def update(signal, count, *, mask, key):
        weights = jnp.where(count == 3, jnp.nan, 1.0) * mask
        return Result(weights.astype(signal.losses.dtype)), count + 1

    return Balancer(lambda num_tasks, template: jnp.zeros(()), update, Needs.LOSSES, spec="broken()")


def nan_state():
    def update(signal, state, *, mask, key):
        return Result(mask.astype(signal.losses.dtype)), state + jnp.nan

    return Balancer(lambda num_tasks, template: jnp.zeros(()), update, Needs.LOSSES)


def nan_afterwards():
    def update(signal, state, *, mask, key):
        return Result(mask.astype(signal.losses.dtype)), state

    return Balancer(
        lambda num_tasks, template: jnp.zeros(()), update, Needs.LOSSES, lambda before, later, state, mask: state / 0
    )


def overflowing_state():
    """Its update is finite, its state is not."""
    return optax.GradientTransformation(
        lambda p: jax.tree.map(jnp.zeros_like, p),
        lambda u, s, p=None: (u, jax.tree.map(lambda x: (jnp.abs(x) + 1) * 1e30 * 1e30, u)),
    )


def weights_of(size):
    """A method whose direction is of a size."""

    def update(signal, state, *, mask, key):
        return Result(size * mask.astype(signal.losses.dtype)), state

    return Balancer(lambda num_tasks, template: (), update, Needs.LOSSES)


@pytest.mark.parametrize("nonfinite", ["stop", "skip_task"])
@pytest.mark.parametrize(
    "balancer, part", [(nan_state, 5), (lambda: weights_of(jnp.nan), 0), (lambda: weights_of(1e25), 1)]
)
def test_a_part_that_is_not_finite_stops_the_step(balancer, part, nonfinite):
    step, first = tiny.training(balancer(), nonfinite=nonfinite)
    after, record = jax.jit(step)(first, tiny.batch())
    tiny.assert_same(after._replace(step=first.step), first)
    assert np.flatnonzero(~np.asarray(record["sound"])).tolist() == [part]
    assert not record["applied"] and record["finite"].all()


def test_a_state_that_breaks_after_the_step_is_kept():
    step, first = tiny.training(nan_afterwards())
    after, record = jax.jit(step)(first, tiny.batch())
    tiny.assert_same(after.balancer_state, first.balancer_state)
    assert np.flatnonzero(~np.asarray(record["sound"])).tolist() == [AFTERWARDS] and record["applied"]
    assert "after the step" in PARTS[AFTERWARDS]


@pytest.mark.parametrize("size", [1e25, jnp.inf])
def test_clipped_gradients_may_be_long(size):
    """With clip_norm only what is not finite stops a step."""
    step, first = tiny.training(weights_of(size), clip_norm=0.5)
    after, record = jax.jit(step)(first, tiny.batch())
    assert bool(record["applied"]) == bool(jnp.isfinite(size))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.params, after.opt_state)))


@pytest.mark.parametrize("nonfinite", ["stop", "skip_task"])
@pytest.mark.parametrize(
    "optimizer", [pytest.param(overflowing_state, marks=pytest.mark.slow), lambda: optax.sgd(1e38)]
)
def test_what_the_optimizer_breaks_is_in_no_checkpoint(optimizer, nonfinite, tmp_path):
    data = tiny.data()
    with pytest.raises(FloatingPointError, match=r"the optimizer made \S+ not finite.*; there is no checkpoint yet"):
        tiny.fit(tiny.model(data.tasks), data, optimizer=optimizer(), num_steps=4, steps_per_dispatch=1, log_every=2,
                 eval_every=2, nonfinite=nonfinite, workdir=tmp_path / "run")  # fmt: skip
    assert not list((tmp_path / "run").glob("checkpoints/[0-9]*"))


def test_an_optimizer_that_starts_at_infinity():
    """A bound that is still inf is no fault."""
    keeps = optax.GradientTransformation(lambda p: jnp.asarray(jnp.inf), lambda u, s, p=None: (u, s))
    run = tiny.fit(tiny.model(tiny.data().tasks), optimizer=optax.chain(keeps, optax.sgd(0.1)), num_steps=5)
    assert run.steps == 5


def test_a_direction_that_is_not_finite(tmp_path):
    """The fit stops at its step; the checkpoint that is named is finite and is the one before."""
    data = tiny.data()
    arguments = {"balancer": nan_direction(), "num_steps": 10, "steps_per_dispatch": 1, "checkpoint_every": 1,
                 "log_every": 1, "eval_every": 10, "workdir": tmp_path / "run",
                 "config": {"balancer": "broken"}}  # fmt: skip
    said = "step 3: the direction of balancer broken is not finite although all losses are; the step was not applied; "
    with pytest.raises(FloatingPointError, match=f"{said}last good checkpoint is step 3 in "):
        tiny.fit(tiny.model(data.tasks), data, **arguments)
    good = mtl.load_run(tmp_path / "run", model=tiny.model(data.tasks))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(good.variables["params"]))


def test_steps_that_are_not_applied_are_counted_and_said():
    data = tiny.data()
    with pytest.warns(
        UserWarning, match="step 3: the direction of balancer broken.* not applied; so it was in 2 of the last 5 steps"
    ):
        run = tiny.fit(tiny.model(data.tasks), data, balancer=nan_direction(), nonfinite="skip_task", num_steps=5,
                       config={"balancer": "broken"})  # fmt: skip
    assert [r["not_applied"] for r in run.history if r["split"] == "train"] == [2.0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.state.params))


@pytest.mark.parametrize(
    "method", ["upgrad", *(pytest.param(m, marks=pytest.mark.slow) for m in ("mgda", "aligned_mtl"))]
)
@pytest.mark.parametrize("size", [1e-24, 1e22])
def test_gradients_of_any_size_give_a_direction(method, size):
    """Losses times a factor give weights as without it: squares of what is there leave float32's range."""
    draw = np.random.default_rng(0)
    rows = {"a": draw.normal(size=(3, 4, 5)).astype(np.float32), "b": draw.normal(size=(3, 2)).astype(np.float32)}
    balancer = balancing.build(method)

    def weights(rows):
        gram, unit = in_range(gramian(rows), lambda: largest_entries(rows), lambda unit: gramian(times(rows, unit)))
        signal = Signal(jnp.ones(3), gramian=gram, ids=jnp.arange(3, dtype=jnp.uint32))
        state = balancer.init(3, {"a": rows["a"][0]})
        return balancer.update(signal, state, mask=jnp.ones(3, bool), key=jax.random.key(0))[0].weights, unit

    plain, unit = jax.jit(weights)(jax.tree.map(jnp.asarray, rows))
    found, other = jax.jit(weights)(jax.tree.map(lambda x: jnp.asarray(x * np.float32(size)), rows))
    assert unit == 1 and other != 1 and np.log2(float(other)) % 1 == 0
    np.testing.assert_allclose(found, plain, rtol=1e-4)


UNIT_FREE = (
    "upgrad dual_proj mgda cagrad conicgrad pcgrad gradvac imtl_g imtl aligned_mtl conflict_free epo gradnorm krum "
    "sdmgrad cr_mogm log_mgda log_cagrad log_imtl_g".split()
)


def test_which_methods_say_that_they_are_unit_free():
    built = [balancing.build(n) for n in balancing.NAMES if n != "fixed"] + [balancing.fixed((1.0, 2.0))]
    assert sorted(parts.parse(b.spec)[0] for b in built if b.unit_free) == sorted(UNIT_FREE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(UNIT_FREE))
def test_methods_that_are_unit_free(name):
    """The table, by what it claims: the weights for 2^20 J, two steps long, are those for J."""
    draw = np.random.default_rng(0)
    jacobian, balancer = draw.normal(size=(4, 5)), balancing.build(name)
    assert balancer.unit_free and balancer.needs in (Needs.GRAMIAN, Needs.CROSS)
    found = []
    for factor in (1.0, 2.0**20):
        gram = jnp.asarray(factor**2 * jacobian @ jacobian.T, jnp.float32)
        state = balancer.init(4, {"w": jnp.zeros(5)})
        for _ in range(2):
            signal = Signal(jnp.ones(4), gramian=gram, cross=gram, ids=jnp.arange(4, dtype=jnp.uint32))
            result, state = balancer.update(signal, state, mask=jnp.ones(4, bool), key=jax.random.key(0))
        found.append(result.weights)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("mode", [pytest.param("map", marks=pytest.mark.slow), "layers", "columns"])
def test_the_engine_measures_in_any_unit(mode):
    """Gramian, two samples and largest entries in a unit, against those without."""
    model = tiny.model(tiny.data().tasks, encoder="mlp(features=(48, 40))")
    batch = tiny.batch(8)
    variables = tiny.init(model, batch)

    @jax.jit
    def run(variables):
        line, unit = linearize(model, variables, batch, tasks=tiny.data().tasks, mode=mode), jnp.float32(0.25)
        grams = line.gramian(), line.gramian(unit=unit), line.gramian(True), line.gramian(True, unit)
        crosses = line.cross()[0], line.cross(unit)[0]
        return grams, crosses, line.largest(), line.largest(True), line.jacobian()

    (gram, scaled, examples, scaled_examples), (cross, scaled_cross), largest, of_examples, rows = run(variables)
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(scaled, gram / 16, **close)
    np.testing.assert_allclose(scaled_examples, examples / 16, **close)
    np.testing.assert_allclose(scaled_cross, cross / 16, **close)
    if mode == "map":
        np.testing.assert_allclose(largest, np.max([np.abs(x).reshape(3, -1).max(1) for x in rows.values()], 0))
    assert (largest**2 * 10**4 > np.diagonal(gram)).all() and of_examples.shape == (24,)


def test_a_task_whose_gradient_overflows_is_left_out():
    """Under "skip_task" its step is that of a batch in which the task has no labels; under "stop" the task is named."""
    data = tiny.data()

    def steep(outputs, targets):  # finite, with a slope that is not
        return jnp.sqrt(jnp.abs(outputs - jax.lax.stop_gradient(outputs))) + 1.0

    tasks = [
        t if t.name != "price" else mtl.Task("price", "regression", loss=steep, scaler=t.scaler) for t in data.tasks
    ]
    model = tiny.model(tasks, encoder=tiny.BATCH_NORM)
    source = dataclasses.replace(data, tasks=tuple(tasks))
    for method in ("upgrad", "equal"):
        step, first = tiny.training(method, source=source, model=model, nonfinite="skip_task")
        run = jax.jit(step)
        after, record = run(first, tiny.batch())
        assert np.isfinite(record["losses"]).all() and record["finite"].tolist() == [True, False, True]
        tiny.assert_same(after, run(first, tiny.without_labels(tiny.batch(), "price"))[0])


def test_clipping_where_squares_overflow():
    """By the norm of all leaves, which is finite though its square is not."""
    leaves = {"shared/w": jnp.zeros((2, 2)), "tasks/a/w": jnp.zeros(3)}
    here = {"shared": jnp.array(True), "a": jnp.array(True)}
    owners = per_owner(optax.sgd(1.0), clip_norm=0.5)
    moved, _ = owners.update({p: jnp.full_like(x, 1e25) for p, x in leaves.items()}, owners.init(leaves), leaves, here)
    for leaf in moved.values():
        np.testing.assert_allclose(leaf, -0.5 / np.sqrt(7), rtol=1e-5)


def test_all_finite():
    x = jnp.ones((5, 4))
    good = {"a": x, "b": x, "c": jnp.arange(3), "d": jnp.ones(()), "e": jnp.ones((0, 2))}
    check = jax.jit(all_finite)
    assert check(good)
    for bad in (jnp.inf, -jnp.inf, jnp.nan):
        assert not check(good | {"b": x.at[4, 3].set(bad)}) and not check(good | {"d": jnp.asarray(bad)})
    bound = {"a": x.at[0, 0].set(jnp.inf)}
    assert check(bound, bound) and not check(bound, {"a": x})


def test_squared_lengths():
    """Of small leaves, which are joined, and large ones, against NumPy; nan and inf where there is one."""
    draw = np.random.default_rng(0)
    trees = {n: {"w": draw.normal(size=size), "b": draw.normal(size=3)} for n, size in
             {"a": 5, "b": 5, "c": (40, 50)}.items()}  # fmt: skip
    check = jax.jit(squared_lengths)
    for name, length in check(trees).items():
        np.testing.assert_allclose(length, sum((x**2).sum() for x in trees[name].values()), rtol=1e-5)
    for size in (5, (40, 50)):
        for bad, found in ((np.nan, np.nan), (np.inf, np.inf), (1e20, np.inf)):
            lengths = check({"a": {"w": np.full(size, bad), "b": np.ones(3)}, "b": {"w": np.ones(5), "b": np.ones(3)}})
            np.testing.assert_array_equal(lengths["a"], found)
            assert lengths["b"] == 8


def test_every_part_has_a_name():
    step, first = tiny.training("famo")
    assert len(jax.eval_shape(step, first, tiny.batch())[1]["sound"].shape) == 1
    assert jax.eval_shape(step, first, tiny.batch())[1]["sound"].shape == (len(PARTS),)

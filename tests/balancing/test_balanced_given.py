"""What `balanced` is given: absent and broken tasks, auxiliaries, shared leaves, and one clear error for the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, partition
from mtl_jax.balancing import aggregate
from mtl_jax.gradients.reach import reached
from tests import tiny
from tests.balancing import own
from tests.balancing.own import SHARED, call


@pytest.mark.parametrize("shared", [
    SHARED, ["trunk/w", "trunk/b"], [("heads/.*", False), (".*", True)], lambda path: path.startswith("trunk"),
    {"trunk": True, "heads": False}, {"trunk": {"w": True, "b": True}, "heads": dict.fromkeys(own.TASKS, False)},
])  # fmt: skip
def test_ways_to_say_what_is_shared(shared):
    expected = call()[0]
    tiny.assert_close(call(shared=shared)[0], expected, rtol=1e-6)
    everything = call(shared=None)[0]
    assert np.abs(everything["trunk"]["w"] - expected["trunk"]["w"]).max() > 1e-3
    rows = partition.flatten(jax.jacrev(own.losses)(own.params(), own.batch()))
    whole = np.concatenate([np.reshape(x, (4, -1)) for x in rows.values()], 1)
    direction = aggregate(balancing.upgrad(), whole)[0]
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in jax.tree.leaves(everything)]), direction, rtol=2e-3,
                               atol=1e-4)  # fmt: skip


def masked(params, batch):
    """Losses whose second task is absent: its row of numbers is 0 / 0 in the value, not in the gradient."""
    values = own.losses(params, batch)
    return jnp.where(jnp.arange(4) == 1, jnp.nan, values), jnp.arange(4) != 1


@pytest.mark.parametrize("name", ["equal", "uncertainty", "mgda", "moco", "modo"])
def test_an_absent_task_takes_no_part(name):
    """As if the other three were all there is; by the losses' own mask, by the call's, and by both forms of a mask."""
    three = [t for t in own.TASKS if t != "b"]
    params = own.params()
    expected = call(lambda p, b: {t: own.named(p, b)[t] for t in three}, name)[0]
    by_losses, _, info = call(masked, name, has_mask=True)
    tiny.assert_close(by_losses, expected, rtol=1e-5, atol=1e-6)
    assert info.applied and np.isnan(info.losses[1]) and not info.present[1]
    balanced = mtl.balanced(own.named, name, shared=SHARED)
    by_call, state, info = balanced(params, balanced.init(params), own.batch(), mask={t: t != "b" for t in own.TASKS})
    tiny.assert_close(by_call, expected, rtol=1e-5, atol=1e-6)
    assert not info.present["b"] and not np.abs(by_call["heads"]["b"]["w"]).any()


def root_of_nothing(params, batch):
    """Finite, as its gradient is not."""
    return jnp.sqrt(0 * params["trunk"]["w"].sum())


BROKEN = {
    "a loss": lambda p, b: own.losses(p, b).at[1].add(jnp.nan),
    "a gradient": lambda p, b: own.losses(p, b).at[1].set(root_of_nothing(p, b)),
    "a function": {**own.EACH, "b": root_of_nothing},
}


@pytest.mark.parametrize("which, name", [
    *((which, "mgda") for which in BROKEN), ("a function", "equal"), ("a loss", "moco"),
    *(pytest.param(which, name, marks=pytest.mark.slow) for which, name in (
        ("a loss", "equal"), ("a gradient", "equal"), ("a gradient", "moco"), ("a function", "moco"))),
])  # fmt: skip
def test_a_broken_task_stops_all_or_is_left_out(which, name):
    params, batch = own.params(), own.batch()
    batch = dict.fromkeys(own.TASKS, batch) if which == "a function" else batch
    for nonfinite in ("stop", "skip_task"):
        balanced = mtl.balanced(BROKEN[which], name, shared=SHARED, tasks=own.TASKS, nonfinite=nonfinite)
        first = balanced.init(params)
        gradients, state, info = balanced(params, first, batch)
        present = [info.present[t] for t in own.TASKS] if which == "a function" else info.present.tolist()
        if nonfinite == "stop" or which == "a gradient":  # in one function a derivative of inf reaches all rows
            assert all(np.isnan(x).all() for x in jax.tree.leaves(gradients)) and not info.applied
            tiny.assert_same(state, first)
            continue
        three = call(lambda p, b: {t: own.named(p, b)[t] for t in own.TASKS if t != "b"}, name)[0]
        tiny.assert_close(gradients, three, rtol=1e-5, atol=1e-6)
        assert info.applied and present == [True, False, True, True] and state.step == 1


def test_a_broken_function_or_head_is_cut_off_from_the_others():
    """Where tasks have functions of their own, an absent task may hold anything, whatever is asked of `nonfinite`."""
    three = call(lambda p, b: {t: own.named(p, b)[t] for t in own.TASKS if t != "b"}, "equal")[0]
    bad = {**own.EACH, "b": lambda p, b: jnp.sqrt(0 * p["trunk"]["w"].sum())}
    heads = {**own.HEADS, "b": lambda p, f, b: jnp.sqrt(0 * f.sum())}
    params, mask = own.params(), {t: t != "b" for t in own.TASKS}
    behind = mtl.balanced(features=own.features, heads=heads, shared=SHARED)
    for balanced, batch in ((mtl.balanced(bad, shared=SHARED), dict.fromkeys(own.TASKS, own.batch())),
                            (behind, own.batch())):  # fmt: skip
        gradients, _, info = balanced(params, balanced.init(params), batch, mask=mask)
        tiny.assert_close(gradients, three, rtol=1e-5, atol=1e-6)
        assert info.applied


def test_auxiliaries_come_along():
    """From one function, from each task's own, and from features and heads."""
    aux = call(lambda p, b: (own.losses(p, b), {"rows": len(b[0])}), has_aux=True)[2].aux
    assert aux == {"rows": 8}
    each = {t: lambda p, b, f=f, t=t: (f(p, b), t == "a") for t, f in own.EACH.items()}
    balanced = mtl.balanced(each, "equal", has_aux=True)
    info = balanced(own.params(), balanced.init(own.params()), dict.fromkeys(own.TASKS, own.batch()))[2]
    assert info.aux == {t: t == "a" for t in own.TASKS}
    for heads, expected in (
        ({t: lambda p, f, b, h=h, t=t: (h(p, f, b), t) for t, h in own.HEADS.items()}, {t: t for t in own.TASKS}),
        (lambda p, f, b: ({t: h(p, f, b) for t, h in own.HEADS.items()}, "all"), "all"),
    ):
        balanced = mtl.balanced(features=lambda p, b: (own.features(p, b), 3), heads=heads, has_aux=True)
        info = balanced(own.params(), balanced.init(own.params()), own.batch())[2]
        assert info.aux == (3, expected)


def test_tied_leaves_of_heads_count():
    """A shared leaf that trunk and heads read has the whole gradient; at the features it cannot be seen."""
    heads = {t: lambda p, f, b, h=h: h(p, f, b) + jnp.square(p["trunk"]["b"]).mean() for t, h in own.HEADS.items()}
    together = lambda p, b: {t: h(p, own.features(p, b), b) for t, h in heads.items()}  # noqa: E731
    expected = call(together)[0]
    for engine in ("map", "columns"):
        tiny.assert_close(
            call(None, features=own.features, heads=heads, engine=engine)[0], expected, rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match="heads read the shared 'trunk/b' themselves"):
        call(None, features=own.features, heads=heads, level="features")


def test_a_second_batch_is_a_second_sample():
    """Losses and gradients are means over both, and the cross product is of one and the other."""
    params, two, modo = own.params(), own.batch(3), balancing.modo()
    balanced = mtl.balanced(own.losses, modo, shared=SHARED)
    gradients, _, info = balanced(params, balanced.init(params), own.batch(), second=two)
    rows = [jax.jacrev(own.losses)(params, b)["trunk"] for b in (own.batch(), two)]
    first, second = (np.concatenate([np.reshape(x, (4, -1)) for x in r.values()], 1) for r in rows)
    signal = balancing.Signal(jnp.ones(4), cross=jnp.asarray(first @ second.T))
    weights = modo.update(signal, modo.init(4, {}), mask=jnp.ones(4, bool), key=None)[0].weights
    np.testing.assert_allclose(info.weights, weights, rtol=1e-4, atol=1e-6)
    mean = jax.tree.map(lambda a, b: jnp.tensordot(weights, (a + b) / 2, 1), *rows)
    tiny.assert_close(gradients["trunk"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(info.losses, (own.losses(params, own.batch()) + own.losses(params, two)) / 2, rtol=1e-5)


def test_a_leaf_that_no_loss_reaches_has_gradient_zero():
    params = own.params() | {"spare": jnp.ones(3)}
    gradients = call(at=params)[0]
    np.testing.assert_array_equal(gradients["spare"], np.zeros(3))
    tiny.assert_close({k: gradients[k] for k in own.params()}, call()[0], rtol=1e-6)


def test_a_donated_step_runs_on():
    """State and parameters share no buffer, and a donated tree that is used again is named."""
    balanced, adam = mtl.balanced(own.losses, "famo", shared=SHARED, tasks=own.TASKS), optax.adam(0.1)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(carry, batch):
        params, state, opt = carry
        grads, state, info = balanced(params, state, batch)
        updates, opt = adam.update(grads, opt, params)
        new = optax.apply_updates(params, updates)
        return (new, balanced.after(new, state, batch), opt), info.losses.sum()

    params = own.params()
    carry, values = (params, balanced.init(params), adam.init(params)), []
    for _ in range(5):
        carry, value = step(carry, own.batch())
        values.append(float(value))
    assert values[-1] < values[0]
    with pytest.raises(ValueError, match="the buffer of leaf 'heads/a/w' was donated"):
        balanced(params, carry[1], own.batch())


def test_a_state_starts_when_the_number_of_tasks_is_known():
    """Without tasks= a method with state starts at the first call; with a batch, or a function per task, at once."""
    balanced = mtl.balanced(own.losses, "gradnorm", shared=SHARED)
    params = own.params()
    early, late = balanced.init(params, own.batch()), balanced.init(params)
    assert early.inner is not None and late.inner is None
    tiny.assert_same(*(balanced(params, state, own.batch())[:2] for state in (early, late)))
    assert mtl.balanced(own.EACH, "gradnorm", shared=SHARED).init(params).inner is not None
    assert mtl.balanced(own.losses, "upgrad", shared=SHARED).init(params).inner == ()


def test_what_reaches_an_output():
    """Through calls and functions with derivatives of their own, and not from what they drop."""
    square = jax.custom_vjp(lambda a, b: (jnp.square(a), b))
    square.defvjp(lambda a, b: (square(a, b), a), lambda a, g: (2 * a * g[0], g[1]))
    assert reached(lambda a, b, c: jax.nn.relu(square(a, b)[0]) + 0 * jnp.sin(1.0), 1.0, 2.0, 3.0)[::2] == (True, False)
    inner = jax.jit(lambda a, b, c: (a * b, c))
    assert reached(lambda a, b, c, d: inner(a, b, c)[0] + 0 * jnp.ones(()), 1.0, 2.0, 3.0, 4.0) == (
        True,
        True,
        False,
        False,
    )
    assert reached(lambda tree: jax.lax.scan(lambda c, _: (c * tree["x"], None), 1.0, length=2)[0],
                   {"x": 2.0, "y": 1.0}) == ({"x": True, "y": False},)  # fmt: skip

"""A loop of one's own around `balanced` is what `fit` does: the same parameters after twenty steps, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import balancing
from mtl_jax.balancing.options import Options
from mtl_jax.tasks import divisor, task_losses
from tests import tiny
from tests.balancing import own

STEPS = 20
SHARED = "shared/.*"


def calls():
    """Every method, for three tasks."""
    named = {name: call for name, call in own.CALLS.items() if name not in ("fixed", "krum")}
    return [*named.values(), "fixed(weights=(1.0, 2.0, 0.5))", "krum(outliers=0)"]


def problem():
    """(tasks, model, batches that all tasks are in, validation batches)."""
    data = tiny.data(missing=0.0)
    model = tiny.model(data.tasks)

    def take(i):
        return tiny.double(jax.tree.map(lambda x: jnp.asarray(x[8 * (i % 8) : 8 * (i % 8) + 8]), data.train))

    return data, model, [take(i) for i in range(STEPS)], [take(i + 3) for i in range(STEPS)]


def losses_of(model, tasks, state):
    """(params, batch) -> {task: scalar}, the features of a batch, and a loss per head."""

    def variables(params):
        return {"params": params, "state": state}

    def features(params, batch):
        return model.encode(variables(params), batch, train=True, rng=None)[0]

    def every(params, features, batch):
        outputs, _ = model.decode(variables(params), {t.name: features for t in tasks}, train=True, rng=None)
        sums, counts = task_losses(tasks, outputs, batch)
        return dict(zip([t.name for t in tasks], sums / divisor(counts), strict=True))

    return lambda params, batch: every(params, features(params, batch), batch), features, every


def in_own_loop(balanced, balancer, first, batches, later, optimizer):
    """Parameters after the steps, with the keys that `fit` draws from."""

    @jax.jit
    def step(carry, batches, index):
        params, state, opt = carry
        batch, validation = batches
        key = jax.random.split(jax.random.fold_in(first.key, index))[1]
        more = {"validation": validation} if balancer.needs is balancing.Needs.ORACLE else {}
        grads, state, info = balanced(params, state, batch, key, **more)
        updates, opt = optimizer.update(grads, opt, params)
        new = optax.apply_updates(params, updates)
        return (new, balanced.after(new, state, batch), opt), info

    carry = first.params, balanced.init(first.params), optimizer.init(first.params)
    for i, both in enumerate(zip(batches, later, strict=True)):
        carry, info = step(carry, both, i)
    return carry[0], info


NOW = ("uncertainty", "famo", "upgrad", "pcgrad", "moco", "modo", "auto_lambda")


@pytest.mark.parametrize(
    "call", [c if c.split("(")[0] in NOW else pytest.param(c, marks=pytest.mark.slow) for c in calls()]
)
def test_every_method_ends_where_fit_ends(call):
    with jax.enable_x64(True):
        data, model, batches, later = problem()
        balancer, adam = balancing.build(call), optax.adam(0.02)
        step, first = tiny.training(balancer, data, model=model, optimizer=adam)
        first = tiny.in_double(first)
        names = tuple(t.name for t in data.tasks)
        losses, _, _ = losses_of(model, data.tasks, first.state)
        balanced = mtl.balanced(losses, balancer, shared=SHARED, tasks=names)
        found, info = in_own_loop(balanced, balancer, first, batches, later, adam)
        by_fit, jitted = first, jax.jit(step)
        for batch, validation in zip(batches, later, strict=True):
            more = (validation,) if balancer.needs is balancing.Needs.ORACLE else ()
            by_fit, record = jitted(by_fit, batch, *more)
        close = own.tolerance(first.balancer_state)
        tiny.assert_close(found, by_fit.params, **close)
        np.testing.assert_allclose([info.losses[n] for n in names], record["losses"], **close)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, first.params)
        assert min(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize("call, options", [
    ("upgrad", {"level": "features"}),
    pytest.param("graddrop", {"level": "features"}, marks=pytest.mark.slow),
    ("mgda", {"update_every": 3}),
    pytest.param("uncertainty", {"update_every": 3}, marks=pytest.mark.slow),
    ("famo", {"update_every": 4}),
    ("cagrad", {"paths": "shared/encoder/stage_1/.*"}),
    ("upgrad", {"mode": "columns"}),
])  # fmt: skip
def test_every_option_ends_where_fit_ends(call, options):
    """Through heads after features, as the engine has them."""
    with jax.enable_x64(True):
        data, model, batches, later = problem()
        balancer, adam = balancing.build(call), optax.adam(0.02)
        how = dict(options)
        pattern = how.pop("paths", ())
        of_fit = Options(**{"mode": "map", **how})
        if pattern:
            every = mtl.partition.flatten(tiny.init(model, batches[0])["params"])
            of_fit = of_fit._replace(paths=balancing.options.matching(pattern, frozenset(every)))
        step, first = tiny.training(balancer, data, model=model, optimizer=adam, options=of_fit)
        first = tiny.in_double(first)
        _, features, heads = losses_of(model, data.tasks, first.state)
        how["engine"] = how.pop("mode", "map")
        balanced = mtl.balanced(
            None, balancer, features=features, heads=heads, shared=SHARED, tasks=tuple(t.name for t in data.tasks),
            balance_paths=pattern, **how,
        )  # fmt: skip
        found, _ = in_own_loop(balanced, balancer, first, batches, later, adam)
        by_fit, jitted = first, jax.jit(step)
        for batch in batches:
            by_fit, _ = jitted(by_fit, batch)
        tiny.assert_close(found, by_fit.params, **own.tolerance(first.balancer_state))


def test_one_run_of_fit_itself():
    """Gradient descent on whole splits by `mtl.fit`, float32."""
    data = tiny.data(missing=0.0)
    model = tiny.model(data.tasks)
    rows = len(data.train.masks["sold"])
    run = tiny.fit(model, data, balancer="upgrad", optimizer=optax.sgd(0.05), batch_size=rows, num_steps=20,
                   eval_every=20, steps_per_dispatch=20, log_every=20, seed=3)  # fmt: skip
    batch = jax.tree.map(jnp.asarray, data.train)
    losses, _, _ = losses_of(model, run.tasks, {"shared": {}, "tasks": {n: {} for n in data.train.masks}})
    first = tiny.fit(model, data, balancer="upgrad", optimizer=optax.sgd(0.0), batch_size=rows, num_steps=1,
                     eval_every=1, steps_per_dispatch=1, log_every=1, seed=3)  # fmt: skip
    balanced, params = mtl.balanced(losses, "upgrad", shared=SHARED), first.variables["params"]
    state, call = balanced.init(params), jax.jit(balanced)
    for _ in range(20):
        grads, state, info = call(params, state, batch)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
    after = {n: float(v) for n, v in losses(params, batch).items()}
    expected = {n: float(v) for n, v in losses(run.variables["params"], batch).items()}
    assert after == pytest.approx(expected, rel=1e-4)
    assert all(after[n] < info.losses[n] * 1.1 for n in after)

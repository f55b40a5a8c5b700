"""Two-sample and bilevel methods, and a balancer per group: against recurrences, finite differences and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mtl_jax import balancing, parallel
from mtl_jax.balancing import Signal, aggregate
from mtl_jax.balancing.forum import multipliers
from mtl_jax.balancing.options import Options, check, check_batch
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.linearization import Examples
from mtl_jax.gradients.oracle import Losses, Oracle
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.training.dispatch import lay_out, make_dispatch
from tests import tiny

IDS = np.arange(3, dtype=np.uint32)


def simplex(x):
    """The projection by bisection of its threshold, in float64."""
    low, high = x.min() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(x - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(x - low, 0)


def test_modo_and_sdmgrad_by_hand():
    """Three updates of each recurrence, written out in NumPy, on cross products that are not symmetric."""
    draw = np.random.default_rng(0)
    crosses = [0.3 * draw.normal(size=(3, 3)) + np.diag([1.0, 2.0, 0.5]) for _ in range(3)]
    mask = jnp.ones(3, bool)
    modo, sdmgrad = balancing.modo(gamma=0.2, rho=0.1), balancing.sdmgrad(0.3, 0.5, 0.5, inner_steps=4)
    states = [modo.init(3, {}), sdmgrad.init(3, {})]
    w, v = np.full(3, 1 / 3), np.full(3, 1 / 3)
    for cross in crosses:
        signal = Signal(jnp.ones(3), cross=jnp.asarray(cross, jnp.float32), ids=IDS)
        first, states[0] = modo.update(signal, states[0], mask=mask, key=None)
        second, states[1] = sdmgrad.update(signal, states[1], mask=mask, key=None)
        w = simplex(w - 0.2 * (cross @ w + 0.1 * w))
        scaled, velocity = cross / np.abs(np.diag(cross)).mean(), np.zeros(3)
        for _ in range(4):
            velocity = 0.5 * velocity + scaled @ (v + 0.3 / 3)
            v = simplex(v - 0.5 * velocity)
        np.testing.assert_allclose(first.weights, w, atol=1e-5)
        np.testing.assert_allclose(second.weights, (v + 0.3 / 3) / 1.3, atol=1e-5)


@pytest.mark.parametrize("mode", ["map", "columns"])
def test_halves_and_examples_against_reverse_mode(mode):
    """J1 J2' of the interleaved halves, and the Gramian of task x example, in float64 against jax.jacrev."""
    data = tiny.data()
    model = tiny.model(data.tasks)
    with jax.enable_x64(True):
        batch = tiny.double(tiny.batch(8))
        variables = tiny.double(tiny.init(model, batch))

        def flat(rows):
            return np.concatenate([np.reshape(x, (len(x), -1)) for p, x in rows.items() if p.startswith("shared")], 1)

        reference = jax.jit(lambda b: reference_jacobian(model, variables, b, tasks=data.tasks))
        halves = [flat(reference(jax.tree.map(lambda x, i=i: x[i::2], batch))[1]) for i in (0, 1)]
        singles = [reference(jax.tree.map(lambda x, i=i: x[i : i + 1], batch)) for i in range(8)]

        @jax.jit
        def found(variables):
            line = linearize(model, variables, batch, tasks=data.tasks, mode=mode)
            mix = jnp.arange(24.0).reshape(3, 8)
            examples = line.examples()
            return line.cross(), examples, line.gramian(examples=True), line.weighted(mix * examples.scale[:, None])

        (cross, both), examples, gram, weighted = found(variables)
        expected = halves[0] @ halves[1].T
        mask = np.stack([batch.masks[t.name] for t in data.tasks])
        np.testing.assert_array_equal(both, mask[:, ::2].any(1) & mask[:, 1::2].any(1))
        pairs = both[:, None] & both
        np.testing.assert_allclose(np.where(pairs, cross, 0), np.where(pairs, expected, 0), rtol=1e-10, atol=1e-12)
        rows = np.stack([flat(jacobian) for _, jacobian in singles], 1)  # [task, example, param]
        rows = np.where(mask[..., None], rows, 0).reshape(24, -1)
        np.testing.assert_allclose(gram, rows @ rows.T, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(examples.present, mask)
        np.testing.assert_allclose(examples.losses, np.where(mask, np.stack([v for v, _ in singles], 1), 0), rtol=1e-10)
        np.testing.assert_allclose(
            flat({p: x[None] for p, x in weighted.items()})[0], np.arange(24.0) @ rows, rtol=1e-9
        )
        assert isinstance(examples, Examples)


def test_the_weights_slopes_are_those_of_the_validation_loss_after_a_virtual_step():
    """Auto-Lambda's and MOML's, by central differences in float64 on a quadratic with curvature."""
    draw = np.random.default_rng(1)
    with jax.enable_x64(True):
        centers, later = draw.normal(size=(2, 3, 4))
        curved = np.stack([np.diag(draw.uniform(0.5, 2, 4)) for _ in range(3)])

        def side(c):
            def value(x):
                return jnp.einsum("ti,tij,tj->t", x["w"] - c, curved, x["w"] - c) / 2

            return Losses(
                value,
                lambda x, w: jax.grad(lambda y: w @ value(y))(x),
                lambda x, d: jax.jvp(value, (x,), (d,))[1],
                jnp.ones(3, bool),
            )

        oracle = Oracle({"w": jnp.zeros(4)}, side(centers), side(later))
        signal = Signal(oracle.train.value(oracle.leaves), oracle=oracle, ids=IDS)

        def ahead(weights):
            slope = oracle.train.gradient(oracle.leaves, jnp.asarray(weights))["w"]
            return np.asarray(oracle.validation.value({"w": -0.05 * slope}))

        slopes = np.stack([(ahead(np.ones(3) + e) - ahead(np.ones(3) - e)) / 2e-4 for e in 1e-4 * np.eye(3)], 1)
        moved = {}
        for method in (balancing.auto_lambda((), 0.1, 0.05, 1.0), balancing.moml(0.1, 0.05)):
            _, state = method.update(signal, method.init(3, {}), mask=jnp.ones(3, bool), key=None)
            # Adam's first moment after one step is a tenth of the slope it was given.
            moved[method.spec[:4]] = 10 * np.asarray(state.adam[0].mu, np.float64)
        np.testing.assert_allclose(moved["auto"], slopes.sum(0), rtol=1e-4)
        gram = slopes @ slopes.T
        best = min((m @ gram @ m, tuple(m @ slopes)) for m in draw.dirichlet(np.ones(3), 20000))
        assert moved["moml"] @ moved["moml"] <= best[0] * 1.0001
        np.testing.assert_allclose(moved["moml"], best[1], atol=0.02 * np.abs(slopes).max())


def test_primary_tasks_are_named():
    """With one primary task, weights follow that task's validation loss alone."""
    matrix = np.array([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0]], np.float32)
    names = balancing.balance.task_ids(["a", "b", "c"])
    method = balancing.auto_lambda(primary=("a",), learning_rate=0.1, first_weight=1.0)
    _, weights, _ = aggregate(method, matrix, ids=names)
    # <g_t, g_a>: 1, -1 and 0; the first step of Adam is its learning rate.
    np.testing.assert_allclose(weights, [1.1, 0.9, 1.0], atol=1e-3)
    with pytest.raises(ValueError, match="unknown task in balancer auto_lambda.*'colour'; did you mean 'color'"):
        tiny.fit(tiny.model(tiny.data().tasks), balancer="auto_lambda(primary=('colour',))")


def test_forums_multipliers_against_scipy():
    """Equation 9 of the paper, solved by SLSQP in float64 over (l, v)."""
    for seed in range(6):
        draw = np.random.default_rng(seed)
        rows, q = draw.normal(size=(4, 9)), draw.normal(size=9)
        rise = 0.5 * q @ q * draw.uniform(0, 2)

        def value(x, rows=rows, q=q, rise=rise):
            return ((x[:4] @ rows + x[4] * q) ** 2).sum() / 2 - x[4] * rise

        best = minimize(value, [*np.full(4, 0.25), 0.0], bounds=[(0, 1)] * 4 + [(0, None)], method="SLSQP",
                        constraints={"type": "eq", "fun": lambda x: x[:4].sum() - 1},
                        options={"ftol": 1e-12})  # fmt: skip
        mix, pressure = multipliers(
            jnp.asarray(rows @ rows.T), jnp.asarray(rows @ q), jnp.asarray(q @ q), jnp.asarray(rise), jnp.ones(4, bool)
        )
        assert value(np.asarray([*mix, pressure], np.float64)) <= best.fun + 1e-3 * max(1, abs(best.fun))
        assert abs(float(mix.sum()) - 1) < 1e-5 and float(pressure) >= 0


def test_a_balancer_for_each_group():
    """Each group's part of the direction is its method's on that part of the Jacobian."""
    draw = np.random.default_rng(0)
    jacobian = {f"shared/{n}": jnp.asarray(draw.normal(size=(3, 6)), jnp.float32) for n in ("early", "late", "last")}
    method = balancing.build("grouped(rules=(('shared/early', 'mgda'), ('.*', 'trimmed_mean')))")
    state = method.init(3, {p: x[0] for p, x in jacobian.items()})
    signal = Signal(jnp.ones(3), jacobian=jacobian, ids=IDS)
    result, _ = method.update(signal, state, mask=jnp.ones(3, bool), key=jax.random.key(0))
    early, _, _ = aggregate(balancing.mgda(), jacobian["shared/early"])
    late, _, _ = aggregate(balancing.trimmed_mean(), jacobian["shared/late"])
    np.testing.assert_allclose(result.direction["shared/early"], early, atol=1e-6)
    np.testing.assert_allclose(result.direction["shared/late"], late, atol=1e-6)
    with pytest.raises(ValueError, match="grouped: no rule matches shared/last; rules are shared/early"):
        balancing.grouped((("shared/early", "mgda"),)).init(3, {p: x[0] for p, x in jacobian.items()})
    with pytest.raises(ValueError, match="grouped: rule 'tasks/.' matches no shared parameter"):
        balancing.grouped((("tasks/.", "mgda"), (".*", "mgda"))).init(3, {p: x[0] for p, x in jacobian.items()})
    with pytest.raises(ValueError, match="grouped: famo.* cannot be the method of one group"):
        balancing.grouped(((".*", "famo"),))


@pytest.mark.parametrize("name", ["modo", "auto_lambda"])
def test_eight_devices(name):
    """One step in float64 on eight devices, by jit and by pmap, is that of one."""
    with jax.enable_x64(True):
        step, first, layout = tiny.training(name, stacked=True)
        first, rows = tiny.in_double(first), np.arange(32, dtype=np.int32)[None]
        split = lay_out(tiny.double(tiny.batch(32)), layout)
        count, found = (1 if name == "modo" else 2), []
        # Interleaved halves of 4 rows on each of 8 devices are those of all 32 rows.
        for devices, by in ((1, "jit"), (8, "jit"), (8, "pmap")):
            mesh = parallel.make_mesh(devices)
            placed = jax.device_put(jax.tree.map(jnp.copy, first), parallel.replicated(mesh))
            splits = jax.device_put((split,) * count, parallel.replicated(mesh))
            found.append(make_dispatch(step, mesh, by)(placed, splits, (rows,) * count)[0].params)
        tiny.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)
        tiny.assert_close(found[2], found[0], rtol=1e-9, atol=1e-10)


def test_what_does_not_go_together():
    refused = [
        ("equal", Options(objectives="examples"), r"the Gramian or the Jacobian; equal\(\) reads losses"),
        ("gradvac", Options(objectives="examples"), "keeps something per objective from step to step"),
        ("upgrad", Options(objectives="examples", update_every=2), "cannot be used again"),
        ("upgrad", Options(objectives="examples", level="features"), "taken by the parameters"),
        ("upgrad", Options(objectives="rows"), "unknown objectives 'rows'"),
        ("modo", Options(level="features"), "reads two samples, by the parameters only"),
        ("forum", Options(update_every=2), "returns a direction"),
    ]  # fmt: skip
    for name, options, message in refused:
        with pytest.raises(ValueError, match=message):
            check(options, balancing.build(name), True)
    for name in ("auto_lambda", "modo"):
        check(Options(update_every=2), balancing.build(name), True)
    with pytest.raises(ValueError, match="needs two samples, the halves of a batch: batch_size=15 must be a"):
        tiny.fit(tiny.model(tiny.data().tasks), balancer="modo", batch_size=15)
    with pytest.raises(ValueError, match="must be a multiple of 16"):
        check_batch(balancing.modo(), 24, 8, True)
    with pytest.raises(ValueError, match="learns from validation batches, and the data set"):
        tiny.fit(tiny.model(tiny.data().tasks), tiny.data().take(20), balancer="auto_lambda")

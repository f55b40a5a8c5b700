"""Features level, a part of the parameters, and weights used again: against the definitions, and who may not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import balancing, parallel, partition
from mtl_jax.balancing.options import Options, check, matching, resolve
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.gramian import gramian
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.tasks import loss_sum
from mtl_jax.training.dispatch import lay_out, make_dispatch
from tests import tiny


def test_the_jacobian_at_the_features():
    """Against jax.jacrev of the losses by the features, and its pull-back against the chain rule, in float64."""
    data = tiny.data()
    model = tiny.model(data.tasks)
    with jax.enable_x64(True):
        batch = tiny.double(tiny.batch())
        variables = tiny.double(tiny.init(model, batch))

        @jax.jit
        def both(variables):
            features, _, _ = model.encode(variables, batch, train=True)

            def losses(features):
                outputs, _ = model.decode(variables, {t.name: features for t in data.tasks}, train=True)
                pairs = [loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name]) for t in data.tasks]
                return jnp.stack([total / count for total, count in pairs])

            line = linearize(model, variables, batch, tasks=data.tasks)
            rows = line.at_features()
            back = line.along({p: jnp.tensordot(jnp.arange(1.0, 4.0), x, 1) for p, x in rows.items()})
            return rows[""], jax.jacrev(losses)(features), back, line.weighted(jnp.arange(1.0, 4.0))

        found, expected, back, weighted = both(variables)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
        tiny.assert_close(back, weighted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("mode", ["map", "columns"])
def test_a_part_of_the_parameters(mode):
    """The Gramian is that of the chosen leaves; the weights apply to all."""
    data = tiny.data()
    model = tiny.model(data.tasks)
    variables = tiny.init(model, tiny.batch())
    every = frozenset(partition.flatten(variables["params"]))
    paths = matching("shared/encoder/stage_1/.*", every)
    assert len(paths) == 2

    @jax.jit
    def grams(variables):
        whole = linearize(model, variables, tiny.batch(), tasks=data.tasks).jacobian()
        part = linearize(model, variables, tiny.batch(), tasks=data.tasks, paths=paths, mode=mode)
        return gramian({p: x for p, x in whole.items() if p in paths}), part.gramian(), gramian(whole)

    expected, found, whole = grams(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(whole - found).max() > 1e-3

    step, first = tiny.training("upgrad", model=model, optimizer=mtl.training.optimizers.build_optimizer("sgd(1.0)"),
                                options=Options(mode, paths=paths))  # fmt: skip
    after, record = jax.jit(step)(first, tiny.batch())
    line = linearize(model, first.variables, tiny.batch(), tasks=data.tasks)
    moved = {p: first_leaf - partition.flatten(after.params)[p]
             for p, first_leaf in partition.flatten(first.params).items() if p.startswith("shared")}  # fmt: skip
    tiny.assert_close(moved, line.weighted(record["weights"]), rtol=1e-3, atol=1e-5)


def test_weights_are_used_again():
    """Between updates the weights stand still; a step costs one pull of the trunk, whatever the method."""
    step, first = tiny.training("upgrad", options=Options("map", update_every=3))
    run, weights, state = jax.jit(step), [], first
    for _ in range(7):
        state, record = run(state, tiny.batch())
        weights.append(np.asarray(record["weights"]))
    for start in (0, 3):
        np.testing.assert_array_equal(weights[start], weights[start + 1])
        np.testing.assert_array_equal(weights[start], weights[start + 2])
    assert (weights[0] != weights[3]).any() and (weights[3] != weights[6]).any()
    every, first = tiny.training("upgrad")
    np.testing.assert_allclose(weights[0], jax.jit(every)(first, tiny.batch())[1]["weights"], rtol=1e-5)


@pytest.mark.parametrize("how", [
    "features", "every", "layers", pytest.param("features graddrop", marks=pytest.mark.slow)
])  # fmt: skip
def test_eight_devices_by_pmap(how):
    """One step in float64 on eight devices is that of one; GradDrop draws per row of the device, so only its norm."""
    options = {"every": Options("map", update_every=2), "layers": Options("layers")}
    options = options.get(how, Options("map", level="features"))
    with jax.enable_x64(True):
        model = tiny.model(tiny.data().tasks, encoder="mlp(features=(48, 64))") if how == "layers" else None
        method = "graddrop" if "graddrop" in how else "upgrad"
        step, first, layout = tiny.training(method, model=model, options=options, stacked=True)
        first, split = tiny.in_double(first), lay_out(tiny.double(tiny.batch(16)), layout)
        rows, found = np.arange(16, dtype=np.int32)[None], []
        for devices, by in ((1, "jit"), (8, "jit"), (8, "pmap")):
            mesh = parallel.make_mesh(devices)
            placed = jax.device_put(jax.tree.map(jnp.copy, first), parallel.replicated(mesh))
            dispatch = make_dispatch(step, mesh, by)
            splits = jax.device_put((split,), parallel.replicated(mesh))
            found.append(dispatch(placed, splits, (rows,))[0].params)
        tiny.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)
        if "graddrop" not in how:
            tiny.assert_close(found[2], found[0], rtol=1e-9, atol=1e-10)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[2]))


def test_training_with_each_option(tmp_path):
    model = tiny.model(tiny.data().tasks)
    for options in ({"level": "features"}, {"balance_paths": "shared/encoder/stage_1/.*"}, {"update_every": 5}):
        whole = tiny.fit(model, balancer="upgrad", num_steps=40, **options)
        records = [r for r in whole.history if r["split"] == "train"]
        assert sum(records[-1]["losses"].values()) < sum(records[0]["losses"].values())
    workdir = tmp_path / "resumed"
    tiny.fit(model, balancer="upgrad", num_steps=10, update_every=5, workdir=workdir)
    resumed = tiny.fit(model, balancer="upgrad", num_steps=40, update_every=5, workdir=workdir)
    tiny.assert_same(resumed.state, whole.state)


def test_what_is_logged_of_conflict():
    """Norms, cosines and the share of conflicts of one step, against the reference Jacobian in NumPy."""
    step, first = tiny.training("upgrad")
    _, record = jax.jit(step)(first, tiny.batch())
    model = tiny.model(tiny.data().tasks, encoder=tiny.BATCH_NORM)
    _, jacobian = jax.jit(lambda v: reference_jacobian(model, v, tiny.batch(), tasks=tiny.data().tasks))(
        first.variables
    )
    rows = np.concatenate([x.reshape(3, -1) for p, x in jacobian.items() if p.startswith("shared")], 1).astype(float)
    norms = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows.T / norms / norms[:, None]
    np.testing.assert_allclose(record["norms"], norms, rtol=1e-4)
    np.testing.assert_allclose(record["cosines"], cosines, atol=1e-4)
    assert float(record["conflict"]) == np.mean([cosines[i, j] < 0 for i, j in ((0, 1), (0, 2), (1, 2))])
    _, masked = jax.jit(step)(first, tiny.without_labels(tiny.batch(), "price"))
    assert np.isnan(masked["cosines"][1]).all() and float(masked["conflict"]) == float(cosines[0, 2] < 0)
    silent, first = tiny.training("upgrad", options=Options("map", monitor=False))
    assert "cosines" not in jax.eval_shape(silent, first, tiny.batch())[1]


def test_methods_side_by_side_are_each_itself():
    """Members of one program against runs of their own; every method's solver sees its own runs only."""
    model, seeds = tiny.model(tiny.data().tasks), (0, 1)
    together = tiny.fit(model, balancer=["upgrad", "pcgrad"], seed=seeds)
    assert together.members == 4 and np.shape(together.history[0]["cosines"]) == (4, 3, 3)
    for i, name in enumerate(("upgrad", "pcgrad")):
        alone = tiny.fit(model, balancer=name, seed=seeds)
        for j in range(2):
            found, expected = together.member(2 * i + j).state.params, alone.member(j).state.params
            tiny.assert_close(found, expected, rtol=2e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"upgrad\(\) and gradvac\(\) cannot train side by side"):
        tiny.fit(model, balancer=["upgrad", "gradvac"])


def test_one_task_is_said_to_be_plain_training():
    data = tiny.data().select(("color",))
    run = tiny.fit(tiny.model(data.tasks), data, balancer="upgrad", num_steps=5, eval_every=5)
    assert "one task only: whatever the method, this is plain training" in run.engine


def test_features_level_costs_little_more_than_a_plain_step():
    """XLA's FLOPs: balancing at the features adds no pull of the trunk."""
    data = tiny.data()
    model = tiny.model(data.tasks, encoder="mlp(features=(64, 64, 64))")
    flops = {}
    for name, options in (("equal", Options("map")), ("upgrad", Options("map", level="features"))):
        step, first = tiny.training(name, model=model, options=options)
        flops[name] = jax.jit(step).lower(first, tiny.batch()).compile().cost_analysis()["flops"]
    assert flops["upgrad"] < 1.2 * flops["equal"]


def test_auto_says_what_it_picked_and_why():
    template = {"shared/w": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    assert resolve("auto", balancing.upgrad(), 3, template)[0] == "layers"
    assert resolve("auto", balancing.sdmgrad(), 3, template)[0] == "map"
    mode, why = resolve("auto", balancing.upgrad(), 2000, template)
    assert mode == "columns" and "a Jacobian of 2000 rows takes 7629.4 MiB of" in why
    assert resolve("auto", balancing.graddrop(), 2000, template)[0] == "map"
    assert resolve("vmap", balancing.upgrad(), 3, template)[0] == "vmap"
    small = {"shared/w": jax.ShapeDtypeStruct((100, 100), jnp.float32)}  # 40 kB: a CPU pulls up to 6 at once
    assert resolve("auto", balancing.upgrad(), 6, small)[0] == "vmap"
    assert resolve("auto", balancing.upgrad(), 10, small)[0] == 5
    assert resolve("auto", balancing.upgrad(), 14, small, copies=2)[0] == "layers"
    assert "losses only" in resolve("auto", balancing.equal(), 3, template)[1]
    run = tiny.fit(tiny.model(tiny.data().tasks), balancer="upgrad", num_steps=5, eval_every=5)
    assert run.engine.startswith("vmap: a Jacobian of 3 rows takes 0.0 MiB")


def test_what_does_not_go_together():
    refused = [
        ("graddrop", Options("columns"), True, "reads the Jacobian, which engine 'columns' never holds"),
        ("graddrop", Options("layers"), True, "reads the Jacobian, which engine 'layers' never holds"),
        ("equal", Options(level="features"), True, "reads no gradients, so level='features' has no effect"),
        ("upgrad", Options(level="features"), False, "needs features that all heads read"),
        ("moco", Options(level="features"), True, "tracks gradients from step to step"),
        ("graddrop", Options(paths=frozenset({"a"})), True, "balance_paths needs a method that reads the Gramian"),
        ("upgrad", Options(level="features", paths=frozenset({"a"})), True, "does not go with level='features'"),
        ("graddrop", Options(update_every=2), True, "needs weights to use again"),
        ("upgrad", Options(update_every=0), True, "update_every=0 must be at least 1"),
        ("upgrad", Options(level="feature"), True, "unknown level 'feature'; did you mean 'features'"),
        ("upgrad", Options("rows"), True, "unknown engine 'rows'"),
    ]
    for name, options, common, message in refused:
        with pytest.raises(ValueError, match=message):
            check(options, balancing.build(name), common)
    check(Options(update_every=2), balancing.excess_mtl(), True)
    with pytest.raises(ValueError, match="rule 'shared/nothing' matches no parameter"):
        matching("shared/nothing", frozenset({"shared/w"}))
    with pytest.raises(ValueError, match="needs features that all heads read"):
        tiny.fit(tiny.model(tiny.per_task_data().tasks), tiny.per_task_data(), balancer="upgrad", level="features")

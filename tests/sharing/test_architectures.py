"""A table of architectures x properties: the engine agrees, no task reaches another's leaves, order does not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition, sharing
from mtl_jax.balancing.engine import linearize
from mtl_jax.balancing.reference import reference_jacobian
from mtl_jax.sharing import forward
from tests import tiny

ARCHITECTURES = ("hard", "hard(shared_stages=1)", "independent", "cross_stitch", "mmoe(experts=3)", "film")
DROPOUT = "mlp(features=(8, 6), norm='batch', dropout=0.3)"


def test_the_table_lists_every_architecture():
    assert {text.split("(")[0] for text in ARCHITECTURES} == set(sharing.NAMES)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_the_engine_and_the_invariant(text):
    """Against reverse mode through the whole model in float64; a leaf under tasks/<t> has no other task's gradient."""
    data = tiny.data()
    model = tiny.model(data.tasks, text, DROPOUT)
    with jax.enable_x64(True):
        batch, key = tiny.double(tiny.batch(12)), jax.random.key(2)
        variables = tiny.double(tiny.init(model, batch))

        @jax.jit
        def both(variables):
            reference = reference_jacobian(model, variables, batch, rng=key, tasks=data.tasks)
            line = linearize(model, variables, batch, rng=key, tasks=data.tasks)
            return reference, (line.losses, line.jacobian(), line.own())

        (losses, expected), (found, jacobian, own) = both(variables)
        close = {"rtol": 1e-10, "atol": 1e-12}
        tiny.assert_close(found, losses, **close)
        shared = {p: j for p, j in expected.items() if partition.owner(p) == "shared"}
        if shared:
            tiny.assert_close(jacobian, shared, **close)
        names = [t.name for t in model.tasks]
        for path, rows in expected.items():
            owner = partition.owner(path)
            if owner == "shared":
                assert np.abs(rows).max() > 0, path
                continue
            index = names.index(owner)
            np.testing.assert_allclose(own[path], rows[index], err_msg=path, **close)
            assert not np.abs(np.delete(rows, index, 0)).any(), path
            assert "gate" in path or np.abs(rows[index]).max() > 0, path


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_reordering_changes_nothing_and_adding_leaves_the_others_alone(text):
    tasks, batch = list(tiny.data().tasks), tiny.batch()

    def start(tasks):
        model = tiny.model(tasks, text)
        variables = tiny.init(model, batch)
        return variables["params"]["tasks"], jax.jit(lambda v: forward(model, v, batch)[0])(variables)

    own, outputs = start(tasks)
    _, reordered = start(tasks[::-1])
    more, _ = start([mtl.Task("new", "binary"), *tasks])
    for task in own:
        np.testing.assert_allclose(reordered[task], outputs[task], rtol=1e-5, atol=1e-6)
        tiny.assert_same(more[task], own[task])


@pytest.mark.parametrize("text", ARCHITECTURES[3:])
def test_it_trains_is_saved_and_comes_back(text, tmp_path):
    """With missing labels, UPGrad and a stateful method; on the other encoder once."""
    data = tiny.data()
    model = tiny.model(data.tasks, text, tiny.BATCH_NORM)
    run = tiny.fit(model, balancer="upgrad", num_steps=60, log_every=10)
    train = [r for r in run.history if r["split"] == "train"]
    assert sum(train[-1]["losses"].values()) < 0.9 * sum(train[0]["losses"].values())
    run.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    for task, values in run.predict(data.test.inputs).items():
        np.testing.assert_array_equal(loaded.predict(data.test.inputs)[task], values)
    images = mtl.Batch(jnp.ones((3, 8, 8, 1)), {}, {})
    other = sharing.build(text, mtl.encoders.cnn(features=(2, 3), norm="batch"), data.tasks)
    variables = tiny.init(other, images)
    outputs, state, _ = jax.jit(lambda v: forward(other, v, images, train=True))(variables)
    assert outputs["color"].shape == (3, 3) and jax.tree.structure(state) == jax.tree.structure(variables["state"])


def trunk_of(model, batch, source, place):
    """Variables of `model` with leaves replaced by `place`, from variables `source` of another architecture."""
    variables = tiny.init(model, batch)
    flat = partition.flatten(variables["params"])
    return {**variables, "params": partition.unflatten({p: place(p, source) for p in flat}, variables["params"])}


def outputs_of(model, variables, batch):
    return jax.jit(lambda v: forward(model, v, batch)[0])(variables)


def test_one_expert_is_hard_sharing():
    tasks, batch = tiny.data().tasks, tiny.batch()
    hard, single = tiny.model(tasks), tiny.model(tasks, "mmoe(experts=1)")
    source = partition.flatten(tiny.init(hard, batch)["params"])

    def place(path, source):
        if path.startswith("shared/experts"):
            return source[path.replace("shared/experts", "shared/encoder")][None]
        return source[path] if path in source else jnp.ones((5, 1) if path.endswith("kernel") else (1,))

    found = outputs_of(single, trunk_of(single, batch, source, place), batch)
    tiny.assert_close(found, outputs_of(hard, tiny.init(hard, batch), batch), rtol=1e-5, atol=1e-6)


def test_identity_units_are_independent_networks():
    tasks, batch = tiny.data().tasks, tiny.batch()
    apart, stitched = tiny.model(tasks, "independent"), tiny.model(tasks, "cross_stitch(own=1.0)")
    source = partition.flatten(tiny.init(apart, batch)["params"])

    def place(path, source):
        if path.startswith("shared/columns"):
            rest = path.removeprefix("shared/columns/")
            return jnp.stack([source[f"tasks/{t.name}/encoder/{rest}"] for t in tasks])
        return jnp.eye(3) if path.startswith("shared/units") else source[path]

    found = outputs_of(stitched, trunk_of(stitched, batch, source, place), batch)
    tiny.assert_close(found, outputs_of(apart, tiny.init(apart, batch), batch), rtol=1e-5, atol=1e-6)
    unit = tiny.init(tiny.model(tasks, "cross_stitch"), batch)["params"]["shared"]["units"]["stage_0"]
    np.testing.assert_allclose(unit, 0.85 * np.eye(3) + 0.05, rtol=1e-6)


def test_film_starts_as_hard_sharing():
    tasks, batch = tiny.data().tasks, tiny.batch()
    hard, modulated = tiny.model(tasks), tiny.model(tasks, "film")
    found = outputs_of(modulated, tiny.init(modulated, batch), batch)
    tiny.assert_close(found, outputs_of(hard, tiny.init(hard, batch), batch), rtol=1e-5, atol=1e-6)


def test_gates_are_logged():
    run = tiny.fit(tiny.model(tiny.data().tasks, "mmoe(experts=3)"), num_steps=5, eval_every=5)
    assert 0 < run.history[0]["aux/gate_entropy/color"] <= np.log(3) + 1e-6


@pytest.mark.parametrize("text", ["cross_stitch", "mmoe", "film"])
def test_inputs_of_each_tasks_own_are_refused(text):
    data = tiny.per_task_data()
    with pytest.raises(ValueError, match="takes inputs in common; 'hard' and 'independent' take each task's own"):
        tiny.init(tiny.model(data.tasks, text), tiny.batch(4, data))


def test_errors():
    with pytest.raises(ValueError, match="mmoe: experts=0 must be at least 1"):
        tiny.model(tiny.data().tasks, "mmoe(experts=0)")
    with pytest.raises(ValueError, match=r"cross_stitch: own=2 must lie in \[0, 1\]"):
        tiny.model(tiny.data().tasks, "cross_stitch(own=2)")
    with pytest.raises(ValueError, match="unknown sharing 'mmo'; did you mean 'mmoe'"):
        tiny.model(tiny.data().tasks, "mmo")

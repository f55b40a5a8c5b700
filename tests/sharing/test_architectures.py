"""A table of architectures x properties: the engine agrees, no task reaches another's leaves, order does not matter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition, sharing
from mtl_jax.balancing.engine import linearize
from mtl_jax.balancing.reference import reference_jacobian
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.sharing import forward
from mtl_jax.training.run import Run
from tests import tiny

ARCHITECTURES = (
    "hard", "hard(shared_stages=1)", "independent", "fully_shared", "cross_stitch", "sluice", "nddr", "mtan",
    "mmoe(experts=3)", "cgc", "ple", "dselect_k(experts=3)", "film", "adapters", "task_embedding",
    "soft", "go_mtl(latent=2)", "dmtrl(latent=2, rank=3)",
)  # fmt: skip
DROPOUT = "mlp(features=(8, 6), norm='batch', dropout=0.3)"


class Token(nn.Module):
    """A dense map at every position of a sequence."""

    width: int

    @nn.compact
    def __call__(self, x, *, train):
        return with_values(x, nn.tanh(nn.Dense(self.width, name="dense")(values_of(x))))


class Mean(nn.Module):
    """A sequence to its mean over the positions that the mask keeps."""

    def __call__(self, x, *, train):
        mask = x["mask"][..., None]
        return jnp.where(mask, x["values"], 0).sum(1) / mask.sum(1)


SEQUENCE = Encoder((Token(4), Token(6)), Mean())


def sequences(padding):
    """Rows of lengths 1 to 4 of 5 positions, with `padding` behind them."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)
    mask = jnp.arange(5) < jnp.arange(1, 5)[:, None]
    return mtl.Batch({"values": jnp.where(mask[..., None], values, padding), "mask": mask}, {}, {})


def drawn(model, batch, scale=0.5):
    """Variables of the model's shapes with numbers of our own: no gradient is zero by the way that parameters start."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
    return jax.tree.map(lambda x: (scale * draw.normal(size=x.shape)).astype(x.dtype), shapes)


def test_the_table_lists_every_architecture():
    assert {text.split("(")[0] for text in ARCHITECTURES} == set(sharing.NAMES)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_the_engine_and_the_invariant(text):
    """Against reverse mode through the whole model in float64; a leaf under tasks/<t> has no other task's gradient."""
    data = tiny.data()
    model = tiny.model(data.tasks, text, DROPOUT)
    with jax.enable_x64(True):
        batch, key = tiny.double(tiny.batch(12)), jax.random.key(2)
        variables = tiny.double(drawn(model, batch))

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
            assert np.abs(rows[index]).max() > 0, path


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_order_new_tasks_and_padding_change_nothing(text):
    """Reordered tasks have the same outputs; a task more leaves the others' first parameters; padding is not read."""
    tasks = list(tiny.data().tasks)
    key, plain, other = jax.random.key(0), sequences(0.0), sequences(7.0)

    @jax.jit
    def start():
        model, back = (sharing.build(text, SEQUENCE, chosen) for chosen in (tasks, tasks[::-1]))
        variables, more = model.init(key, plain), sharing.build(text, SEQUENCE, [mtl.Task("new", "binary"), *tasks])
        outputs = [forward(model, variables, batch)[0] for batch in (plain, other)]
        return (
            variables["params"]["tasks"],
            more.init(key, plain)["params"]["tasks"],
            *outputs,
            forward(back, back.init(key, plain), plain)[0],
        )

    own, more, outputs, padded, reordered = start()
    for t in tasks:
        np.testing.assert_allclose(reordered[t.name], outputs[t.name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(padded[t.name], outputs[t.name], rtol=1e-5, atol=1e-6)
        assert np.isfinite(outputs[t.name]).all() and np.std(outputs[t.name], 0).min() > 0
        if t.name in own:
            tiny.assert_same(more[t.name], own[t.name])


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_it_is_saved_and_comes_back(text, tmp_path):
    """Parameters and statistics, to the bit, on images; a pass of them keeps the state's structure."""
    tasks, images = tiny.data().tasks, mtl.Batch(np.ones((3, 8, 8, 1), np.float32), {}, {})
    model = sharing.build(text, mtl.encoders.cnn(features=(2, 4), norm="batch"), tasks)
    variables = drawn(model, images)
    Run(model, tasks, variables, [], images).save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    assert loaded.model.spec == model.spec and loaded.tasks == tasks
    tiny.assert_same(loaded.variables, variables)
    outputs, state, _ = jax.eval_shape(lambda v: forward(loaded.model, v, images, train=True), variables)
    assert outputs["color"].shape == (3, 3) and jax.tree.structure(state) == jax.tree.structure(variables["state"])


@pytest.mark.parametrize("text, balancer", [("ple", "upgrad"), ("nddr", "graddrop"), ("soft(weight=0.01)", "equal")])
def test_it_trains(text, balancer):
    """With missing labels, and statistics per task."""
    run = tiny.fit(tiny.model(tiny.data().tasks, text, tiny.BATCH_NORM), balancer=balancer, num_steps=60, log_every=10)
    train = [r for r in run.history if r["split"] == "train"]
    assert sum(train[-1]["losses"].values()) < 0.9 * sum(train[0]["losses"].values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))


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

"""A table of architectures x properties: the engine agrees, no task reaches another's leaves, order does not matter."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition, sharing
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.sharing import forward
from mtl_jax.training.run import Run
from tests import tiny
from tests.sharing.test_funnels import ARCHITECTURES as FUNNELS
from tests.sharing.test_graphs import ARCHITECTURES as GRAPHS

ARCHITECTURES = (
    "hard", "hard(shared_stages=1)", "independent", "fully_shared", "cross_stitch", "sluice", "nddr", "mtan",
    "mmoe(experts=3)", "cgc", "ple", "dselect_k(experts=3)", "film", "adapters", "task_embedding",
    "hypernetwork(size=3, width=2)", "task_routing(sigma=0.7)", "soft", "taps", "go_mtl(latent=2)",
    "dmtrl(latent=2, rank=3)",
)  # fmt: skip
DROPOUT = "mlp(features=(8, 6), norm='batch', dropout=0.3)"
TWO = tiny.data().tasks[:2]
quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiling is what takes time


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
    """Rows of lengths 1 to 4 of 5 positions, with `padding` after them."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)
    mask = jnp.arange(5) < jnp.arange(1, 5)[:, None]
    return mtl.Batch({"values": jnp.where(mask[..., None], values, padding), "mask": mask}, {}, {})


def drawn(model, batch, scale=0.5):
    """Variables of the model's shapes with numbers of our own: no gradient is zero by the way that parameters start."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
    numbers = jax.tree.map(lambda x: np.asarray(scale * draw.normal(size=x.shape), x.dtype), shapes)
    for own in numbers["params"]["tasks"].values():
        if "scores" in own:  # a gate that is closed keeps every gradient from what comes after it
            own["scores"] = jax.tree.map(lambda x: np.asarray(abs(x) + 0.2, x.dtype), own["scores"])
    return numbers


def test_the_tables_list_every_architecture():
    assert {text.split("(")[0] for text in (*ARCHITECTURES, *GRAPHS, *FUNNELS)} == set(sharing.NAMES)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_the_engine_and_the_invariant(text):
    """Against reverse mode through the whole model in float64; a leaf under tasks/<t> has no other task's gradient."""
    model = tiny.model(TWO, text, DROPOUT)
    with jax.enable_x64(True):
        batch, key = tiny.double(tiny.batch(12)), jax.random.key(2)
        variables = tiny.double(drawn(model, batch))

        @quick
        def both(variables):
            reference = reference_jacobian(model, variables, batch, rng=key)
            line = linearize(model, variables, batch, rng=key)
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
    tasks, new = list(TWO), mtl.Task("new", "binary")
    key, plain, other = jax.random.key(0), sequences(0.0), sequences(7.0)

    @quick
    def start():
        model, back, bigger = (sharing.build(text, SEQUENCE, t) for t in (tasks, tasks[::-1], [new, *tasks]))
        variables = model.init(key, plain)
        outputs = [forward(model, variables, batch)[0] for batch in (plain, other)]
        reordered = forward(back, back.init(key, plain), plain)[0]
        return variables["params"]["tasks"], bigger.init(key, plain)["params"]["tasks"], *outputs, reordered

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
    outputs, state, _ = jax.eval_shape(lambda v, b: forward(loaded.model, v, b, train=True), variables, images)
    assert outputs["color"].shape == (3, 3) and jax.tree.structure(state) == jax.tree.structure(variables["state"])


@pytest.mark.parametrize("text, balancer", [("cgc", "upgrad"), ("soft(weight=0.01)", "equal")])
def test_it_trains(text, balancer):
    """With missing labels, and statistics per task; shares of the experts are in the records."""
    run = tiny.fit(tiny.model(tiny.data().tasks, text, tiny.BATCH_NORM), balancer=balancer, num_steps=60, log_every=10)
    train = [r for r in run.history if r["split"] == "train"]
    assert sum(train[-1]["losses"].values()) < 0.9 * sum(train[0]["losses"].values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.variables))
    if text == "cgc":
        shares = [train[-1][f"aux/load/sold/{expert}"] for expert in ("own_0", "shared_0", "shared_1")]
        np.testing.assert_allclose(sum(shares), 1, rtol=1e-5)

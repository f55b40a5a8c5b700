"""The ensemble of thin members: what a member is, that each learns by itself, and what their common prediction is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import heads, partition, predictions, tasks
from mtl_jax.encoders import base
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.members import Members
from mtl_jax.sharing import forward
from tests import tiny
from tests.encoders.drawing import run, variables

TEXT = "tabm(features=(8, 6), members=3, width=4, bins=4, dropout=0.0)"
TABLE = {
    "numbers": jnp.asarray([[1.0, jnp.nan], [2.0, 3.0], [jnp.nan, -1.0]]),
    "categories": jnp.asarray([[0], [-1], [2]]),
}
DRAW = np.random.default_rng(0)


def test_a_member_is_an_mlp_with_scaled_weights():
    """Source: member i alone in NumPy, a plain MLP whose kernels are r_i K s_i (Wen et al. 2020, equation 1)."""
    encoder = mtl.encoders.tabm((5, 4), (3,), members=3, embedding=2, width=2, bins=4)
    params, _ = variables(encoder, TABLE)
    found, _ = run(encoder, TABLE)
    columns = encoder.stages[0].columns.apply({"params": params["stage_0"]["columns"]}, TABLE)
    for i in range(3):
        x = np.asarray(columns)
        for stage in (params["stage_0"]["layer"], params["stage_1"]):
            kernel = stage["scale_in"][i][:, None] * stage["dense"]["kernel"] * stage["scale_out"][i]
            x = np.maximum(x @ kernel + stage["bias"][i], 0)
        np.testing.assert_allclose(found[:, i], x, rtol=1e-4, atol=1e-5)


def test_where_members_start():
    """Alike but for the first scales, a sign per column; a plain number and its indicator are columns of their own."""
    for numbers, widths in (("piecewise", (4, 4, 2)), ("plain", (1, 1, 1, 1, 2))):
        encoder = mtl.encoders.tabm((5, 4), (3,), members=6, embedding=2, numbers=numbers, width=4, bins=4)
        params, _, _ = base.init_layers(base.layers(encoder), jax.random.key(0), TABLE, "e")
        first = np.asarray(params["stage_0"]["layer"]["scale_in"])
        assert first.shape == (6, sum(widths))
        parts = np.split(first, np.cumsum(widths)[:-1], 1)
        assert all((np.ptp(part, 1) == 0).all() for part in parts)
        assert set(np.unique(first)) == {-1, 1} and len(np.unique(first, axis=0)) > 2
        for stage in (params["stage_0"]["layer"], params["stage_1"]):
            assert (stage["scale_out"] == 1).all() and (stage["bias"] == 0).all()
        assert (params["stage_1"]["scale_in"] == 1).all()


def test_heads_are_the_members_own():
    """Source: each member's features times its own kernel; leaves keep the paths of a plain head's."""
    task = tasks.Task("a", "classification", 3, head="vector(hidden=(7,), activation='tanh')")
    x = jnp.asarray(DRAW.normal(size=(2, 4, 5)), jnp.float32)
    outputs, made = heads.build(task, 4).init_with_output(jax.random.key(0), x, train=False)
    params = made["params"]
    plain = heads.build(task).init(jax.random.key(0), x[:, 0], train=False)["params"]
    assert partition.flatten(params).keys() == partition.flatten(plain).keys()
    for i in range(4):
        hidden = np.tanh(x[:, i] @ params["hidden_0"]["kernel"][i] + params["hidden_0"]["bias"][i])
        expected = hidden @ params["out"]["kernel"][i] + params["out"]["bias"][i]
        np.testing.assert_allclose(outputs.values[:, i], expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(np.asarray(params["out"]["kernel"]).round(6))) == 4 * 7 * 3
    with pytest.raises(ValueError, match="task 'a': an encoder with members gives vectors, and kind 'tagging'"):
        heads.build(tasks.Task("a", "tagging", 3), 4)
    with pytest.raises(ValueError, match=r"heads of 4 members read features \[B, 4, width\], not \(2, 5\)"):
        heads.build(task, 4).init(jax.random.key(0), x[:, 0], train=False)


def members(*shape):
    return Members(jnp.asarray(DRAW.normal(size=shape), jnp.float32))


@pytest.mark.parametrize(
    "task, target",
    [
        (tasks.Task("a", "classification", 3), np.array([0, 2, 1, 1])),
        (tasks.Task("a", "binary"), np.array([0.0, 1, 1, 0])),
        (tasks.Task("a", "multilabel", 2), np.array([[0.0, 1], [1, 1], [0, 0], [1, 0]])),
        (tasks.Task("a", "regression", scaler=tasks.Scaler((5.0,), (2.0,))), np.array([4.0, 6, 5, 9])),
        (tasks.Task("a", "quantile", quantiles=(0.1, 0.9)), np.array([0.0, 1, 2, -1])),
    ],
)
def test_losses_are_averaged_and_predictions_are(task, target):
    """Source: the same functions on every member alone. What metrics read is what is predicted."""
    shape = (4, 3) if task.size is None else (4, 3, task.size)
    outputs, mask, target = members(*shape), jnp.array([True, True, False, True]), jnp.asarray(target)
    alone = [tasks.loss_sum(task, outputs.values[:, i], target, mask) for i in range(3)]
    total, count = tasks.loss_sum(task, outputs, target, mask)
    np.testing.assert_allclose(total, np.mean([s for s, _ in alone]), rtol=1e-5)
    assert count == alone[0][1]
    found = predictions.prediction(task, outputs)
    expected = np.mean([predictions.prediction(task, outputs.values[:, i]) for i in range(3)], 0)
    if task.kind != "quantile":  # means of quantiles are sorted, not the means of sorted ones
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    one = predictions.one_output(task, outputs)
    np.testing.assert_allclose(predictions.prediction(task, one), found, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predictions.readable(task, one), predictions.readable(task, outputs), rtol=1e-6)


def test_joined_logits_neither_overflow_nor_vanish():
    """Logits of +-200, whose probabilities are 0 and 1 in float32, keep a finite common logit."""
    for task, values in (("binary", [[200.0, 200.0], [-200.0, 200.0], [-200.0, -200.0]]),):
        one = predictions.one_output(tasks.Task("a", task), Members(jnp.asarray(values)))
        np.testing.assert_allclose(one, [200, 0, -200], atol=1e-3)


SLOW = [pytest.param(s, marks=pytest.mark.slow) for s in ("mmoe(experts=2)", "mtan", "cooperative", "fully_shared")]


@pytest.mark.parametrize("sharing", ["hard", "cross_stitch", *SLOW])
def test_every_mode_of_the_engine_agrees_with_reverse_mode(sharing):
    """Source: `jax.jacrev` of the losses, of models on which the cotangents at outputs are members'."""
    source = tiny.data()
    model = tiny.model(source.tasks, sharing, TEXT)
    shapes = jax.eval_shape(lambda: tiny.init(model, tiny.batch(2)))
    draws = jax.tree.map(lambda x: DRAW.normal(size=x.shape) * 0.5 if x.dtype == jnp.float32 else x, shapes)
    if sharing == "mtan":  # variances are positive
        draws["state"] = jax.tree.map(np.abs, draws["state"])
    modes = ("map", "vmap", "layers", "columns") if sharing == "hard" else ("map", "columns")

    @jax.jit
    def gramians(drawn, batch):
        _, jacobian = reference_jacobian(model, drawn, batch, tasks=source.tasks)
        shared = [x.reshape(3, -1) for p, x in jacobian.items() if partition.owner(p) == "shared"]
        rows = jnp.concatenate(shared, 1)
        return rows @ rows.T, [linearize(model, drawn, batch, mode=m, tasks=source.tasks).gramian() for m in modes]

    with jax.enable_x64(True):
        expected, found = gramians(tiny.double(draws), tiny.double(tiny.batch(12)))
        for mode, gram in zip(modes, found, strict=True):
            np.testing.assert_allclose(gram, expected, rtol=1e-6, err_msg=mode)


def test_every_member_learns_by_itself():
    """Each head's gradient is a third of what its member alone would get, whatever the others put out."""
    source = tiny.data()
    model, batch = tiny.model(source.tasks, "hard", TEXT), tiny.batch(12)
    drawn = model.init(jax.random.key(1), batch)

    def own(member=None):
        def loss(params):
            outputs, _, _ = forward(model, {**drawn, "params": params}, batch)
            if member is not None:
                outputs = {t: x.values[:, member] for t, x in outputs.items()}
            sums, counts = tasks.task_losses(source.tasks, outputs, batch)
            return (sums / counts).sum()

        return jax.jit(jax.grad(loss))(drawn["params"])

    whole, alone = own(), [own(i) for i in range(3)]
    for path, gradient in partition.flatten(whole["tasks"]).items():
        for i in range(3):
            single = np.asarray(partition.flatten(alone[i]["tasks"])[path])
            np.testing.assert_allclose(3 * gradient[i], single[i], rtol=1e-4, atol=1e-6)
            assert (np.asarray(gradient[i]) != 0).any() and (np.delete(single, i, 0) == 0).all()
    scales = np.asarray(whole["shared"]["encoder"]["stage_1"]["scale_out"])
    assert (scales != 0).any(1).all()


def test_a_run_of_members(tmp_path):
    """Fits, predicts the mean of its members, measures that, and comes back from disk; UPGrad runs too."""
    source = tiny.data()
    model = tiny.model(source.tasks, "hard", TEXT)
    run = tiny.fit(model, balancer="upgrad")
    outputs, _, _ = forward(model, run.variables, jax.tree.map(jnp.asarray, source.test))
    found = run.predict(source.test.inputs)
    np.testing.assert_allclose(
        found["color"], jax.nn.softmax(outputs["color"].values, -1).mean(1), rtol=1e-4, atol=1e-6
    )
    scaler = {t.name: t.scaler for t in run.tasks}["price"]
    price = scaler.unscale(outputs["price"].values).mean(1)
    np.testing.assert_allclose(found["price"], price, rtol=1e-4)
    y, mask = source.test.targets["price"], source.test.masks["price"]
    measured = run.evaluate(source.test)["price"]
    np.testing.assert_allclose(measured["rmse"], np.sqrt(np.mean((price - y)[mask] ** 2)), rtol=1e-3)
    np.testing.assert_allclose(measured["loss"], np.mean((scaler.scale(price) - scaler.scale(y))[mask] ** 2), rtol=1e-3)
    run.save(tmp_path / "run")
    tiny.assert_same(mtl.load_run(tmp_path / "run").predict(source.test.inputs), found)

"""What a task does to a common trunk: masks, generated adapters, weights and stages of its own, by their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import mtl_jax as mtl
from mtl_jax import partition, sharing
from mtl_jax.sharing import forward
from mtl_jax.sharing.taps import gate
from tests import tiny
from tests.sharing.test_architectures import TWO, drawn, quick
from tests.sharing.test_graphs import close, dense

NAMES = [t.name for t in TWO]


def outputs_of(model, variables, batch, **arguments):
    return quick(lambda v: forward(model, v, batch, **arguments)[0])(variables)


def numbers(text, encoder="mlp(features=(8, 6))"):
    """(model, variables with numbers of our own, their params as NumPy, a batch)."""
    model, batch = tiny.model(TWO, text, encoder), tiny.batch(6)
    variables = drawn(model, batch)
    return model, variables, jax.tree.map(np.asarray, variables["params"]), batch


# --- task routing ----------------------------------------------------------------------------------------------------


def test_routing_masks_stay_as_they_were_drawn():
    """Shares as asked for; masks differ by task and seed and not by training; a channel that is off is never read."""
    encoder = "mlp(features=(40, 30))"
    model, batch = tiny.model(TWO, "task_routing(sigma=0.3)", encoder), tiny.batch(6)
    variables = quick(model.init)(jax.random.key(0), batch)
    masks = {t: [np.asarray(m) for m in jax.tree.leaves(variables["state"]["tasks"][t]["routing"])] for t in NAMES}
    assert [m.sum() for t in NAMES for m in masks[t]] == [12, 9, 12, 9]
    assert all((a != b).any() for a, b in zip(masks["color"], masks["price"], strict=True))
    other = quick(model.init)(jax.random.key(1), batch)["state"]["tasks"]["color"]["routing"]
    assert any((a != b).any() for a, b in zip(masks["color"], jax.tree.leaves(other), strict=True))
    few = tiny.model(TWO, "task_routing(sigma=0.01)", encoder)
    state = jax.tree.leaves(quick(few.init)(jax.random.key(0), batch)["state"])
    assert [m.sum() for m in state] == [1] * 4

    params, x = jax.tree.map(np.asarray, variables["params"]), np.asarray(batch.inputs)
    for stage, kept in zip(params["shared"]["encoder"].values(), masks["price"], strict=True):
        x = np.maximum(dense(stage["dense"], x), 0) * kept
    close(outputs_of(model, variables, batch)["price"], dense(params["tasks"]["price"]["head"]["out"], x)[:, 0])

    run = tiny.fit(tiny.model(tiny.data().tasks, "task_routing", encoder), num_steps=5, eval_every=5)
    start = tiny.fit(tiny.model(tiny.data().tasks, "task_routing", encoder), num_steps=5, eval_every=5, optimizer="sgd(1e-30)")  # fmt: skip  # noqa: E501
    tiny.assert_same(run.variables["state"], start.variables["state"])


# --- hypernetwork ----------------------------------------------------------------------------------------------------


def test_generated_adapters_by_their_formula():
    """x + (W e) norm(tanh(x D(e)) U(e)) + V e after both stages, D, U linear in e."""
    text = "hypernetwork(size=3, width=2, activation='tanh')"
    model, variables, params, batch = numbers(text)
    own, x = params["tasks"]["price"], np.asarray(batch.inputs)
    for stage, maps in zip(params["shared"]["encoder"], params["shared"]["hypernetwork"].values(), strict=True):
        x = np.maximum(dense(params["shared"]["encoder"][stage]["dense"], x), 0)
        down, up, scale, shift = (np.tensordot(own["embedding"], maps[n], 1) for n in ("down", "up", "scale", "shift"))
        inner = np.tanh(x @ down) @ up
        inner = (inner - inner.mean(-1, keepdims=True)) / np.sqrt(inner.var(-1, keepdims=True) + 1e-6)
        x = x + scale * inner + shift
    close(outputs_of(model, variables, batch)["price"], dense(own["head"]["out"], x)[:, 0])


def test_generated_weights_start_with_the_variance_of_a_layers_own():
    """1 / fan-in, over vectors; within five standard errors."""
    model, batch = tiny.model(TWO, "hypernetwork(size=50, width=40)", "mlp(features=(60,))"), tiny.batch(4)
    maps = quick(model.init)(jax.random.key(0), batch)["params"]["shared"]["hypernetwork"]["stage_0"]
    vectors = np.random.default_rng(0).normal(size=(20, 50))
    for name, inputs in (("down", 60), ("up", 40)):
        made = np.tensordot(vectors, np.asarray(maps[name]), 1)
        np.testing.assert_allclose(inputs * made.var(), 1, atol=0.25)
    assert not np.asarray(maps["scale"]).any() and not np.asarray(maps["shift"]).any()


# --- TAPS ------------------------------------------------------------------------------------------------------------


def test_the_gate_is_a_step_with_slope_one():
    values, slopes = jax.vmap(jax.value_and_grad(lambda s: gate(s, 0.1)))(jnp.asarray([-3.0, 0.0999, 0.1, 0.7]))
    np.testing.assert_array_equal(values, [0, 0, 1, 1])
    np.testing.assert_array_equal(slopes, [1, 1, 1, 1])


def test_open_layers_are_a_tasks_own_and_closed_ones_shared():
    """In NumPy, one layer open and one closed; gradients of scores by the formula <dL/dW, D>, closed or not."""
    model, variables, params, batch = numbers("taps(threshold=0.3)")
    own = variables["params"]["tasks"]["price"]
    own["scores"]["stage_0"]["dense"]["kernel"] = np.float32(0.31)
    own["scores"]["stage_1"]["dense"]["kernel"] = np.float32(0.29)
    own, encoder = jax.tree.map(np.asarray, own), params["shared"]["encoder"]
    bias = [own["encoder"][f"stage_{i}"]["dense"]["bias"] for i in range(2)]
    kernel = encoder["stage_0"]["dense"]["kernel"] + own["deltas"]["stage_0"]["dense"]["kernel"]
    first = np.maximum(np.asarray(batch.inputs) @ kernel + bias[0], 0)
    second = first @ encoder["stage_1"]["dense"]["kernel"] + bias[1]
    close(outputs_of(model, variables, batch)["price"], dense(own["head"]["out"], np.maximum(second, 0))[:, 0])

    gradient = quick(jax.grad(lambda p: forward(model, {**variables, "params": p}, batch)[0]["price"].sum()))
    slopes = gradient(variables["params"])
    backward = (second > 0) * own["head"]["out"]["kernel"][:, 0]
    delta = own["deltas"]["stage_1"]["dense"]["kernel"]
    close(slopes["tasks"]["price"]["scores"]["stage_1"]["dense"]["kernel"], (first.T @ backward * delta).sum())
    assert not np.asarray(slopes["tasks"]["price"]["deltas"]["stage_1"]["dense"]["kernel"]).any()
    scores = [np.asarray(jax.tree.leaves(variables["params"]["tasks"][t]["scores"])) for t in NAMES]
    np.testing.assert_allclose(model.penalty(variables), 0.1 * sum(np.abs(s).mean() for s in scores), rtol=1e-6)


def test_taps_starts_as_hard_sharing_and_sparsity_closes_its_gates():
    model, batch = tiny.model(TWO, "taps"), tiny.batch(6)
    hard = tiny.model(TWO, "hard")
    first, simple = (quick(m.init)(jax.random.key(0), batch) for m in (model, hard))
    tiny.assert_close(outputs_of(model, first, batch), outputs_of(hard, simple, batch), rtol=1e-6)
    tasks = tiny.data().tasks
    open_layers = {}
    for sparsity in (0.0, 10.0):
        run = tiny.fit(tiny.model(tasks, f"taps(sparsity={sparsity})"), num_steps=40)
        scores = jax.tree.leaves([own["scores"] for own in run.params["tasks"].values()])
        open_layers[sparsity] = np.sum(np.asarray(scores) >= 0.1)
    assert open_layers[10.0] == 0 and open_layers[0.0] > 0


# --- AdaShare --------------------------------------------------------------------------------------------------------


def with_policy(variables, task, **logits):
    """The variables with other logits of a task's policy, by stage."""
    policy = {stage: {"logits": np.asarray(value, np.float32)} for stage, value in logits.items()}
    own = {**variables["params"]["tasks"][task], "policy": policy}
    return {**variables, "params": {**variables["params"], "tasks": {**variables["params"]["tasks"], task: own}}}


def test_skipped_stages_are_identities_where_shapes_allow():
    """In NumPy: stage 1 keeps the width and is skipped; stage 2 has a map around it; both tasks choose otherwise."""
    model, variables, params, batch = numbers("adashare", "mlp(features=(8, 8, 6))")
    assert set(params["shared"]["shortcuts"]) == {"stage_2"}
    variables = with_policy(variables, "price", stage_1=(0, 1), stage_2=(0, 1))
    variables = with_policy(variables, "color", stage_1=(1, 0), stage_2=(0, 0))
    stages = [p["dense"] for p in params["shared"]["encoder"].values()]
    x = np.maximum(dense(stages[0], np.asarray(batch.inputs)), 0)
    outputs = outputs_of(model, variables, batch)
    around = x @ params["shared"]["shortcuts"]["stage_2"]["map"]["kernel"]
    close(outputs["price"], dense(params["tasks"]["price"]["head"]["out"], around)[:, 0])
    for stage in stages[1:]:
        x = np.maximum(dense(stage, x), 0)
    close(outputs["color"], dense(params["tasks"]["color"]["head"]["out"], x))


def test_draws_follow_the_policy_and_the_temperature_falls():
    """Near temperature 0, u is 1 as often as softmax(logits) says, within five standard deviations (Gumbel-max)."""
    tasks, count = [mtl.Task("a", "regression")], 3000
    text = "adashare(temperature=4.0, final_temperature=1e-3, anneal_steps=2)"
    model = sharing.build(text, mtl.encoders.mlp(features=(1, 1)), tasks)
    batch = mtl.Batch(jnp.ones((1, 1)), {}, {})
    variables = model.init(jax.random.key(0), batch)
    encoder = variables["params"]["shared"]["encoder"]
    for i, (kernel, bias) in enumerate(((1.0, 0.0), (0.0, 2.0))):  # skipped 1, run 2
        encoder[f"stage_{i}"]["dense"] = {"kernel": jnp.full((1, 1), kernel), "bias": jnp.full(1, bias)}
    variables = with_policy(variables, "a", stage_1=np.log([0.7, 0.3]))
    heats, key = [], jax.random.key(1)
    for _ in range(4):
        state = forward(model, variables, batch, train=True, rng=key)[1]
        variables = {**variables, "state": state}
        heats.append(float(jax.tree.leaves(state)[0]))
    np.testing.assert_allclose(heats, [4 * np.sqrt(1e-3 / 4), 1e-3, 1e-3, 1e-3], rtol=1e-5)

    def one(key):
        return model.encode(variables, batch, train=True, rng=key)[0]["a"][0, 0]

    drawn_values = np.asarray(quick(jax.vmap(one))(jax.random.split(key, count)))
    assert abs((drawn_values > 1.5).mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / count)
    tiny.assert_same(forward(model, variables, batch)[1], variables["state"])


def test_penalties_of_policies_and_what_they_say():
    """Sums of the docstring, over three tasks and two stages; `policies` reads the same probabilities."""
    tasks = tiny.data().tasks
    model = tiny.model(tasks, "adashare(sparsity=0.3, sharing=0.7)", "mlp(features=(4, 4, 4))")
    variables = drawn(model, tiny.batch(4))
    own = [variables["params"]["tasks"][t.name]["policy"] for t in tasks]
    logits = np.stack([[np.asarray(p[f"stage_{i}"]["logits"]) for i in (1, 2)] for p in own])
    a = scipy.special.softmax(logits, -1)[..., 0]
    expected = 0.3 * -np.log(1 - a).sum()
    for s in range(3):
        for t in range(s):
            expected += 0.7 * (np.abs(a[s] - a[t]) * [1, 0.5]).sum()
    np.testing.assert_allclose(model.penalty(variables), expected, rtol=1e-5)
    found = sharing.policies(variables)
    np.testing.assert_allclose([list(found[t.name].values()) for t in tasks], a, rtol=1e-5)
    assert list(found["price"]) == ["stage_1", "stage_2"]
    with pytest.raises(ValueError, match="nothing under tasks/<t>/policy; policies reads an 'adashare' model"):
        sharing.policies({"params": {"shared": {}, "tasks": {"a": {"head": {}}}}})
    with pytest.raises(ValueError, match=r"several members; take one with run.member\(i\)"):
        sharing.policies(jax.tree.map(lambda x: np.stack([x, x]), variables))
    with pytest.raises(ValueError, match="adashare: the encoder has one stage, which always runs; give it more"):
        tiny.model(tasks, "adashare", "mlp(features=(4,))")


def test_a_frozen_policy_chooses_as_in_inference():
    model, variables, _, batch = numbers("adashare", "mlp(features=(8, 8))")
    still = outputs_of(model, variables, batch, train=lambda path: "policy" not in path, rng=jax.random.key(0))
    tiny.assert_close(still, outputs_of(model, variables, batch), rtol=1e-6)
    moved = outputs_of(model, variables, batch, train=True, rng=jax.random.key(0))
    assert any(np.abs(moved[t] - still[t]).max() > 1e-3 for t in NAMES)
    assert set(partition.flatten(variables["state"])) == {f"tasks/{t}/policy/stage_1/policy/temperature" for t in NAMES}

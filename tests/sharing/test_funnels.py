"""Funnels of yes/no tasks: the common properties, then ESMM's and AITM's formulas in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import mtl_jax as mtl
from mtl_jax import parallel, partition
from mtl_jax.alike import layout_of
from mtl_jax.batch import PerTask
from mtl_jax.gradients.engine import linearize
from mtl_jax.sharing import forward
from mtl_jax.sharing.aitm import calibrator
from mtl_jax.sharing.esmm import both
from tests import tiny
from tests.sharing.test_graphs import DROPOUT, check_engine, close, dense, jit, outputs_of, softmax

ARCHITECTURES = ("esmm(click='click', conversion='buy')", "aitm(funnel=('click', 'cart', 'buy'))")
SIGMOID = scipy.special.expit


@functools.cache
def source():
    """A funnel of three steps in another order, and two amounts; labels after a 0 are 0, others may be missing."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 5)).astype(np.float32)
    click = (x[:, 0] + draw.normal(size=120) > -0.5).astype(np.float32)
    cart = click * (x[:, 1] > -0.5)
    buy = cart * (x[:, 2] > -0.5)
    targets = {"buy": buy, "click": click, "age": x[:, 3] + x[:, 4], "cart": cart, "height": x[:, 4] - x[:, 1]}
    masks = {name: draw.random(120) >= 0.2 for name in targets}
    masks["cart"] |= click == 0
    masks["buy"] |= (cart == 0) | (click == 0)
    return mtl.data.from_arrays(x, targets, masks=masks, val=0.25, test=0.25)


@functools.cache
def started(text):
    """(model, its first variables, a batch)."""
    data = source()
    model, batch = tiny.model(data.tasks, text), tiny.batch(16, data)
    return model, jit(model.init)(jax.random.key(0), batch), batch


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_the_engine_and_the_invariant(text):
    _, variables, batch = started(text)
    check_engine(tiny.model(source().tasks, text, DROPOUT), variables, batch, source())


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_reordering_changes_nothing_and_adding_leaves_the_others_alone(text):
    model, variables, batch = started(text)
    tasks, key = list(model.tasks), jax.random.key(0)
    back = tiny.model(tasks[::-1], text)
    again = jit(back.init)(key, batch)
    tiny.assert_close(outputs_of(back, again, batch), outputs_of(model, variables, batch), rtol=1e-5, atol=1e-6)
    more = jit(tiny.model([mtl.Task("new", "binary"), *tasks], text).init)(key, batch)["params"]
    tiny.assert_same({t: more["tasks"][t] for t in variables["params"]["tasks"]}, variables["params"]["tasks"])
    tiny.assert_same(more["shared"], variables["params"]["shared"])


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_it_trains_is_saved_and_comes_back(text, tmp_path):
    data = source()
    run = tiny.fit(tiny.model(data.tasks, text, tiny.BATCH_NORM), data, balancer="upgrad", num_steps=60, log_every=10)
    train = [r for r in run.history if r["split"] == "train"]
    assert sum(train[-1]["losses"].values()) < 0.9 * sum(train[0]["losses"].values())
    assert ("aux/calibrator/violations" in train[-1]) == text.startswith("aitm")
    run.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    tiny.assert_same(loaded.predict(data.test.inputs), run.predict(data.test.inputs))


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_alike_tasks_as_one_are_each_by_itself(text):
    """A step in float64, in which a step of the funnel and one of two alike amounts have no labels."""
    data = source()
    model = tiny.model(data.tasks, text, DROPOUT)
    with jax.enable_x64(True):
        batch = tiny.double(tiny.without_labels(tiny.without_labels(tiny.batch(8, data), "height"), "cart"))
        batch = batch._replace(targets={n: jnp.where(batch.masks[n], y, 0) for n, y in batch.targets.items()})
        found = []
        for one in (model, model._replace(alike=None)):
            step, first = tiny.training("upgrad", data, model=one)
            found.append(jit(step)(tiny.in_double(first), batch))
        (together, record), (apart, records) = found
        groups = layout_of(model, data.tasks, first.variables, batch).groups
        assert groups["age"] == ("age", "height") and "buy" in groups
        tiny.assert_close(record, records, rtol=1e-9, atol=1e-11)
        tiny.assert_close(together._replace(key=None), apart._replace(key=None), rtol=1e-9, atol=1e-11)
        for name in ("height", "cart"):
            tiny.assert_same(together.params["tasks"][name], tiny.double(first.params["tasks"][name]))


@pytest.mark.parametrize("text, method", [(ARCHITECTURES[0], "pcgrad"), (ARCHITECTURES[1], "upgrad")])
def test_eight_devices_compute_what_one_does(text, method):
    """A step in float64, labels missing; every part of the model moves."""
    data = source()
    with jax.enable_x64(True):
        step, first = tiny.training(method, data, model=tiny.model(data.tasks, text, tiny.BATCH_NORM))
        first, batch, run, found = tiny.in_double(first), tiny.double(tiny.batch(32, data)), jit(step), []
        for devices in (1, 8):
            mesh = parallel.make_mesh(devices)
            start, rows = jax.device_put((first, batch), (parallel.replicated(mesh), parallel.split_rows(mesh)))
            found.append(run(start, rows))
        (one, record), (many, records) = found
        tiny.assert_close(many._replace(key=None), one._replace(key=None), rtol=1e-8, atol=1e-9)
        tiny.assert_close(records, record, rtol=1e-8, atol=1e-9)
        before, after = partition.flatten(first.params), partition.flatten(one.params)
        still = {p for p in before if (np.asarray(before[p]) == np.asarray(after[p])).all()}
        assert not still, still


def features(params, x):
    """Two relu stages in NumPy: the trunk's and a tower's."""
    trunk, tower = (p["dense"] for p in (params["trunk"]["stage_0"], params["tower"]["stage_1"]))
    return np.maximum(dense(tower, np.maximum(dense(trunk, x), 0)), 0)


def parts_of(variables, name):
    """The trunk, tower, transfer and head that `name` runs through."""
    params = jax.tree.map(np.asarray, variables["params"])
    shared, own = params["shared"], params["tasks"].get(name, {})
    sends = name in shared["branches"]
    return {
        "trunk": shared["encoder"], "tower": shared["branches"][name] if sends else own["encoder"],
        "head": shared["heads"][name] if name in shared.get("heads", {}) else own["head"],
        "transfer": shared.get("transfers", {}).get(name) if sends else own.get("transfer"),
    }  # fmt: skip


def test_esmm_chances_and_losses_are_the_papers():
    """pCTCVR = pCTR pCVR from two towers, and the cross-entropies of click and of click and buy, over all rows."""
    model, variables, batch = started(ARCHITECTURES[0])
    towers = [parts_of(variables, name) for name in ("click", "buy")]
    ctr, cvr = (SIGMOID(dense(p["head"]["out"], features(p, np.asarray(batch.inputs))))[:, 0] for p in towers)
    outputs = outputs_of(model, variables, batch)
    close(SIGMOID(outputs["click"]), ctr)
    close(SIGMOID(outputs["buy"]), ctr * cvr)
    losses = mtl.tasks.task_losses(model.tasks, outputs, batch)
    for name, chance in (("click", ctr), ("buy", ctr * cvr)):
        i = [t.name for t in model.tasks].index(name)
        y, mask = np.asarray(batch.targets[name]), np.asarray(batch.masks[name])
        cost = -(y * np.log(chance) + (1 - y) * np.log(1 - chance))
        np.testing.assert_allclose(losses[0][i] / losses[1][i], cost[mask].mean(), rtol=1e-5)
    assert np.asarray(batch.masks["buy"])[np.asarray(batch.targets["click"]) == 0].all()


def test_the_product_of_chances_as_a_logit():
    """Against its definition; and by hand where chances round to 0 or 1, its slopes too."""
    a, b = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32) * 3)
    np.testing.assert_allclose(SIGMOID(both(a, b)), SIGMOID(np.asarray(a)) * SIGMOID(np.asarray(b)), rtol=2e-5)
    far = jnp.asarray([-90.0, 90.0, 0.0])
    values = np.asarray([[both(x, y) for y in far] for x in far])
    expected = [[-180, -90, -90 - np.log(2)], [-90, 90 - np.log(2), 0], [-90 - np.log(2), 0, -np.log(3)]]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    slopes = np.asarray([[jax.grad(both)(x, y) for y in far] for x in far])
    np.testing.assert_allclose(slopes, [[1, 1, 1], [0, 0.5, 0], [0.5, 1, 2 / 3]], rtol=1e-5, atol=1e-6)


def test_aitm_by_its_formula():
    """z_1 = q_1, z_t from attention over what the step before passes on and q_t, along three steps."""
    model, variables, batch = started(ARCHITECTURES[1])
    outputs, before = outputs_of(model, variables, batch), None
    for name in ("click", "cart", "buy"):
        p = parts_of(variables, name)
        z = features(p, np.asarray(batch.inputs))
        if before is not None:
            u = np.stack([np.maximum(dense(p["transfer"]["info"], before), 0), z])
            h1, h2, h3 = (u @ p["transfer"][h]["kernel"] for h in ("h1", "h2", "h3"))
            w = softmax(((h2 * h3).sum(-1) / np.sqrt(6)).T)
            z = np.einsum("bu,ubw->bw", w, h1)
        close(outputs[name], dense(p["head"]["out"], z)[:, 0])
        before = z


def test_the_calibrator():
    """0.6 mean over rows of the sums of max(y_t - y_(t-1), 0)."""
    model, variables, batch = started(ARCHITECTURES[1])
    outputs, _, aux = jit(lambda v: forward(model, v, batch))(variables)
    click, cart, buy = (SIGMOID(np.asarray(outputs[n])) for n in ("click", "cart", "buy"))
    expected = (np.maximum(cart - click, 0) + np.maximum(buy - cart, 0)).mean()
    np.testing.assert_allclose(aux["losses"]["calibrator"], 0.6 * expected, rtol=1e-5)
    share = np.mean([cart > click, buy > cart])
    np.testing.assert_allclose(aux["metrics"]["calibrator/violations"], share, rtol=1e-6)
    assert 0 < share < 1
    loss, violations = calibrator([jnp.asarray([2.0, 1.0]), jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, -1.0])])
    assert loss == 0 and violations == 0

    # What the engine adds outside the balancer is its gradient, by towers, transfers and heads.
    def value(params):
        return model.encode({**variables, "params": params}, batch, train=True)[2]["losses"]["calibrator"]

    expected = partition.flatten(jit(jax.grad(value))(variables["params"]))
    extra = jit(lambda v: linearize(model, v, batch, tasks=source().tasks).extra())(variables)
    tiny.assert_close(extra, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(extra["tasks/click/head/out/kernel"]).max() > 1e-3
    without = tiny.model(source().tasks, "aitm(funnel=('click', 'cart', 'buy'), calibration=0)")
    assert without.encode(variables, batch, train=False)[2]["losses"] == {}


def test_errors():
    tasks = source().tasks
    for text, message in {
        "esmm(click='click', conversion='by')": "unknown task in esmm 'by'; did you mean 'buy'",
        "esmm(click='click', conversion='age')": "esmm: task 'age' is regression, and a step of a funnel is binary",
        "esmm(click='click', conversion='click')": "esmm: the funnel has task 'click' twice",
        "esmm(click='click', conversion='buy', shared_stages=3)": r"esmm: shared_stages=3 must lie in 1..2",
        "aitm(funnel='click')": "aitm: a funnel has two tasks at least, first to last, not 'click'",
        "aitm(funnel=('click',))": "aitm: a funnel has two tasks at least",
        "aitm(funnel=('click', 'buy'), shared_stages=2)": "aitm: shared_stages=2 leaves no stage of 2 for the towers",
        "aitm(funnel=('click', 'buy'), calibration=-1)": "aitm: calibration=-1 must not be negative",
    }.items():
        with pytest.raises(ValueError, match=message):
            tiny.model(tasks, text)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_labels_that_are_no_funnel(text):
    """Before anything is compiled: a purchase without a click, and rows without a click that have no label."""
    data, name = source(), text.split("(")[0]
    model, after = tiny.model(data.tasks, text), "buy" if name == "esmm" else "cart"
    stopped = int(np.flatnonzero((data.train.targets["click"] == 0) & data.train.masks["click"])[0])
    targets, masks = data.train.targets[after].copy(), data.train.masks[after].copy()
    targets[stopped] = 1
    wrong = data.train._replace(targets={**data.train.targets, after: targets})
    with pytest.raises(ValueError, match=f"{name}: row {stopped} of train has '{after}' 1 and 'click' 0"):
        model.check(wrong, "train")
    masks[stopped] = False
    missing = data.train._replace(masks={**data.train.masks, after: masks})
    with pytest.raises(ValueError, match=f"{name}: 1 rows of train have 'click' 0 and no label of '{after}'"):
        tiny.fit(model, dataclasses.replace(data, train=missing))


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_inputs_of_each_tasks_own_are_refused(text):
    model, _, batch = started(text)
    own = batch._replace(inputs=PerTask({t.name: batch.inputs for t in model.tasks}))
    with pytest.raises(ValueError, match=f"sharing '{text.split('(')[0]}' takes inputs in common; each task's own go"):
        tiny.init(model, own)

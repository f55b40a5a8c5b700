"""Alike tasks as one program: the same numbers as each by itself, for every architecture; and which tasks are alike."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax import stacked_model as stacked
from mtl_jax.alike import layout_of
from mtl_jax.batch import Batch, PerTask
from mtl_jax.keys import TaskKey, named_key, task_key
from mtl_jax.scaler import Scaler
from mtl_jax.sharing import forward, running
from mtl_jax.training.optimizers import per_owner
from mtl_jax.training.start import initial, small_batch
from tests import tiny
from tests.sharing.test_architectures import ARCHITECTURES, DROPOUT
from tests.sharing.test_graphs import ARCHITECTURES as GRAPHS

TREE = "branched(tree=((('color', 'sold', 'price', 'width'),), (('color', 'price'), ('sold',), ('width',))))"
ASKED = [t for t in GRAPHS if not t.startswith("branched")] + [TREE]
OWN = ("hard", "independent", "soft", "film", "mmoe(experts=3)", "dselect_k", "dmtrl(latent=2, rank=3)", "mtan")
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Three tasks are few, and would run beside each other."""
    monkeypatch.setattr(running, "FEW", 0)


@functools.cache
def source(own=False):
    """Three amounts on scales of their own and a yes/no between them; the second amount has no labels in a batch."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 5)).astype(np.float32)
    y = {n: (10.0**i) * (x @ draw.normal(size=5) + i) for i, n in enumerate(("color", "price", "width"))}
    targets = {"color": y["color"], "sold": (x[:, 0] > 0).astype(float), "price": y["price"], "width": y["width"]}
    rows = {"color": 40, "sold": 30, "price": 36, "width": 40}
    if own:
        inputs = PerTask({n: x[:r] + i for i, (n, r) in enumerate(rows.items())})
        return mtl.data.from_arrays(inputs, {n: v[: rows[n]] for n, v in targets.items()}, val=0.25)
    return mtl.data.from_arrays(x, targets, val=0.25)


def both(text, own):
    """(step and first state of alike tasks as one, of each by itself, a batch), in float64."""
    data = source(own)
    model = tiny.model(data.tasks, text, DROPOUT)
    given = tiny.without_labels(tiny.batch(8, data), "price")
    given = tiny.double(given._replace(targets={n: jnp.where(given.masks[n], y, 0) for n, y in given.targets.items()}))
    shared = jax.tree.leaves(tiny.init(model, tiny.batch(4, data))["params"]["shared"])
    method = "upgrad" if shared else "equal"
    made = [tiny.training(method, data, model=m) for m in (model, model._replace(alike=None))]
    return [(step, tiny.in_double(first)) for step, first in made], given, model, data


CASES = [(t, False) for t in (*ARCHITECTURES, *ASKED)] + [(t, True) for t in OWN]
# One of each way of sharing; and of their outputs, which a step has but for those of the absent task, fewer.
STEPS = {("hard(shared_stages=1)", False), ("cross_stitch", False), ("mmoe(experts=3)", False), ("film", False),
         ("learning_to_branch(copies=2)", False), (TREE, False), ("hard", True), ("dselect_k", True)}  # fmt: skip
OUTPUTS = {("cross_stitch", False), ("film", False), ("hard", True)}


def some_now(now):
    """All cases, of which those but `now` are left to `-m slow`."""
    assert now <= set(CASES)
    return [c if c in now else pytest.param(*c, marks=pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize("text, own", some_now(STEPS))
def test_alike_tasks_as_one_are_each_by_itself(text, own):
    """Gradients and a step of a stateful optimizer, with a task without labels in the middle of its group."""
    with jax.enable_x64(True):
        runs, given, model, data = both(text, own)
        layout = layout_of(model, data.tasks, runs[0][1].variables, given)
        if text in ARCHITECTURES:
            assert layout.groups == {"color": ("color", "price", "width"), "sold": ("sold",)}
        found = [quick(step)(first, given) for step, first in runs]
        (one, record), (apart, records) = found
        tiny.assert_close(record, records, rtol=1e-8, atol=1e-9)
        tiny.assert_close(one._replace(key=None), apart._replace(key=None), rtol=1e-8, atol=1e-9)
        before = runs[0][1]
        for kind in ("params", "state"):  # the absent task stands still
            tasks = getattr(one, kind)["tasks"]
            if "price" in tasks:
                tiny.assert_same(tasks["price"], getattr(before, kind)["tasks"]["price"])


@pytest.mark.parametrize("text, own", some_now(OUTPUTS))
def test_outputs_of_alike_tasks_as_one_are_those_of_each_by_itself(text, own):
    """And their new state; in training, of all tasks."""
    with jax.enable_x64(True):
        runs, given, model, data = both(text, own)
        layout = layout_of(model, data.tasks, runs[0][1].variables, given)
        variables, key = runs[0][1].variables, jax.random.key(3)
        plain, state, _ = quick(lambda v: forward(model, v, given, train=True, rng=key))(variables)

        def whole(variables):
            outputs, state = stacked.forward(
                model, layout, layout.stack_variables(variables), layout.stack_batch(given), train=True, rng=key
            )
            return layout.unstack(outputs), layout.unstack(state["tasks"])

        outputs, own_state = quick(whole)(variables)
        tiny.assert_close(outputs, plain, rtol=1e-8, atol=1e-9)
        tiny.assert_close(own_state, dict(state["tasks"]), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    ["cascade(order=('color', 'price', 'width'))", "adashare", "hypernetwork", "task_routing", "cgc",
     "branched(tree=((('color', 'sold'), ('price', 'width')), (('color',), ('sold',), ('price',), ('width',))))",
     *(pytest.param(t, marks=pytest.mark.slow) for t in ("taps", "ple"))],
)  # fmt: skip
def test_on_their_own_inputs_as_one_or_by_themselves(text):
    """Tasks may read different copies of what is shared, and draw noise in modules of their own."""
    data = source(True)
    model = tiny.model(data.tasks, text, DROPOUT)
    batch, key = tiny.batch(8, data), jax.random.key(1)
    variables = tiny.init(model, batch)
    layout = layout_of(model, data.tasks, variables, batch)
    if not text.startswith(("cascade", "branched")):  # whose tasks have an order
        assert layout.groups == {"color": ("color", "price", "width"), "sold": ("sold",)}
    expected = quick(lambda v: forward(model, v, batch, train=True, rng=key)[0])(variables)

    def together(variables):
        stood = layout.stack_variables(variables), layout.stack_batch(batch)
        return layout.unstack(stacked.forward(model, layout, *stood, train=True, rng=key)[0])

    tiny.assert_close(quick(together)(variables), expected, rtol=1e-4, atol=1e-5)


STARTS = ("hard(shared_stages=1)", "independent", "cross_stitch", "mtan", "mmoe(experts=3)", "ple", "film", "adapters",
          "hypernetwork(size=3, width=2)", "taps", "dmtrl(latent=2, rank=3)")  # fmt: skip


@pytest.mark.parametrize("text, own", [
    *(pytest.param(t, False, marks=() if t in STARTS else pytest.mark.slow) for t in ARCHITECTURES), ("film", True),
    pytest.param("hard", True, marks=pytest.mark.slow),
])  # fmt: skip
def test_alike_tasks_start_as_each_by_itself(text, own):
    """What a seed gives each task does not depend on how many are initialised at once."""
    data = source(own)
    model, example = tiny.model(data.tasks, text, DROPOUT), small_batch(data.train)
    first, key = initial(model, example, {}), jax.random.key(5)
    plain = model.init(key, example)
    tiny.assert_same(first.named(first.make(key, {}), False), plain)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first.shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), plain)


def looking(tasks, width=4):
    """Each task masks the inputs before a trunk in common reads them."""

    def shared(key, x):
        return {"w": jax.random.normal(key, (x.shape[1], width)), "b": jnp.zeros(width)}

    def own(key, x, task):
        return {"look": jax.random.normal(key, x.shape[1:]), "w": jnp.ones((width, task.size or 1))}

    def features(shared, own, x):
        return jnp.tanh(x * own["look"] @ shared["w"] + shared["b"])

    def outputs(own, x, task):
        return x @ own["w"] if task.size else (x @ own["w"])[:, 0]

    return mtl.sharing.one_task(tasks, shared, own, features, outputs)


@pytest.mark.parametrize("own", [False, True])
def test_an_architecture_said_for_one_task(own):
    """It runs alike tasks as one, with the numbers of each by itself; against the same written out in NumPy."""
    data = source(own)
    model = looking(data.tasks)
    example = small_batch(data.train)
    variables = model.init(jax.random.key(0), example)
    found = layout_of(model, data.tasks, variables, example)
    assert found.groups == {"color": ("color", "price", "width"), "sold": ("sold",)}
    with jax.enable_x64(True):
        given = tiny.double(tiny.batch(8, data))
        made = [tiny.training("upgrad", data, model=m) for m in (model, model._replace(alike=None))]
        (one, _), (apart, _) = (quick(step)(tiny.in_double(first), given) for step, first in made)
        tiny.assert_close(one._replace(key=None), apart._replace(key=None), rtol=1e-8, atol=1e-9)
    run = tiny.fit(model, data, balancer="upgrad")
    x = np.asarray(data.val.inputs["price"] if own else data.val.inputs)
    params = jax.tree.map(np.asarray, run.params)
    mine, common = params["tasks"]["price"], params["shared"]
    expected = (np.tanh(x * mine["look"] @ common["w"] + common["b"]) @ mine["w"])[:, 0]
    scaler = dict(zip(found.names, data.tasks, strict=True))["price"].scaler
    np.testing.assert_allclose(run.predict(data.val.inputs)["price"], scaler.unscale(expected), rtol=1e-4)


def layout(tasks, model=None, batch=None, **options):
    """How tasks lie in a model on common inputs."""
    batch = batch or Batch(np.zeros((4, 5), np.float32), {}, {})
    model = model or tiny.model(tasks)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
    found = layout_of(model, tasks, variables, batch, **options)
    return list(found.groups.values())


def amounts(*names, **more):
    return tuple(mtl.Task(n, "regression", **more) for n in names)


def test_which_tasks_are_alike():
    a, b, c = amounts("a", "A", "c")
    assert layout((a, b, c)) == [("a", "A", "c")]
    assert layout((a,)) == [("a",)]
    scaled = [dataclasses.replace(t, scaler=Scaler((i,), (1.0 + i,))) for i, t in enumerate((a, b))]
    assert layout((*scaled, c)) == [("a", "A"), ("c",)]
    far = dataclasses.replace(scaled[1], scaler=Scaler((1e9,), (1.0,), (1e9,)))
    assert layout((scaled[0], far)) == [("a",), ("A",)]
    kinds = (mtl.Task("x", "classification", 3), mtl.Task("y", "classification", 4), mtl.Task("z", "classification", 3))
    assert layout(kinds) == [("x", "z"), ("y",)]
    own = dataclasses.replace(b, loss=lambda outputs, targets: jnp.abs(outputs - targets))
    assert layout((a, own, c)) == [("a", "c"), ("A",)]
    assert layout((a, dataclasses.replace(b, head="vector(hidden=(4,))"), c)) == [("a", "c"), ("A",)]
    assert layout((a, dataclasses.replace(b, metrics=("rmse",)), c)) == [("a", "c"), ("A",)]
    tags = [mtl.Task(n, "classification", classes=c) for n, c in (("x", ("no", "yes")), ("y", ("a", "b")))]
    assert layout(tags) == [("x", "y")]  # names of classes that nothing reads
    assert layout((a, b, c), tiny.model((a, b, c))._replace(alike=None)) == [("a",), ("A",), ("c",)]


def test_a_rule_for_one_task_splits_its_group():
    tasks = amounts("a", "b", "c", "d")
    model = tiny.model(tasks)
    paths = partition.flatten(
        jax.eval_shape(lambda: model.init(jax.random.key(0), Batch(np.zeros((4, 5)), {}, {})))["params"]
    )
    trainable = frozenset(p for p in paths if p != "tasks/b/head/out/kernel")
    assert layout(tasks, trainable=trainable) == [("a", "c", "d"), ("b",)]
    factors = per_owner(optax.adam(0.1), factors=(("tasks/c/.*", 0.1),))
    assert layout(tasks, optimizer=factors) == [("a", "b", "d"), ("c",)]
    decayed = optax.adamw(0.1, mask=lambda group: {p: not p.startswith("tasks/d/") for p in group})
    assert layout(tasks, optimizer=per_owner(decayed)) == [("a", "b", "c"), ("d",)]


def test_a_frozen_task_of_a_group_stands_still():
    """A rule that names one of several alike tasks: the others move as they do without it."""
    data = source()
    model = tiny.model(data.tasks, "independent")
    plain, kept = (tiny.fit(model, data, freeze=f, num_steps=10) for f in (None, "tasks/price/.*"))
    for name in ("color", "width", "sold"):
        tiny.assert_close(kept.state.params["tasks"][name], plain.state.params["tasks"][name], rtol=1e-5, atol=1e-6)
    first = tiny.fit(model, data, num_steps=1, steps_per_dispatch=1, eval_every=1, log_every=1, optimizer="sgd(1e-30)")
    tiny.assert_close(kept.state.params["tasks"]["price"], first.state.params["tasks"]["price"], rtol=1e-6, atol=1e-7)


def test_checkpoints_do_not_depend_on_groups(tmp_path):
    """A run of alike tasks as one goes on as a run of each by itself, and is saved and loaded by name."""
    data = source()
    model = tiny.model(data.tasks, "hard(shared_stages=1)", "mlp(features=(8, 6), norm='batch')")
    options = {"optimizer": optax.adam(0.01), "batch_size": 8, "balancer": "upgrad"}
    tiny.fit(model, data, num_steps=10, workdir=tmp_path / "a", **options)
    whole = tiny.fit(model, data, num_steps=20, workdir=tmp_path / "a", **options)
    straight = tiny.fit(model, data, num_steps=20, **options)
    tiny.assert_same(whole.state, straight.state)
    whole.save(tmp_path / "saved")
    loaded = mtl.load_run(tmp_path / "saved")
    tiny.assert_same(loaded.predict(data.val.inputs), whole.predict(data.val.inputs))
    assert set(loaded.params["tasks"]) == {"color", "sold", "price", "width"}


def test_arrays_inside_an_optimizer_tell_tasks_apart():
    """A learning rate given as an array is no part of the text of the optimizer's program."""
    tasks = amounts("a", "b", "c")

    def by_task(*rates):
        methods = {n: optax.sgd(jnp.float32(r)) for n, r in zip("abc", rates, strict=True)}
        return per_owner(optax.multi_transform(methods, lambda group: {p: p.split("/")[1] for p in group}))

    def by_table(*tables):
        tables = [jnp.asarray(t) for t in tables]
        methods = {n: optax.sgd(jax.jit(lambda i, t=t: t[i])) for n, t in zip("abc", tables, strict=True)}
        return per_owner(optax.multi_transform(methods, lambda group: {p: p.split("/")[1] for p in group}))

    assert layout(tasks, optimizer=by_task(0.1, 0.0, 0.1)) == [("a", "c"), ("b",)]
    assert ("a",) in layout(tasks, optimizer=by_table((0.1, 0.2), (0.1, 0.3), (0.1, 0.4)))


def test_names_of_columns_are_no_tasks():
    """An expert called as a task that stands for others draws what it draws without them."""
    key, index = jax.random.key(0), jnp.asarray(1)
    own = task_key(TaskKey(key, ("0", "b"), index), "0")
    alone = task_key(key, "b")
    assert jax.random.key_data(own.key).tolist() == jax.random.key_data(alone).tolist()
    for name in ("0", "b", "shared/0"):
        expected = named_key(alone, name)
        assert jax.random.key_data(named_key(own, name)).tolist() == jax.random.key_data(expected).tolist()
    drawn, expected = named_key(own, "tasks/0/head"), named_key(alone, "tasks/b/head")
    assert jax.random.key_data(drawn).tolist() == jax.random.key_data(expected).tolist()


def test_weights_for_some_tasks_of_one_split_only():
    """Tasks that are alike in training may be told apart by another split's rows; loaded runs know no labels."""
    data = source()

    def weighted(split):
        return split._replace(weights={"price": np.linspace(0.5, 2, len(split.masks["price"]), dtype=np.float32)})

    data = dataclasses.replace(data, val=weighted(data.val))
    model = tiny.model(data.tasks)
    run, apart = (tiny.fit(m, data, num_steps=10, fallback=True) for m in (model, model._replace(alike=None)))
    tiny.assert_close(run.state.params, apart.state.params, rtol=1e-5, atol=1e-6)
    for split in (data.val, data.train, weighted(data.train)):
        found, expected = (jax.tree.map(np.asarray, r.evaluate(split)) for r in (run, apart))
        tiny.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_variables_exchanged_after_a_prediction_are_seen():
    data = source()
    run = tiny.fit(tiny.model(data.tasks), data, num_steps=10)
    before = run.predict(data.val.inputs)
    out = run.variables["params"]["tasks"]["price"]["head"]["out"]
    out["bias"] = np.array(out["bias"]) + 1
    once = run.predict(data.val.inputs)
    out["bias"] += 1  # in place
    twice, spread = run.predict(data.val.inputs), data.tasks[2].scaler.std[0]
    for found, steps in ((once, 1), (twice, 2)):
        np.testing.assert_allclose(found["price"], before["price"] + steps * spread, rtol=1e-4)
        tiny.assert_same(found["width"], before["width"])

"""Sequential, cooperative and learned-structure architectures: the common table, then what each one promises."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import heads, partition, sharing
from mtl_jax.encoders import Encoder
from mtl_jax.gradients.engine import linearize
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.sharing import forward, messages
from tests import tiny

EDGES = "edges=(('color', 'price'), ('color', 'sold'), ('price', 'sold'))"
TREE = "tree=((('color', 'price', 'sold'),), (('color', 'sold'), ('price',)))"
CASCADE = f"cascade({EDGES}, pass_='both', shared_stages=1, teacher_forcing=True)"
ARCHITECTURES = (
    CASCADE,
    "cascade(order=('price', 'sold'), successive=0.1)",
    "cooperative",
    "cooperative(message='distillation', shared_stages=1)",
    "relation_graph(keys=4, shared_stages=1)",
    "adashare",
    "learning_to_branch(copies=2)",
    "learning_to_branch(straight_through=True)",
    f"branched({TREE})",
)
ONE_EACH = (CASCADE, "cooperative(message='features')", *ARCHITECTURES[4:7], ARCHITECTURES[8])
QUICK = {"xla_backend_optimization_level": 0}  # most of these programs run once, so that compiling is what they cost
jit = functools.partial(jax.jit, compiler_options=QUICK)
DROPOUT = "mlp(features=(8, 6), dropout=0.3)"


class TokenStage(nn.Module):
    """A sequence stage: each token sees itself and the mean over the kept ones; padding is not cleared."""

    width: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        if "tokens" in x:
            x = {"values": nn.Embed(7, self.width)(x["tokens"]), "mask": x["kept"]}
        kept = x["mask"][..., None]
        mean = (x["values"] * kept).sum(1, keepdims=True) / jnp.maximum(kept.sum(1, keepdims=True), 1)
        return {**x, "values": jnp.tanh(nn.Dense(self.width)(x["values"] + mean))}


class TokenHead(nn.Module):
    """Logits of every token."""

    size: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return nn.Dense(self.size)(x["values"])


class DenseHead(nn.Module):
    """Logits of every pixel."""

    size: int

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return nn.Dense(self.size)(x)


class MeanPool(nn.Module):
    def __call__(self, x, *, train):
        del train
        return (x["values"] * x["mask"][..., None]).sum(1) / jnp.maximum(x["mask"].sum(1), 1)[:, None]


def check_invariant(model, jacobian, idle=lambda path: False):
    """A leaf under tasks/<t> has no other task's gradient; no other leaf but the `idle` ones is without any."""
    names = [t.name for t in model.tasks]
    for path, rows in jacobian.items():
        owner = partition.owner(path)
        if owner != "shared":
            assert not np.abs(np.delete(rows, names.index(owner), 0)).any(), path
            rows = rows[names.index(owner)]
        assert idle(path) or np.abs(rows).max() > 0, path


def check_engine(model, variables, batch, data, idle=lambda path: False):
    """Losses and gradients against reverse mode through the whole model, in float64."""
    with jax.enable_x64(True):
        batch, variables, key = tiny.double(batch), tiny.double(variables), jax.random.key(2)

        @jit
        def both(variables):
            reference = reference_jacobian(model, variables, batch, rng=key, tasks=data.tasks)
            line = linearize(model, variables, batch, rng=key, tasks=data.tasks)
            return reference, (line.losses, line.jacobian(), line.own())

        (losses, expected), (found, jacobian, own) = both(variables)
    check_invariant(model, expected, idle)
    close = {"rtol": 1e-10, "atol": 1e-12}
    tiny.assert_close(found, losses, **close)
    tiny.assert_close(jacobian, {p: j for p, j in expected.items() if partition.owner(p) == "shared"}, **close)
    index = {t.name: i for i, t in enumerate(model.tasks)}
    private = {p: j[index[partition.owner(p)]] for p, j in expected.items() if partition.owner(p) != "shared"}
    tiny.assert_close(own, private, **close)


@functools.cache
def started(text):
    """(model, its first variables, a batch). Op by op: the architectures' operations are the same ones."""
    model, batch = tiny.model(tiny.data().tasks, text), tiny.batch()
    return model, model.init(jax.random.key(0), batch), batch


def outputs_of(model, variables, batch, **arguments):
    return jit(lambda v: forward(model, v, batch, **arguments)[0])(variables)


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_the_engine_and_the_invariant(text):
    _, variables, batch = started(text)
    model = tiny.model(tiny.data().tasks, text, DROPOUT)
    # With one-hot choices, a copy that nobody has chosen has no gradient, nor has its own choice.
    idle = ("shared/copies", "shared/branching/stage") if "straight_through" in text else ("none",)
    check_engine(model, variables, batch, tiny.data(), lambda p: p.startswith(idle))


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_reordering_changes_nothing_and_adding_leaves_the_others_alone(text):
    model, variables, batch = started(text)
    tasks, own = list(model.tasks), variables["params"]
    reordered = tiny.model(tasks[::-1], text)
    again = reordered.init(jax.random.key(0), batch)
    tiny.assert_close(outputs_of(reordered, again, batch), outputs_of(model, variables, batch), rtol=1e-5, atol=1e-6)
    # A tree has to say where the new task goes.
    with_new = text.replace("('price',)", "('price',), ('new',)").replace("'color', 'price', 's", "'color', 'new', 'price', 's")  # fmt: skip  # noqa: E501
    more = tiny.model([mtl.Task("new", "binary"), *tasks], with_new).init(jax.random.key(0), batch)["params"]
    for task in own["tasks"]:
        tiny.assert_same(more["tasks"][task], own["tasks"][task])
    before, after = partition.flatten(own["shared"]), partition.flatten(more["shared"])
    assert before.keys() <= after.keys()
    for path in before:
        if before[path].shape == after[path].shape:  # copies for the new task come on top
            np.testing.assert_array_equal(after[path], before[path], err_msg=path)


AS_A_GRAPH = (CASCADE, "cooperative(message='features')", "adashare")  # the others are made of the same parts


@pytest.mark.parametrize("text", [t if t in AS_A_GRAPH else pytest.param(t, marks=pytest.mark.slow) for t in ONE_EACH])
def test_it_trains_is_saved_and_comes_back(text, tmp_path):
    """With missing labels and UPGrad; on images, whose statistics are part of the state, by shapes."""
    data = dataclasses.replace(tiny.data(), val=None)
    run = tiny.fit(tiny.model(data.tasks, text), data, balancer="upgrad", num_steps=60, log_every=10)
    train = [r for r in run.history if r["split"] == "train"]
    assert sum(train[-1]["losses"].values()) < 0.9 * sum(train[0]["losses"].values())
    run.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run")
    for task, values in run.predict(data.test.inputs).items():
        np.testing.assert_array_equal(loaded.predict(data.test.inputs)[task], values)
    images = mtl.Batch(jnp.ones((3, 8, 8, 1)), {}, {})
    other = sharing.build(text, mtl.encoders.cnn(features=(2, 3), norm="batch"), data.tasks)
    variables = jax.eval_shape(lambda: other.init(jax.random.key(0), images))
    outputs, state, _ = jax.eval_shape(lambda v: forward(other, v, images, train=True), variables)
    assert outputs["color"].shape == (3, 3)
    kept = jax.tree.map(lambda x: (x.shape, x.dtype), (state, variables["state"]))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("text, per_token", [
    (CASCADE, False),
    *(pytest.param(t, True, marks=() if t in AS_A_GRAPH else pytest.mark.slow) for t in ONE_EACH),
])  # fmt: skip
def test_sequences(text, per_token, monkeypatch):
    """Outputs per token and per sequence; what a mask hides has no say; the invariant by reverse mode."""
    monkeypatch.setitem(heads.NAMES, "token", lambda task: TokenHead(task.size))
    kind = {"head": "token"} if per_token else {}
    tasks = [mtl.Task(n, "classification", size=s, **kind) for n, s in (("color", 3), ("price", 2), ("sold", 4))]
    model = sharing.build(text, Encoder((TokenStage(5), TokenStage(6)), None if per_token else MeanPool()), tasks)
    draw = np.random.default_rng(0)
    tokens, kept = jnp.asarray(draw.integers(0, 7, (4, 5))), jnp.asarray(np.arange(5) < [[4], [5], [3], [4]])
    targets = {t.name: jnp.asarray(draw.integers(0, t.size, (4, 5) if per_token else 4)) for t in tasks}
    masks = dict.fromkeys(targets, kept if per_token else jnp.ones(4, bool))
    batch = mtl.Batch({"tokens": tokens, "kept": kept}, targets, masks)
    variables = model.init(jax.random.key(0), batch)

    @jit
    def measure(variables, batch):
        _, jacobian = reference_jacobian(model, variables, batch, rng=jax.random.key(1))
        return forward(model, variables, batch)[0], jacobian

    outputs, jacobian = measure(variables, batch)
    assert outputs["sold"].shape == (*targets["sold"].shape, 4)
    check_invariant(model, jacobian)
    # Other padding, in inputs and targets, changes nothing that counts.
    hidden = {n: jnp.where(kept, y, 1) if per_token else y for n, y in targets.items()}
    padded = batch._replace(inputs={"tokens": jnp.where(kept, tokens, 6), "kept": kept}, targets=hidden)
    others, again = measure(variables, padded)
    close = {"rtol": 1e-5, "atol": 1e-6}
    tiny.assert_close(again, jacobian, **close)
    for n in outputs:
        found, expected = (y[n][kept] if per_token else y[n] for y in (others, outputs))
        np.testing.assert_allclose(found, expected, **close)


@pytest.mark.parametrize("text", ["cascade(order=('a', 'b', 'c'))", "cooperative(rounds=2)", "relation_graph"])
def test_pixels_keep_their_places(text, monkeypatch):
    """With 1 x 1 convolutions and a head per pixel, moving pixels in the image moves the outputs, and nothing else."""
    monkeypatch.setitem(heads.NAMES, "dense", lambda task: DenseHead(task.size))
    tasks = [mtl.Task(n, "classification", size=2, head="dense") for n in "abc"]
    encoder = Encoder(mtl.encoders.cnn(features=(3, 4), kernel=1, window=1).stages)
    model = sharing.build(text, encoder, tasks)
    draw = np.random.default_rng(0)
    images, moved = jnp.asarray(draw.normal(size=(2, 3, 4, 2)), jnp.float32), draw.permutation(12)

    def shuffle(x):
        return x.reshape(2, 12, -1)[:, moved].reshape(x.shape)

    variables = model.init(jax.random.key(0), mtl.Batch(images, {}, {}))
    outputs = outputs_of(model, variables, mtl.Batch(images, {}, {}))
    found = outputs_of(model, variables, mtl.Batch(shuffle(images), {}, {}))
    tiny.assert_close(found, jax.tree.map(shuffle, outputs), rtol=1e-5, atol=1e-6)
    assert outputs["c"].shape == (2, 3, 4, 2)


def test_messages_fit_where_they_arrive():
    """Vectors are said everywhere, positions are averaged (kept ones only), images are resized; else an error."""
    draw = np.random.default_rng(0)
    vector, image, small = (jnp.asarray(draw.normal(size=s)) for s in ((2, 3), (2, 4, 6, 3), (2, 2, 3, 5)))
    mask = np.array([[True, True, False], [True, False, False]])
    sequence = {"values": jnp.asarray(draw.normal(size=(2, 3, 4))), "mask": jnp.asarray(mask)}
    np.testing.assert_array_equal(messages.fit_to(vector, image), vector[:, None, None])
    np.testing.assert_array_equal(messages.fit_to(vector, sequence), vector[:, None])
    np.testing.assert_allclose(messages.fit_to(image, vector), np.asarray(image).mean((1, 2)), rtol=1e-5)
    means = [np.asarray(sequence["values"])[i, mask[i]].mean(0) for i in range(2)]
    np.testing.assert_allclose(messages.fit_to(sequence, vector), means, rtol=1e-5)
    assert messages.fit_to(image, small).shape == (2, 2, 3, 3) and messages.fit_to(small, image).shape == (2, 4, 6, 5)
    np.testing.assert_allclose(messages.fit_to(jnp.ones_like(image), small), 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"positions \(4, 6\) cannot be read at features with positions \(3,\)"):
        messages.fit_to(image, sequence)


@pytest.mark.parametrize(
    "text, limit",
    [("cascade(edges=())", "hard"), ("cascade(edges=(), shared_stages=1)", "hard(shared_stages=1)"),
     ("cooperative(rounds=0)", "hard"), ("cooperative(rounds=0, shared_stages=1)", "hard(shared_stages=1)"),
     ("branched(tree=((('color', 'price', 'sold'),), (('color', 'price', 'sold'),)))", "hard"),
     ("branched(tree=((('color', 'price', 'sold'),), (('color',), ('price',), ('sold',))))", "hard(shared_stages=1)"),
     ("branched(tree=((('color',), ('price',), ('sold',)), (('color',), ('price',), ('sold',))))", "independent")],
)  # fmt: skip
def test_limits(text, limit):
    """Bitwise: the same variables, and the same outputs."""
    tasks, batch = tiny.data().tasks, tiny.batch()
    model, simple = tiny.model(tasks, text, tiny.BATCH_NORM), tiny.model(tasks, limit, tiny.BATCH_NORM)
    variables = simple.init(jax.random.key(0), batch)
    tiny.assert_same(model.init(jax.random.key(0), batch), variables)
    tiny.assert_same(outputs_of(model, variables, batch), outputs_of(simple, variables, batch))


# --- cascade ---------------------------------------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def trunk(params, batch):
    """The two relu layers of tiny.model, in NumPy."""
    x = np.asarray(batch.inputs)
    for i in range(2):
        x = np.maximum(dense(params["shared"]["encoder"][f"stage_{i}"]["dense"], x), 0)
    return x


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_cascade_of_outputs_by_hand():
    """In NumPy: label embeddings of soft outputs; labels in their place in training, where there are any."""
    model, variables, batch = started(f"cascade({EDGES}, teacher_forcing=True)")
    params = jax.tree.map(np.asarray, variables["params"])
    x, shared, own = trunk(params, batch), params["shared"], params["tasks"]["sold"]
    color, scaler = dense(shared["heads"]["color"]["out"], x), model.tasks[1].scaler

    def rest(color_told, forced):
        price = dense(
            shared["heads"]["price"]["out"], x + dense(shared["edges"]["price"]["outputs"]["color"], color_told)
        )
        told = price
        if forced:
            label = (np.asarray(batch.targets["price"]) - scaler.mean[0]) / scaler.std[0]
            told = np.where(batch.masks["price"][:, None], label[:, None], price)
        edges = own["edges"]["outputs"]
        sold = dense(own["head"]["out"], x + dense(edges["color"], color_told) + dense(edges["price"], told))
        return price[:, 0], sold[:, 0]

    def check(outputs, expected):
        close(outputs["color"], color)
        close(outputs["price"], expected[0])
        close(outputs["sold"], expected[1])

    check(outputs_of(model, variables, batch), rest(softmax(color), False))
    told = np.where(batch.masks["color"][:, None], np.eye(3)[batch.targets["color"]], softmax(color))
    assert not batch.masks["color"].all() and not batch.masks["price"].all()
    forced = outputs_of(model, variables, batch, train=True)
    check(forced, rest(told, True))
    # What a missing label hides is not read; without targets, outputs are.
    hidden = tiny.without_labels(tiny.without_labels(batch, "color"), "price")
    check(outputs_of(model, variables, hidden, train=True), rest(softmax(color), False))
    check(outputs_of(model, variables, mtl.Batch(batch.inputs, {}, {}), train=True), rest(softmax(color), False))
    # Frozen edges run as in inference.
    frozen = outputs_of(model, variables, batch, train=lambda path: "edges" not in path)
    check(frozen, rest(softmax(color), False))


def test_stop_gradient_cuts_the_way_back_and_moves_no_leaf():
    rows = {}
    for stop in (False, True):
        model, variables, batch = started(f"cascade({EDGES}, pass_='both', shared_stages=1, stop_gradient={stop})")
        rows[stop] = jit(lambda v, m=model, b=batch: reference_jacobian(m, v, b)[1])(variables)
    assert rows[True].keys() == rows[False].keys()
    for path in ("shared/heads/color/out/kernel", "shared/branches/color/stage_1/dense/kernel"):
        assert np.abs(rows[False][path][1:]).max() > 0  # price and sold, which read color
        assert not np.abs(rows[True][path][1:]).any() and np.abs(rows[True][path][0]).max() > 0


def test_successive_regularization():
    """Closed form with a given reference; a moving one is taken at the first pass and every second one after it."""
    tasks, batch = tiny.data().tasks, tiny.batch()
    encoder, path = mtl.encoders.mlp(features=(4, 3)), "shared/encoder/stage_0/dense/kernel"
    arguments = {"order": ("color", "price"), "successive": 0.5}
    given = mtl.sharing.cascade(encoder, tasks, reference={path: np.ones((5, 4), np.float32)}, **arguments)
    variables = given.init(jax.random.key(0), batch)
    kernel = np.asarray(partition.flatten(variables["params"])[path], np.float64)
    assert given.spec is None
    np.testing.assert_allclose(given.penalty(variables), 0.5 * ((kernel - 1) ** 2).sum(), rtol=1e-6)

    moving = mtl.sharing.cascade(encoder, tasks, successive_every=2, **arguments)
    variables = moving.init(jax.random.key(0), batch)
    size = sum(x.size for x in jax.tree.leaves(variables["params"]["shared"]))
    moved = jax.tree.map(lambda x: x + 1.0, variables["params"])  # as if loaded from elsewhere
    assert moving.penalty({**variables, "params": moved}) == 0
    step = jit(lambda v: forward(moving, v, batch, train=True)[1])
    for passes, distance in ((1, 0), (2, 1), (3, 0), (4, 1)):
        variables = {"params": moved, "state": step({**variables, "params": moved})}
        np.testing.assert_allclose(moving.penalty(variables), 0.5 * size * distance, rtol=1e-4)
        assert variables["state"]["shared"]["successive"]["passes"] == passes
        if distance == 0:
            moved = jax.tree.map(lambda x: x + 1.0, moved)
    still = forward(moving, variables, batch)[1]
    tiny.assert_same(still, variables["state"])


@pytest.mark.parametrize("text", ["adashare", "cascade(order=('a', 'b'), pass_='both', shared_stages=1)", "branched(tree=((('a', 'b'),), (('a',), ('b',))))"])  # fmt: skip  # noqa: E501
def test_inputs_of_each_tasks_own(text):
    """Each task's outputs are those of the model on that task's inputs alone; statistics are kept per task."""
    data = tiny.per_task_data()
    model, batch = tiny.model(data.tasks, text), tiny.batch(8, data)
    variables = model.init(jax.random.key(0), batch)
    outputs = outputs_of(model, variables, batch)
    for task in outputs:
        alone = mtl.Batch(batch.inputs[task], {}, {})
        np.testing.assert_allclose(outputs_of(model, variables, alone)[task], outputs[task], rtol=1e-5, atol=1e-6)
    check_engine(tiny.model(data.tasks, text, DROPOUT), variables, batch, data)
    normed = tiny.model(data.tasks, text, tiny.BATCH_NORM)
    variables = jax.eval_shape(lambda: normed.init(jax.random.key(0), batch))
    assert not variables["state"]["shared"] and set(variables["state"]["tasks"]) == {"a", "b"}
    state = jax.eval_shape(lambda v: forward(normed, v, batch, train=True)[1], variables)
    assert jax.tree.structure(state) == jax.tree.structure(variables["state"])


@pytest.mark.parametrize("text", ["cooperative", "relation_graph", "learning_to_branch"])
def test_inputs_of_each_tasks_own_are_refused(text):
    data = tiny.per_task_data()
    with pytest.raises(ValueError, match=f"sharing '{text}' takes inputs in common"):
        tiny.init(tiny.model(data.tasks, text), tiny.batch(4, data))


# --- cooperation and relations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["outputs", "features", "distillation"])
def test_two_rounds_by_hand(message):
    """In NumPy, from the formulas of the docstring."""
    model, variables, batch = started(f"cooperative(rounds=2, message='{message}')")
    params = jax.tree.map(np.asarray, variables["params"])
    way, names = params["shared"]["exchange"], [t.name for t in model.tasks]
    x = dict.fromkeys(names, trunk(params, batch))

    def head(name, x):
        place = params["shared"]["heads"][name] if message == "outputs" else params["tasks"][name]["head"]
        return dense(place["out"], x)

    def told(name, x):
        if message != "outputs":
            return x
        y = head(name, x)
        return {"color": softmax(y), "price": y, "sold": 1 / (1 + np.exp(-y))}[name]

    for _ in range(2):
        m, new = {n: told(n, x[n]) for n in names}, {}
        for n in names:
            others = [s for s in names if s != n]
            if message == "distillation":
                gates = {s: 1 / (1 + np.exp(-dense(way["gates"][n][s]["map"], x[s]))) for s in others}
                new[n] = x[n] + sum(gates[s] * dense(way["messages"][n][s]["map"], x[s]) for s in others)
            else:
                mean = np.mean([dense(way["others"][s], m[s]) for s in others], 0)
                hidden = np.maximum(dense(way["hidden"], x[n]) + dense(way["own"][n], m[n]) + mean, 0)
                new[n] = x[n] + dense(way["out"], hidden)
        x = new
    found = outputs_of(model, variables, batch)
    for n in names:
        close(np.reshape(found[n], (16, -1)), head(n, x[n]))


def test_relations():
    """Attention by hand; without values it is hard sharing; rows of the matrix sum to 1 and it is logged."""
    model, variables, batch = started("relation_graph(keys=4)")
    names = [t.name for t in model.tasks]
    params = jax.tree.map(np.asarray, variables["params"])
    x, graph = trunk(params, batch), params["shared"]["relation"]
    keys = np.stack([dense(graph[n]["key"], x) for n in names])
    values = np.stack([dense(graph[n]["value"], x) for n in names])
    query = dense(params["tasks"]["price"]["query"], x)
    attention = softmax(np.einsum("bd,sbd->bs", query, keys) / 2)
    expected = dense(params["tasks"]["price"]["head"]["out"], x + np.einsum("bs,sbw->bw", attention, values))[:, 0]
    outputs, _, aux = jit(lambda v: forward(model, v, batch))(variables)
    close(outputs["price"], expected)
    matrix = sharing.relations(aux["metrics"], names)
    close(matrix[1], attention.mean(0))
    close(matrix.sum(1), 1)

    hard, simple, _ = started("hard")
    source = partition.flatten(simple["params"])
    nothing = {p: jnp.zeros_like(v) if "/value/" in p else source.get(p, v)
               for p, v in partition.flatten(variables["params"]).items()}  # fmt: skip
    silent = {**variables, "params": partition.unflatten(nothing, variables["params"])}
    limit = outputs_of(hard, simple, batch)
    tiny.assert_close(outputs_of(model, silent, batch), limit, rtol=1e-5, atol=1e-6)

    record = {f"aux/{k}": v for k, v in aux["metrics"].items()}
    np.testing.assert_array_equal(sharing.relations(record, names), matrix)
    with pytest.raises(ValueError, match="unknown relation 'relation/price/colr'; did you mean"):
        sharing.relations(aux["metrics"], ["price", "colr"])


# --- learned branches ------------------------------------------------------------------------------------------------


def test_the_discrete_tree_is_what_inference_runs():
    """`branched` with the tree that is read off, and the copies' own weights, gives the same outputs."""
    model, variables, batch = started("learning_to_branch")
    assert sharing.discrete_tree(variables) == ((("color", "price", "sold"),),) * 2
    logits = {
        "tasks": {"color": np.eye(3)[2], "price": np.eye(3)[0], "sold": np.eye(3)[1]},
        "stage_1": {"0": np.eye(3)[2], "1": np.eye(3)[1], "2": np.eye(3)[2]},
    }
    logits = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), logits)
    shared = {**variables["params"]["shared"], "branching": logits}
    variables = {**variables, "params": {**variables["params"], "shared": shared}}
    tree = sharing.discrete_tree(variables)
    assert tree == ((("color", "price"), ("sold",)), (("color",), ("price",), ("sold",)))
    fixed, first, _ = started(f"branched(tree={tree})")
    copies = partition.flatten(variables["params"]["shared"]["copies"])
    source = {"shared/branches/color/stage_0": 2, "tasks/sold/encoder/stage_0": 1, "tasks/color/encoder/stage_1": 2,
              "tasks/price/encoder/stage_1": 0, "tasks/sold/encoder/stage_1": 1}  # fmt: skip
    params = partition.flatten(first["params"])
    for path in params:
        if "head" in path:
            params[path] = partition.flatten(variables["params"])[path]
        else:
            stage, leaf = path.split("/dense/")
            params[path] = copies[f"{stage.split('/')[-1]}/dense/{leaf}"][source[stage]]
    placed = {**first, "params": partition.unflatten(params, first["params"])}
    expected = outputs_of(model, variables, batch)
    tiny.assert_close(outputs_of(fixed, placed, batch), expected, rtol=1e-5, atol=1e-6)


def test_choices_follow_their_logits_and_the_temperature_falls():
    """One-hot choices have the softmax's frequencies (Gumbel-max), within five binomial standard deviations."""
    tasks, inputs = [mtl.Task("a", "regression")], jnp.ones((1, 2))
    model = mtl.sharing.learning_to_branch(
        mtl.encoders.linear(features=1), tasks, copies=3, straight_through=True, temperature=4.0,
        final_temperature=1.0, anneal_steps=2,
    )  # fmt: skip
    batch = mtl.Batch(inputs, {}, {})
    variables = model.init(jax.random.key(0), batch)
    variables["params"]["shared"]["branching"]["tasks"]["a"] = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    variables["params"]["shared"]["copies"]["stage_0"]["dense"]["kernel"] *= 0
    variables["params"]["shared"]["copies"]["stage_0"]["dense"]["bias"] = jnp.arange(3.0)[:, None]
    count = 4000

    def chosen(key):
        return model.encode(variables, batch, train=True, rng=key)[0]["a"][0, 0]

    drawn = np.asarray(jit(jax.vmap(chosen))(jax.random.split(jax.random.key(0), count)))
    found = np.bincount(np.round(drawn).astype(int), minlength=3) / count
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-5)
    chances = np.array([0.6, 0.3, 0.1])
    assert (np.abs(found - chances) < 5 * np.sqrt(chances * (1 - chances) / count)).all(), found
    for expected in (4.0, 2.0, 1.0, 1.0):
        _, state, aux = forward(model, variables, batch, train=True, rng=jax.random.key(1))
        np.testing.assert_allclose(aux["metrics"]["branching/temperature"], expected, rtol=1e-6)
        variables = {**variables, "state": state}
    tiny.assert_same(forward(model, variables, batch)[1], variables["state"])


def test_errors():
    tasks = tiny.data().tasks
    plain = (mtl.Task("price", "regression"), mtl.Task("sold", "binary"))
    tree = "branched(tree=((('color', 'price', 'sold'),), "
    for text, message in {
        "cascade": "cascade: give either edges=.* or order=.*; tasks are color, price, sold",
        "cascade(edges=(('color', 'price'), ('price', 'sold'), ('sold', 'color')))":
            "the edges form a cycle, color -> price -> sold -> color; drop one",
        "cascade(edges=(('color', 'price'), ('price', 'price')))": "form a cycle, price -> price",
        "cascade(edges=(('colr', 'price'),))": "unknown task in cascade 'colr'; did you mean 'color'",
        "cascade(order=('sold', 'prce'))": "unknown task in cascade 'prce'; did you mean 'price'",
        "cascade(order=('sold', 'sold'))": "order names task 'sold' twice",
        "cascade(edges=('color', 'price'))": r"edge 'color' must be a pair of task names, \(from, to\)",
        "cascade(order=('color', 'price'), pass_='output')":
            "unknown pass_ of cascade 'output'; did you mean 'outputs'",
        "cascade(order=('color', 'price'), pass_='both')": "pass_='both' needs stages of each task's own",
        "cascade(order=('color', 'price'), shared_stages=3)": r"cascade: shared_stages=3 must lie in 1..2",
        "cascade(order=('color', 'price'), pass_='features', shared_stages=1, teacher_forcing=True)":
            "teacher_forcing replaces outputs",
        "cascade(edges=(), successive=-1.0)": "successive=-1.0 must be at least 0",
        "cascade(edges=(), successive_every=5)": "do nothing without successive",
        "cooperative(rounds=-1)": "rounds=-1 must be at least 0",
        "cooperative(message='output')": "unknown message of cooperative 'output'; did you mean 'outputs'",
        "relation_graph(keys=0)": "keys=0 must be at least 1",
        "learning_to_branch(copies=0)": "copies=0 must be at least 1",
        "learning_to_branch(final_temperature=9.0)":
            "final_temperature=9.0 must be above 0 and at most temperature=5.0",
        "learning_to_branch(anneal_steps=0)": "anneal_steps=0 must be at least 1",
        tree[:-2] + ",))": "the tree has 1 stages and the encoder 2",
        tree + "(('color', 'price'),)))": "stage 1 of the tree lacks task 'sold'",
        tree + "(('color', 'price'), ('sold', 'price'))))": "has task 'price' twice",
        tree + "(('color', 'prize', 'sold'),)))": "unknown task in stage 1 of branched's tree 'prize'; did you mean",
        tree + "('color', ('price', 'sold'))))": "group 'color' of stage 1 must be a sequence",
        "branched(tree=((('color',), ('price', 'sold')), (('color', 'price'), ('sold',))))":
            "'color' and 'price' part before stage 1",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tiny.model(tasks, text)
    with pytest.raises(ValueError, match="needs the scale of task 'price'; give it a scaler"):
        tiny.model(plain, "cascade(order=('price', 'sold'), teacher_forcing=True)")
    with pytest.raises(ValueError, match="nothing under shared/branching; discrete_tree reads"):
        sharing.discrete_tree({"params": {"shared": {}, "tasks": {}}})
    _, variables, _ = started("learning_to_branch")
    with pytest.raises(ValueError, match=r"several members; take one with run.member\(i\)"):
        sharing.discrete_tree(jax.tree.map(lambda x: jnp.stack([x, x]), variables))
    with pytest.raises(ValueError, match="successive_every or a fixed reference, not both"):
        mtl.sharing.cascade(mtl.encoders.mlp(), tasks, edges=(), successive=1.0, successive_every=1, reference={})

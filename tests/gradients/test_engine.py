"""The engine against reverse mode through the whole model, in float64, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import PerTask
from mtl_jax.gradients.dense_factors import is_factored
from mtl_jax.gradients.engine import JointLoss, linearize
from mtl_jax.gradients.gramian import combine, gramian
from mtl_jax.gradients.reference import reference_jacobian
from mtl_jax.model import MultiTaskModel
from tests import tiny


def film(tasks, features):
    """A hand-written model whose `encode` reads leaves of tasks/*, with an auxiliary loss and a penalty."""
    names = [t.name for t in tasks]

    def init(rng, batch):
        keys = jax.random.split(rng, 1 + 2 * len(names))
        own = {
            n: {"gamma": 1 + jax.random.normal(keys[i + 1], (4,)), "out": jax.random.normal(keys[-i - 1], (4, 3))}
            for i, n in enumerate(names)
        }
        return {"params": {"shared": {"w": jax.random.normal(keys[0], (5, 4))}, "tasks": own},
                "state": {"shared": {}, "tasks": {}}}  # fmt: skip

    def encode(variables, batch, *, train, rng=None, tasks=None):
        hidden = jnp.tanh(batch.inputs @ variables["params"]["shared"]["w"])
        chosen = names if tasks is None else tasks
        own = variables["params"]["tasks"]
        out = PerTask({n: hidden * own[n]["gamma"] for n in chosen})
        losses = {"small": 0.1 * (hidden**2).mean()} if names[0] in chosen else {}  # once, whatever the branches
        return out, {}, {"losses": losses, "metrics": {}}

    def decode(variables, features, *, train, rng=None):
        def one(task, x):
            y = x @ variables["params"]["tasks"][task.name]["out"]
            return y if task.kind == "classification" else y[:, 0]

        return {t.name: one(t, features[t.name]) for t in tasks if t.name in features}, {}

    def penalty(variables):
        return 0.3 * (variables["params"]["shared"]["w"] ** 3).sum()

    return MultiTaskModel(tuple(tasks), features, init, encode, decode, penalty)


DROPOUT = "mlp(features=(8, 6), norm='batch', dropout=0.3)"
WIDE = "mlp(features=(32, 40, 24), norm='layer', dropout=0.3)"  # wider than the batch of 12
CASES = {
    "wide": lambda: (tiny.model(tiny.data().tasks, encoder=WIDE), tiny.data()),
    "mtan": lambda: (tiny.model(tiny.data().tasks, "mtan", encoder=WIDE), tiny.data()),
    "hard": lambda: (tiny.model(tiny.data().tasks, encoder=DROPOUT), tiny.data()),
    "partly shared": lambda: (tiny.model(tiny.data().tasks, "hard(shared_stages=1)"), tiny.data()),
    "inputs per task": lambda: (tiny.model(tiny.per_task_data().tasks), tiny.per_task_data()),
    "film, one pull": lambda: (film(tiny.data().tasks, "per_task"), tiny.data()),
    "film, branched": lambda: (film(tiny.data().tasks, "branched"), tiny.data()),
}


@pytest.mark.parametrize(
    "name, mode",
    [("hard", "map"), pytest.param("hard", "vmap", marks=pytest.mark.slow), ("hard", 2), ("hard", "columns"),
     ("inputs per task", "vmap"), ("inputs per task", "columns"), ("partly shared", "map"),
     ("film, one pull", "columns"), ("film, branched", "map"), ("wide", "layers"),
     pytest.param("mtan", "layers", marks=pytest.mark.slow), ("inputs per task", "layers")],
)  # fmt: skip
def test_engine_equals_jacrev(name, mode):
    model, data = CASES[name]()
    with jax.enable_x64(True):
        batch, key = tiny.double(tiny.batch(12, data)), jax.random.key(2)
        variables = tiny.double(tiny.init(model, batch))

        @jax.jit
        def both(variables):
            reference = reference_jacobian(model, variables, batch, rng=key, train=True, tasks=data.tasks)
            line = linearize(model, variables, batch, rng=key, mode=mode, tasks=data.tasks)
            weights = jnp.arange(1.0, 1 + len(data.tasks))
            rows = line.jacobian()
            found = line.losses, rows, line.gramian(), line.weighted(weights), combine(weights, rows), line.own()
            return reference, found, weights

        (losses, expected), (found_losses, jacobian, gram, weighted, combined, own), weights = both(variables)
        factored = {p: x for p, x in jacobian.items() if is_factored(x)}
        assert bool(factored) == (mode == "layers" and name in ("wide", "mtan"))
        jacobian |= {p: jnp.einsum("ni,tno->tio", x.inputs, x.cotangents) for p, x in factored.items()}
        close = {"rtol": 1e-11, "atol": 1e-12}
        shared = {p: j for p, j in expected.items() if partition.owner(p) == "shared"}
        tiny.assert_close(found_losses, losses, **close)
        tiny.assert_close(jacobian, shared, **close)
        tiny.assert_close(gram, gramian(shared), **close)
        for direction in (weighted, combined):
            tiny.assert_close(direction, {p: jnp.tensordot(weights, j, 1) for p, j in shared.items()}, **close)
        names = [t.name for t in model.tasks]
        mine = {p: j[names.index(partition.owner(p))] for p, j in expected.items() if partition.owner(p) != "shared"}
        tiny.assert_close(own, mine, **close)
        assert any(np.abs(g).max() > 1e-3 for g in own.values())


@pytest.mark.parametrize("name", [*CASES, "independent"])
def test_no_task_reaches_another_tasks_leaves(name):
    data = tiny.data()
    model, data = CASES[name]() if name in CASES else (tiny.model(data.tasks, "independent"), data)
    batch = tiny.batch(12, data)
    variables = tiny.init(model, batch)
    _, jacobian = jax.jit(lambda v: reference_jacobian(model, v, batch, rng=jax.random.key(1)))(variables)
    names = [t.name for t in model.tasks]
    for path, rows in jacobian.items():
        owner = partition.owner(path)
        if owner == "shared":
            continue
        for i, row in enumerate(rows):
            assert (np.abs(row).max() > 0) == (names[i] == owner), (path, names[i])


@pytest.mark.parametrize("features", ["per_task", "branched"])
def test_what_is_added_outside_the_balancer(features):
    """Penalty, auxiliary and joint losses against jax.grad of their plain sum, in float64."""
    data = tiny.data()
    model = film(data.tasks, features)

    def agree(outputs, targets, masks):
        both = masks["price"] & masks["sold"]
        return jnp.where(both, (outputs["price"] - outputs["sold"]) ** 2, 0).sum(), both.sum()

    with jax.enable_x64(True):
        batch = tiny.double(tiny.batch(12, data))
        variables = tiny.double(tiny.init(model, batch))

        def plain(params):
            moved = {**variables, "params": params}
            features, _, aux = model.encode(moved, batch, train=True)
            outputs, _ = model.decode(moved, features, train=True)
            total, count = agree(outputs, batch.targets, batch.masks)
            return sum(aux["losses"].values()) + model.penalty(moved) + 0.7 * total / count

        expected = partition.flatten(jax.jit(jax.grad(plain))(variables["params"]))
        joint = [JointLoss("agree", agree, 0.7)]
        extra = jax.jit(lambda v: linearize(model, v, batch, joint=joint, tasks=data.tasks).extra())(variables)
        tiny.assert_close(extra, expected, rtol=1e-11, atol=1e-12)


def test_a_nan_task_and_an_absent_task_are_cut_off():
    data = tiny.data()
    model = tiny.model(data.tasks)
    variables = tiny.init(model, tiny.batch())

    @jax.jit
    def pulled(batch):
        line = linearize(model, variables, batch, tasks=data.tasks)
        return line.jacobian(), line.own(), line.finite, line.labelled

    broken = tiny.batch()
    row = int(np.flatnonzero(broken.masks["price"])[0])
    prices = np.array(broken.targets["price"])
    prices[row] = np.nan
    for given, flag in ((broken._replace(targets={**broken.targets, "price": prices}), 2),
                        (tiny.without_labels(broken, "price"), 3)):  # fmt: skip
        found = pulled(given)
        whole = pulled(tiny.batch())
        assert not found[flag][1] and found[flag][0] and found[flag][2]
        for path, rows in found[0].items():
            assert (np.asarray(rows[1]) == 0).all()
            np.testing.assert_array_equal(rows[::2], whole[0][path][::2])
        for path, gradient in found[1].items():
            expected = np.zeros_like(gradient) if partition.owner(path) == "price" else whole[1][path]
            np.testing.assert_array_equal(gradient, expected)


def test_frozen_leaves_are_in_no_gradient():
    data = tiny.data()
    model = tiny.model(data.tasks)
    variables = tiny.init(model, tiny.batch())
    trainable = partition.trainable_paths(variables["params"], "shared/encoder/stage_0/.*")

    def pulled(batch):
        line = linearize(model, variables, batch, trainable=trainable, tasks=data.tasks)
        return line.jacobian(), line.own()

    jacobian, own = jax.eval_shape(pulled, tiny.batch())
    assert set(jacobian) | set(own) == trainable
    assert jacobian and all(p.startswith("shared/encoder/stage_1") for p in jacobian)


def test_unknown_mode():
    data = tiny.data()
    model = tiny.model(data.tasks)
    with pytest.raises(ValueError, match=r"unknown engine mode 'rows'; \(map, vmap, layers, columns, or how many"):
        linearize(model, None, tiny.batch(), mode="rows")
    assert mtl.JointLoss is JointLoss

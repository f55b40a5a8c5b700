"""Encoders from Linen, NNX and Equinox modules and pure functions: what each gives is checked against the network
written with this package's encoders, or against `jax.grad` of the module itself.
"""

import functools

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.encoders import base
from mtl_jax.encoders.foreign.stage import ForeignStage
from mtl_jax.training.start import initial
from tests import tiny

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)


class LinenNet(nn.Module):
    """As a stage of `mlp(norm="batch")`."""

    width: int = 4
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, *, deterministic):
        x = nn.Dense(self.width, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=deterministic, momentum=0.9)(x))
        return nn.Dropout(self.rate, deterministic=deterministic)(x)


class NnxNet(nnx.Module):
    """The same."""

    def __init__(self, rngs, rate=0.0, inputs=5):
        self.layers = nnx.List([nnx.Linear(inputs, 4, use_bias=False, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.layers[0](x))))


class EquinoxNet(eqx.Module):
    """The same, for one example."""

    layers: list
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key, rate=0.0):
        self.layers = [eqx.nn.Linear(5, 4, use_bias=False, key=key)]
        self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode="batch")
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.layers[0](x), state)
        return self.dropout(jax.nn.relu(x), key=key), state


def draw(key, x):
    return [{"w": jax.random.normal(key, (x.shape[-1], 4))}, (jnp.zeros(4),)]


def use(params, x, *, train=False):
    del train
    return jax.nn.relu(x @ params[0]["w"] + params[1][0])


def with_state(key, rate=0.0):
    return eqx.nn.make_with_state(EquinoxNet)(key, rate)


MAKE = {
    "linen": lambda rate=0.0: mtl.encoders.from_module(LinenNet(rate=rate)),
    "nnx": lambda rate=0.0: mtl.encoders.from_module(lambda rngs: NnxNet(rngs, rate)),
    "equinox": lambda rate=0.0: mtl.encoders.from_module(lambda key: with_state(key, rate), per_example=True),
    "functions": lambda: mtl.encoders.from_module((draw, use)),
}
KERNEL = {"linen": "Dense_0/kernel", "nnx": "layers/0/kernel", "equinox": "layers/0/weight", "functions": "0/w"}
MEAN = {"linen": "batch_stats/BatchNorm_0", "nnx": "batch_stats/norm", "equinox": "equinox_state"}


@functools.cache
def encoder(kind):
    return MAKE[kind]()


def variables(encoder, x, seed=0):
    return base.init_layers(base.layers(encoder), jax.random.key(seed), x, "e")[:2]


def outputs(encoder, params, state, x=X, train=False, key=None):
    return base.apply_layers(base.layers(encoder), params, state, x, train=train, key=key, prefix="e")


@pytest.mark.parametrize("kind", MAKE)
def test_a_network_is_the_one_that_our_own_stages_make(kind):
    """Features, gradients and new statistics in training, and features with running statistics: with one kernel, those
    of `mlp(features=(4,), norm="batch")`. The functions have no normalisation: their gradients are `jax.grad`'s.
    """
    params, state = variables(encoder(kind), X)
    own = mtl.encoders.mlp(features=(4,), norm="none" if kind == "functions" else "batch")
    ours, our_state = variables(own, X)
    kernel = partition.flatten(params)[f"stage_0/{KERNEL[kind]}"]
    path = next(p for p in partition.flatten(ours) if p.endswith("kernel"))
    turned = kernel.T if kind == "equinox" else kernel
    ours = partition.unflatten({path: turned}, ours)

    def loss(params, state, encoder):
        y, new = outputs(encoder, params, state, train=True, key=jax.random.key(1))
        return (y**2 * jnp.arange(4.0)).sum(), (y, new)

    (_, (y, new)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)(
        params, state, encoder(kind)
    )
    (_, (wanted, our_new)), wanted_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)(
        ours, our_state, own
    )
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    found = partition.flatten(gradient)[f"stage_0/{KERNEL[kind]}"]
    wanted_kernel = partition.flatten(wanted_gradient)[path]
    np.testing.assert_allclose(found.T if kind == "equinox" else found, wanted_kernel, rtol=1e-4, atol=1e-4)
    if kind == "functions":
        assert not new and not state
        return
    after, wanted_after = partition.flatten(new), partition.flatten(our_new)
    mean = next(v for p, v in wanted_after.items() if p.endswith("mean"))
    assert any(v.shape == mean.shape and np.allclose(v, mean, rtol=1e-4, atol=1e-5) for v in after.values())
    still, untouched = outputs(encoder(kind), params, new)
    assert not untouched
    if kind != "equinox":
        np.testing.assert_allclose(still, outputs(own, ours, our_new)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox"])
def test_dropout_has_the_steps_key_and_stays_out_of_inference(kind):
    dropped = MAKE[kind](0.5)
    params, state = variables(dropped, X)
    key = jax.random.key(1)
    first, again, other = (outputs(dropped, params, state, train=True, key=k)[0] for k in (key, key, jax.random.key(2)))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first == 0) != np.asarray(other == 0)).any()
    rows = np.asarray(first == 0)
    assert (rows != rows[:1]).any()  # a mask of each row's own
    whole, same = (outputs(e, params, state)[0] for e in (dropped, encoder(kind)))
    np.testing.assert_array_equal(whole, same)


@pytest.mark.parametrize("kind", MAKE)
def test_a_constructor_draws_by_the_key(kind):
    first, second, again = (variables(encoder(kind), X, seed)[0] for seed in (0, 1, 0))
    tiny.assert_same(first, again)
    path = f"stage_0/{KERNEL[kind]}"
    assert (np.asarray(partition.flatten(first)[path]) != np.asarray(partition.flatten(second)[path])).all()


def test_an_instance_starts_as_it_was_given():
    """Whatever the key, and whatever happens to the object afterwards."""
    module = NnxNet(nnx.Rngs(3))
    module(X)  # moves its statistics
    kernel, mean = module.layers[0].kernel.get_value(), module.norm.mean.get_value()
    given = mtl.encoders.from_module(module)
    module.layers[0].kernel.set_value(jnp.zeros_like(kernel))
    for seed in (0, 1):
        params, state = variables(given, X, seed)
        np.testing.assert_array_equal(params["stage_0"]["layers"]["0"]["kernel"], kernel)
        np.testing.assert_array_equal(state["stage_0"]["batch_stats"]["norm"]["mean"], mean)
    pair = with_state(jax.random.key(4))
    params, _ = variables(mtl.encoders.from_module(pair, per_example=True), X)
    np.testing.assert_array_equal(params["stage_0"]["layers"]["0"]["weight"], pair[0].layers[0].weight)


@functools.cache
def fitted(kind):
    model = mtl.sharing.hard(encoder(kind), tiny.data().tasks)
    return tiny.fit(model, num_steps=10, eval_every=5)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in ("linen", "equinox") else k for k in MAKE]
)
def test_trained_saved_and_given_back(kind, tmp_path):
    """The same bits; without the encoder an error that says how; with other code a warning."""
    run = fitted(kind)
    run.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run", encoder=MAKE[kind]())
    tiny.assert_same(loaded.predict(X), run.predict(X))
    with pytest.raises(ValueError, match=r"is of one's own \(.*\): a saved run holds no Python code. Give it back: "):
        mtl.load_run(tmp_path / "run")
    other = (
        mtl.encoders.from_module(lambda rngs: NnxNet(rngs=rngs, inputs=5)) if kind == "nnx" else
        mtl.encoders.from_module(LinenNet(rate=0.1)) if kind == "linen" else None
    )  # fmt: skip
    if other is not None:
        with pytest.warns(UserWarning, match="its code or its settings are not those that .* was trained with"):
            mtl.load_run(tmp_path / "run", encoder=other)


def test_a_frozen_module_keeps_its_statistics_and_describe_knows_its_leaves():
    model = mtl.sharing.hard(encoder("nnx"), tiny.data().tasks)
    frozen = tiny.fit(model, freeze="shared/.*", num_steps=5, eval_every=5)
    tiny.assert_same(frozen.variables["state"], model.init(jax.random.key(0), tiny.batch(2))["state"])
    moved = fitted("nnx").variables["state"]["shared"]["encoder"]["stage_0"]["batch_stats"]["norm"]["mean"]
    assert (np.asarray(moved) != 0).all()
    assert "shared/encoder/stage_0/layers/0/kernel  (5, 4)" in mtl.describe(model, tiny.data())


def test_what_a_module_is_belongs_to_the_run(tmp_path):
    """The same code resumes with the same bits; another is told apart, by its code or by its weights."""
    data, settings = tiny.data(), {"steps_per_dispatch": 5, "eval_every": 5}
    first, rest = (
        tiny.fit(mtl.sharing.hard(MAKE["nnx"](), data.tasks), num_steps=n, workdir=tmp_path / "w", **settings)
        for n in (5, 10)
    )
    assert rest.resumed_from == 5 and first.steps == 5
    tiny.assert_same(rest.variables, fitted("nnx").variables)
    for other, message in (
        (mtl.encoders.from_module(lambda rngs: NnxNet(rngs, 0.5)), "encoder: .*"),
        (mtl.encoders.from_module(NnxNet(nnx.Rngs(0))), "encoder: .*"),
    ):
        with pytest.raises(ValueError, match=f"holds a run of another config; it differs in {message}"):
            tiny.fit(mtl.sharing.hard(other, data.tasks), num_steps=10, workdir=tmp_path / "w", **settings)


def test_code_of_a_class_is_seen():
    """Of a module's class, and of the classes that a constructor calls."""
    from mtl_jax.training.contents import code_of

    def made(function):
        class Net(nnx.Module):
            def __init__(self, rngs):
                self.layer = nnx.Linear(5, 4, rngs=rngs)

            def __call__(self, x):
                return nnx.relu(self.layer(x)) if function == "relu" else x

        class Other(nnx.Module):
            def __init__(self, rngs):
                self.layer = nnx.Linear(5, 4, rngs=rngs)

            def __call__(self, x):
                return nnx.tanh(self.layer(x)) if function == "relu" else x

        return Net, Other

    net, other = made("relu")
    codes = [code_of(mtl.encoders.from_module(c(nnx.Rngs(0))), without="weights") for c in (net, net, other)]
    assert codes[0] == codes[1] != codes[2]
    codes = [code_of(mtl.encoders.from_module(functools.partial(c))) for c in (net, other)]
    assert codes[0] != codes[1]


class Flagless(nn.Module):
    use_running_average: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=self.use_running_average)(nn.Dense(3)(x))


class Deaf(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


def test_flags_may_be_fields_and_what_cannot_be_told_is_refused():
    params, state = variables(mtl.encoders.from_module(Flagless()), X)
    _, new = outputs(mtl.encoders.from_module(Flagless()), params, state, train=True, key=jax.random.key(0))
    assert (new["stage_0"]["batch_stats"]["BatchNorm_0"]["mean"] != 0).all()
    with pytest.raises(ValueError, match="Linen module Deaf draws random numbers .* takes no flag such as train"):
        variables(mtl.encoders.from_module(Deaf()), X)


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.rngs = rngs.fork()

    def __call__(self, x):
        return x + jax.random.normal(self.rngs.params(), x.shape)


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.seen.set_value(self.seen.get_value() + 1)
        return x


class Shouting(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("losses", "own", x.sum())
        return nn.Dense(3)(x)


def test_what_cannot_be_had_is_said():
    make = mtl.encoders.from_module
    for module, message, more in (
        (eqx.nn.Linear(5, 3, key=jax.random.key(0)), "say whether Equinox module Linear takes one example", {}),
        (LinenNet(), "the Flax module LinenNet takes a batch", {"per_example": True}),
        (LinenNet, "LinenNet is the class itself, which was not called", {}),
        (lambda r: NnxNet(r), r"it is .*lambda.*, which takes \(r\); give a Linen module, an NNX module", {}),
        (functools.partial(nnx.Linear, 5), "needs 'out_features' besides 'rngs'", {}),
        ((LinenNet(), LinenNet()), "is no pair of functions .*; stages are given as a list", {}),
        ((lambda key: 0, use), r"init takes key; it must take \(key, x\)", {}),
        ((draw, lambda params, x, mask: x), "only x would be given .'mask' has no default", {}),
        (EquinoxNet(jax.random.key(0)), "keeps state, such as batch statistics; give what", {"per_example": True}),
        ([], "the list of stages is empty", {}),
        ("mlp", "it is 'mlp'; give a Linen module", {}),
        (mtl.encoders.mlp(), "it is an encoder already", {}),
    ):
        with pytest.raises(ValueError, match=message):
            make(module, **more)
    for module, message in (
        (Noisy, "NNX constructor Noisy draws random numbers where it does not train"),
        (Counting, "changes 'seen' though it does not train"),
        (Shouting(), "has a collection 'losses' that is sown"),
        ((draw, lambda p, x: (x, x)), r"gives a tuple of 2 \(float32 \(6, 5\), float32 \(6, 5\)\); an encoder's stage"),
        ((draw, lambda p, x: x.sum()), r"gives float32 \(\); an encoder's stage gives an array of floats"),
        ((draw, lambda p, x: x[:2]), r"gives float32 \(2, 5\) for 6 rows"),
        ((draw, lambda p, x: x.argmax(-1)[:, None]), r"gives int32 \(6, 1\)"),
        ((lambda key, x: {"w": 3}, use), "init made 'w', int; parameters are floating arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            variables(make(module), X)
    with pytest.raises(ValueError, match=r"hard: encoder is the module NnxNet; mtl.encoders.from_module\(module\)"):
        mtl.sharing.hard(NnxNet(nnx.Rngs(0)), tiny.data().tasks)
    with pytest.raises(ValueError, match=r"call mtl.encoders.from_module\(module\)"):
        mtl.encoders.build("from_module(1)")


SEVERAL = ("cross_stitch", "film")
MORE = tuple(n for n in mtl.sharing.NAMES if n not in (*SEVERAL, "hard", "cascade", "esmm", "aitm", "branched"))


@functools.cache
def of_three_kinds():
    stages = [LinenNet(), lambda rngs: NnxNet(rngs, inputs=4), (draw, use)]
    return mtl.encoders.from_module(stages)


@pytest.mark.parametrize("name", [*SEVERAL, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)])
def test_every_architecture_takes_stages_of_all_kinds(name):
    """Every stage's kernels get a gradient, and statistics move."""
    model, batch, key = mtl.sharing.build(name, of_three_kinds(), tiny.data().tasks), tiny.batch(8), jax.random.key(0)
    assert all(isinstance(stage, ForeignStage) for stage in model.encoder.stages)

    @jax.jit
    def both(batch):
        first = model.init(key, batch)

        def loss(params):
            found, state, _ = mtl.sharing.forward(model, {**first, "params": params}, batch, train=True, rng=key)
            return sum((y**2).sum() for y in jax.tree.leaves(found)), state

        return first["state"], *jax.grad(loss, has_aux=True)(first["params"])

    before, gradients, after = both(batch)
    found = {p: np.abs(g).max() for p, g in partition.flatten(gradients).items()}
    for ending in ("Dense_0/kernel", "layers/0/kernel", "0/w"):
        assert max(v for p, v in found.items() if p.endswith(ending)) > 0
    moved = {p: (np.asarray(v) != np.asarray(partition.flatten(before)[p])).any()
             for p, v in partition.flatten(after).items() if p.endswith("mean")}  # fmt: skip
    assert moved and all(moved.values())


def test_pooled_images_and_rematerialised_stages():
    """`pool="mean"` of a convolution, whose features are those of the module by itself; remat changes no path."""
    images = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 4, 2)), jnp.float32)
    conv = nn.Conv(3, (3, 3))
    pooled = [mtl.encoders.from_module(conv, pool="mean", remat=r) for r in (False, True)]
    (params, _), (again, _) = (variables(e, images) for e in pooled)
    tiny.assert_same(params, again)
    for e in pooled:
        y, _ = base.apply_layers(base.layers(e), params, {}, images, train=True, key=None, prefix="e")
        np.testing.assert_allclose(y, conv.apply({"params": params["stage_0"]}, images).mean((1, 2)), rtol=1e-5)


def test_nothing_is_imported_before_it_is_used():
    from tests.test_import import modules_after

    used = "import mtl_jax, flax.linen as nn; mtl_jax.encoders.from_module(nn.Dense(2))"
    assert not {m.split(".")[0] for m in modules_after(used)} & {"equinox", "grain", "PIL"}


@pytest.mark.parametrize("kind", ["nnx", pytest.param("equinox", marks=pytest.mark.slow)])
def test_alike_tasks_run_as_one(kind):
    """Dropout and statistics of each task's own copy: a step is that of each task by itself; first weights too."""
    tasks = tuple(mtl.Task(t, "regression") for t in "abc")
    targets = {t: jnp.asarray(X[:, i]) for i, t in enumerate("abc")}
    given = mtl.Batch(X, targets, {t: jnp.ones(len(X), bool) for t in "abc"})
    data, model = mtl.data.Dataset("own", tasks, given), mtl.sharing.independent(MAKE[kind](0.5), tasks)
    both = [tiny.training("equal", data, model=m) for m in (model, model._replace(alike=None))]
    (one, _), (apart, _) = (jax.jit(step)(first, given) for step, first in both)
    tiny.assert_close(one._replace(key=None), apart._replace(key=None), rtol=1e-3, atol=1e-5)
    layout_first = initial(model, given, {})
    together = layout_first.named(layout_first.make(jax.random.key(5), {}), False)
    tiny.assert_close(together, model.init(jax.random.key(5), given), rtol=1e-6, atol=1e-7)

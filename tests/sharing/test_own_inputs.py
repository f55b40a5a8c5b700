"""Which architectures take inputs of each task's own, and that these mean what common inputs do."""

import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import sharing
from mtl_jax.sharing import forward
from tests import tiny
from tests.sharing.test_architectures import ARCHITECTURES, SEQUENCE, TWO, drawn, quick, sequences

ABLE = [text for text in ARCHITECTURES if text.split("(")[0] in sharing.OWN_INPUTS]
ENCODER = "mlp(features=(4, 2))"


# One of each way of sharing; the rest are variants of them.
NOW = ("hard(shared_stages=1)", "independent", "fully_shared", "mtan", "mmoe(experts=3)", "ple", "film",
       "hypernetwork(size=3, width=2)", "taps", "dmtrl(latent=2, rank=3)")  # fmt: skip


@pytest.mark.parametrize("text", [
    pytest.param({"mtan": "mtan(norm='none')"}.get(t, t), marks=() if t in NOW else pytest.mark.slow) for t in ABLE
])  # fmt: skip
def test_the_same_inputs_twice_are_common_inputs(text):
    common = tiny.batch(4)
    twice = common._replace(inputs=mtl.PerTask({t.name: common.inputs for t in TWO}))
    model = tiny.model(TWO, text, ENCODER)
    variables, shapes = drawn(model, common), jax.eval_shape(lambda: model.init(jax.random.key(0), twice))
    assert jax.tree.map(lambda x: x.shape, shapes["params"]) == jax.tree.map(lambda x: x.shape, variables["params"])

    @quick
    def both(variables):
        return [forward(model, variables, batch)[0] for batch in (common, twice)]

    expected, found = both(variables)
    tiny.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ABLE)
def test_statistics_are_each_tasks_own(text):
    """Of inputs of different lengths; nothing is compiled."""
    data = tiny.per_task_data()
    model = tiny.model(data.tasks, text, tiny.BATCH_NORM)
    batch = tiny.batch(12, data)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))
    assert not shapes["state"]["shared"] and set(shapes["state"]["tasks"]) == {"a", "b"}
    _, state, _ = jax.eval_shape(lambda v: forward(model, v, batch, train=True), shapes)
    assert jax.tree.structure(state) == jax.tree.structure(shapes["state"])


@pytest.mark.parametrize("text", [text for text in ARCHITECTURES if text not in ABLE])
def test_the_others_say_which_can(text):
    data = tiny.per_task_data()
    name = text.split("(")[0]
    message = f"sharing '{name}' takes inputs in common; each task's own go to one of 'hard', 'independent', .*'dmtrl'"
    with pytest.raises(ValueError, match=message):
        tiny.init(tiny.model(data.tasks, text), tiny.batch(4, data))


@pytest.mark.parametrize("text", ["mmoe", "film", "go_mtl", "fully_shared"])
def test_inputs_of_two_shapes(text):
    inputs = mtl.PerTask({"color": np.ones((2, 4), np.float32), "price": np.ones((2, 5), np.float32)})
    path = r"shared/\S*stage_0/dense/kernel\S*"
    with pytest.raises(
        ValueError, match=rf"{text}: {path} would be \(.*4, 8\) for .* 'color' and \(.*5, 8\) for .*'price'"
    ):
        jax.eval_shape(tiny.model(TWO, text).init, jax.random.key(0), mtl.Batch(inputs, {}, {}))


def test_tied_networks_of_two_shapes():
    inputs = mtl.PerTask({"color": np.ones((2, 4), np.float32), "price": np.ones((2, 5), np.float32)})
    model = tiny.model(TWO, "soft")
    with pytest.raises(
        ValueError, match=r"soft: stage_0/dense/kernel is \(4, 8\) for task 'color' and \(5, 8\) for 'pri"
    ):
        model.penalty(drawn(model, mtl.Batch(inputs, {}, {})))


ERRORS = {
    "mmoe(experts=0)": "mmoe: experts=0 must be at least 1",
    "mmoe(gate='inputs')": "unknown gate of mmoe 'inputs'; did you mean 'input'",
    "cross_stitch(own=2)": r"cross_stitch: own=2 must lie in \[0, 1\]",
    "cgc(experts=0)": "cgc: experts=0 in common must be at least 1; for none use sharing 'independent'",
    "cgc(own=-1)": "cgc: own=-1 experts per task must be at least 0",
    "ple(layers=3)": r"ple: layers=3 must lie in 1..2, the encoder's stages",
    "dselect_k(experts=1)": "dselect_k: experts=1 must be at least 2",
    "dselect_k(selectors=5)": r"dselect_k: selectors=5 must lie in 1..4",
    "dselect_k(gamma=0)": "dselect_k: gamma=0 must be positive",
    "sluice(last=2)": r"sluice: last=2 must lie in \[0, 1\]",
    "sluice(subspaces=0)": "sluice: subspaces=0 must be at least 1",
    "nddr(norm='bach')": "unknown norm of nddr 'bach'; did you mean 'batch'",
    "mtan(norm='bach')": "unknown norm of mtan 'bach'; did you mean 'batch'",
    "adapters(kind='liner')": "unknown kind of adapters 'liner'; did you mean 'linear'",
    "adapters(width=0)": "adapters: features=0 must be positive",
    "task_embedding(how='sum')": r"unknown how of task_embedding 'sum'; \(concat, add, film\)",
    "task_embedding(size=0)": "task_embedding: size=0 must be at least 1",
    "soft('means')": "unknown penalty of soft 'means'; did you mean 'mean'",
    "soft(weight=-1)": "soft: weight=-1 must not be negative",
    "soft(stages=3)": r"soft: stages=3 must lie in 1..2",
    "soft('pairwise', relations=((0, 1), (2, 0)))": r"soft: relations must be a symmetric 2 x 2 .* \(color, price\)",
    "soft(relations=((0, 1), (1, 0)))": "soft: relations are for penalty='pairwise'; it is 'mean'",
    "hypernetwork(size=0)": "hypernetwork: size=0 must be a positive integer",
    "hypernetwork(width=0)": "hypernetwork: width=0 must be a positive integer",
    "hypernetwork(activation='rel')": "unknown activation of hypernetwork 'rel'; did you mean 'relu'",
    "task_routing(sigma=0)": r"task_routing: sigma=0, the share of channels that a task keeps, must lie in \(0, 1\]",
    "taps(sparsity=-1)": "taps: sparsity=-1 must not be negative",
    "taps(threshold=0)": "taps: threshold=0 must be above 0: the penalty draws scores to 0",
    "adashare(sharing=-1)": "adashare: sparsity=0.001 and sharing=-1 must not be negative",
    "adashare(temperature=0)": "adashare: final_temperature=0.1 must be above 0 and at most temperature=0",
    "adashare(anneal_steps=0)": "adashare: anneal_steps=0 must be at least 1",
    "go_mtl(latent=0)": "go_mtl: latent=0 must be at least 1",
    "go_mtl(decay=-1)": "go_mtl: sparsity=0.001 and decay=-1 must not be negative",
    "dmtrl(rank=0)": "dmtrl: rank=0 must be at least 1",
    "mmo": "unknown sharing 'mmo'; did you mean 'mmoe'",
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors(text):
    with pytest.raises(ValueError, match=ERRORS[text]):
        tiny.model(TWO, text)


def test_errors_that_shapes_bring():
    with pytest.raises(ValueError, match=r"sluice: stage_1 puts out \(4, 5, 6\), whose width 6 does not .*subspaces=4"):
        jax.eval_shape(sharing.build("sluice(subspaces=4)", SEQUENCE, TWO).init, jax.random.key(0), sequences(0.0))
    tokens = mtl.Batch({"tokens": np.ones((2, 3), np.int32)}, {}, {})
    for how in ("add", "concat"):
        with pytest.raises(ValueError, match=f"task_embedding: how='{how}' joins a vector to numbers.*use how='film'"):
            jax.eval_shape(tiny.model(TWO, f"task_embedding(how={how!r})").init, jax.random.key(0), tokens)
    heads = [mtl.Task("a", "binary", head="vector(hidden=(4,))"), mtl.Task("b", "binary")]
    with pytest.raises(
        ValueError, match=r"fully_shared: all tasks share one head, and 'a' asks for .* 'b' asks for 'vec"
    ):
        tiny.model(heads, "fully_shared")

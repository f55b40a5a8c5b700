"""Every architecture over every encoder, by shapes: a dozen encoders in turn always, all pairs with ``-m slow``."""

import jax
import jax.numpy as jnp
import pytest

import mtl_jax as mtl
from experiments.architectures import with_tasks
from mtl_jax import encoders, sharing
from mtl_jax.predictions import one_output
from mtl_jax.sharing import forward

TASKS = (mtl.Task("a", "classification", size=3), mtl.Task("b", "regression"), mtl.Task("c", "binary"))
FUNNEL = tuple(mtl.Task(t.name, "binary") for t in TASKS)
IMAGE, ROW, SERIES = jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 6)), jnp.zeros((2, 8, 4))
BOTH = "multimodal(encoders={'image': 'cnn(features=(4,))', 'table': 'mlp(features=(4,))'}, width=8, features=(6,))"
ENCODERS = {
    "linear": ("linear(features=6)", ROW),
    "mlp": ("mlp(features=(6, 4))", ROW),
    "tabular": ("tabular(features=(6, 4))", ROW),
    "tabm": ("tabm(features=(6, 4), members=3, width=2, bins=4)", ROW),
    "cnn": ("cnn(features=(4, 6))", IMAGE),
    "resnet": ("resnet(depth=20, width=4)", IMAGE),
    "efficientnet_lite": ("efficientnet_lite(norm='group')", IMAGE),
    "vgg": ("vgg(width=4)", IMAGE),
    "vit": ("vit(width=8, depth=2, heads=2, patch=8)", IMAGE),
    "augmented": ("augmented('cnn(features=(4, 6))', flip=True)", IMAGE),
    "unet": ("unet(features=(4, 6))", IMAGE),
    "rnn": ("rnn(features=(4, 6))", SERIES),
    "conv1d": ("conv1d(features=(4, 6))", SERIES),
    "transformer": ("transformer(width=8, depth=2, heads=2)", SERIES),
    "multimodal": (BOTH, {"image": IMAGE, "table": ROW}),
}
# The only pairs that cannot be: of one stage.
REFUSED = {
    ("ple", "linear"): "layers=2 must lie in 1..1",
    ("adashare", "linear"): "the encoder has one stage, which always runs",
    ("aitm", "linear"): "shared_stages=1 leaves no stage of 1 for the towers",
}


def pairs():
    """Each architecture with one encoder quickly; the deep image encoders, which take long to trace, are slow ones."""
    quick = [e for e in ENCODERS if e not in ("resnet", "efficientnet_lite", "vgg", "mlp", "augmented")]
    for i, name in enumerate(sharing.NAMES):
        for encoder in ENCODERS:
            marks = () if encoder == quick[i % len(quick)] or (name, encoder) in REFUSED else pytest.mark.slow
            yield pytest.param(name, encoder, marks=marks, id=f"{name}-{encoder}")


def test_the_table_lists_every_encoder():
    assert set(ENCODERS) == set(encoders.NAMES)


@pytest.mark.parametrize("name, encoder", list(pairs()))
def test_it_builds_and_runs(name, encoder):
    """Outputs have the tasks' shapes and the state keeps its structure."""
    text, inputs = ENCODERS[encoder]
    trunk, batch = encoders.build(text), mtl.Batch(inputs, {}, {})
    tasks = FUNNEL if name in ("esmm", "aitm") else TASKS

    def shapes():
        model = sharing.build(with_tasks(name, [t.name for t in tasks], len(trunk.stages)), trunk, tasks)
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), batch))

        def run(variables):
            outputs, *rest = forward(model, variables, batch, train=True, rng=jax.random.key(1))
            return {t.name: one_output(t, outputs[t.name]) for t in tasks}, *rest

        return variables, jax.eval_shape(run, variables)

    if (name, encoder) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, encoder]):
            shapes()
        return
    variables, (outputs, state, _) = shapes()
    assert {t: x.shape for t, x in outputs.items()} == {"a": (2, 3) if tasks is TASKS else (2,), "b": (2,), "c": (2,)}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), variables["state"]
    )

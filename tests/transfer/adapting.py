"""Runs without training, and what a method makes of them: for tests of every fine-tuning method at little cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import Batch
from mtl_jax.model import forward
from mtl_jax.training.run import Run
from mtl_jax.training.start import initial_variables
from tests import tiny

SERIES = "transformer(width=8, depth=2, heads=2, hidden=12, length=6)"
IMAGES = "cnn(features=(4, 6), norm='batch')"


@functools.cache
def inputs(encoder):
    """Twelve rows in the form that an encoder reads."""
    draw = np.random.default_rng(3)
    shape = {"t": (12, 6, 3), "c": (12, 8, 8, 2), "m": (12, 5)}[encoder[0]]
    return draw.normal(size=shape).astype(np.float32)


@functools.cache
def source(encoder=tiny.BATCH_NORM, sharing="hard"):
    """A run on color and price whose statistics and biases are not those of the start."""
    tasks = tiny.data().select(["color", "price"]).tasks
    model = tiny.model(tasks, sharing, encoder)
    example = Batch(inputs(encoder)[:2], {}, {})
    variables = shaken(model.init(jax.random.key(0), example), lambda p: True, 1)
    return Run(model, tasks, variables, [], example)


def shaken(variables, which, seed):
    """The variables with noise on the leaves that `which` names; variances stay above 0."""
    draw = np.random.default_rng(seed)

    def shake(path, x):
        noise = 0.1 * draw.normal(size=x.shape)
        return jnp.asarray(x + (np.abs(noise) if path.endswith("/var") else noise), x.dtype) if which(path) else x

    return {
        kind: partition.unflatten({p: shake(p, x) for p, x in partition.flatten(tree).items()}, tree)
        for kind, tree in variables.items()
    }


def start(run, method, tasks=None, seed=0, **given):
    """(what `adapt` returns, the run that its first variables make); heads are loaded."""
    given = {"load": ((".*", True),), **given}
    adapted = mtl.transfer.adapt(run, run.tasks if tasks is None else tasks, method=method, **given)
    example = Batch(run.example.inputs, {}, {})
    variables = initial_variables(adapted.model, example, jax.random.key(seed), adapted.variables)
    return adapted, Run(adapted.model, adapted.model.tasks, variables, [], example)


def trained(adapted, run, seed=5):
    """The run after "training": noise on all leaves that train."""
    trainable = partition.trainable_paths(run.params, adapted.freeze)
    params = shaken({"params": run.params}, trainable.__contains__, seed)["params"]
    new = Run(run.model, run.tasks, {**run.variables, "params": params}, [], run.example)
    new.trainable = trainable
    return new


def outputs(run, x):
    """{task: outputs}, as the model has them."""
    return forward(run.model, run.variables, Batch(jnp.asarray(x), {}, {}))[0]

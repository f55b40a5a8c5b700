"""Small data, models and runs that the tests share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import mtl_jax as mtl
from mtl_jax import parallel, partition
from mtl_jax.alike import layout_of
from mtl_jax.balancing.options import Options
from mtl_jax.batch import Batch, PerTask
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step

BATCH_NORM = "mlp(features=(8, 6), norm='batch')"


@functools.cache
def data(rows=120, missing=0.3, seed=0):
    """Three tasks on 5 inputs, classification, regression and binary, with labels missing at random."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 5)).astype(np.float32)
    score = x @ draw.normal(size=(5, 3))
    price = 50 + 10 * (x @ draw.normal(size=5))
    targets = {"color": score.argmax(1), "price": price, "sold": (x[:, 0] + x[:, 1] > 0).astype(np.float32)}
    masks = {t: draw.random(rows) >= missing for t in targets}
    return mtl.data.from_arrays(x, targets, masks=masks, kinds={"color": "classification"}, val=0.2, test=0.2)


@functools.cache
def per_task_data():
    """Two tasks, each with inputs of its own, of different lengths."""
    draw = np.random.default_rng(1)
    x = {"a": draw.normal(size=(60, 4)), "b": draw.normal(size=(90, 4))}
    targets = {"a": x["a"].sum(1), "b": (x["b"][:, 0] > 0).astype(float)}
    return mtl.data.from_arrays(PerTask(x), targets, val=0.2, test=0.2)


PLAIN = "mlp(features=(8, 6))"


def model(tasks, sharing="hard", encoder=PLAIN):
    """A model of two small stages; the usual ones on the shared data are the same object each time."""
    usual = (sharing, encoder) in (("hard", PLAIN), ("hard", BATCH_NORM)) and tasks is data().tasks
    return _usual(encoder) if usual else mtl.sharing.build(sharing, mtl.encoders.build(encoder), tasks)


@functools.cache
def _usual(encoder):
    return mtl.sharing.hard(mtl.encoders.build(encoder), data().tasks)


def batch(rows=16, source=None):
    """The first rows of the training split."""
    split = (source or data()).train
    return jax.tree.map(lambda x: jnp.asarray(x[:rows]), split)


def init(model, batch, seed=0):
    """The model's first variables."""
    return model.init(jax.random.key(seed), batch)


def double(tree):
    """Floating leaves as float64."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else jnp.asarray(x),
        tree,
    )


def fit(model, source=None, **arguments):
    """A short run on one device, whatever the number of devices."""
    defaults = {"num_steps": 20, "batch_size": 16, "steps_per_dispatch": 5, "eval_every": 10, "log_every": 5}
    defaults |= {"mesh": parallel.make_mesh(1), "optimizer": "adam(learning_rate=0.02)"}
    return mtl.fit(model, source or data(), **{**defaults, **arguments})


def training(balancer="equal", source=None, freeze=None, optimizer=None, stacked=False, **arguments):
    """(step function, first state) of a model on one batch's shapes; `arguments` go to `make_train_step`.

    With `stacked`, both are on what lies stacked, and how it lies comes third.
    """
    source = source or data()
    made = arguments.pop("model", None) or model(source.tasks, encoder=BATCH_NORM)
    balancer = mtl.balancing.build(balancer) if isinstance(balancer, str) else balancer
    variables = init(made, batch(4, source))
    trainable = partition.trainable_paths(variables["params"], freeze)
    optimizer = optimizer or optimizers.build_optimizer("adamw(weight_decay=0.1)", 0.01)
    owners = optimizers.per_owner(optimizer, clip_norm=arguments.pop("clip_norm", None))
    options = arguments.pop("options", Options("map"))
    layout = None
    if stacked:
        layout = layout_of(made, source.tasks, variables, batch(4, source), trainable=trainable, optimizer=owners)
        variables = layout.stack_variables(variables)
    step = make_train_step(
        made, owners, balancer, trainable, tasks=source.tasks, options=options, layout=layout, **arguments
    )
    first = state.create(
        variables, len(made.tasks), owners, balancer, trainable, jax.random.key(1), options, layout=layout
    )
    return (step, first, layout) if stacked else (step, first)


def in_double(first):
    """A training state in float64."""
    return double(first._replace(key=None))._replace(key=first.key)


def without_labels(given: Batch, task: str) -> Batch:
    """The batch with every label of a task missing, and nan where its labels were."""
    masks = {**given.masks, task: jnp.zeros_like(given.masks[task])}
    target = given.targets[task]
    hidden = jnp.full_like(target, jnp.nan if jnp.issubdtype(target.dtype, jnp.floating) else 10**6)
    return given._replace(masks=masks, targets={**given.targets, task: hidden})


def bits(tree):
    """Every leaf as NumPy, typed keys as integers."""
    return jax.tree.map(
        lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x), tree
    )


def assert_same(left, right):
    """Bitwise equality of two trees, naming the first path that differs."""
    left, right = partition.flatten(bits(left)), partition.flatten(bits(right))
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path, strict=True)


def assert_close(left, right, **tolerance):
    """`numpy.testing.assert_allclose` leaf by leaf, naming the path."""
    left, right = partition.flatten(bits(left)), partition.flatten(bits(right))
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_allclose(leaf, right[path], err_msg=path, **tolerance)

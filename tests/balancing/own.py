"""A small problem with losses of one's own: a trunk, four heads, and four losses of different kinds."""

import jax
import jax.numpy as jnp
import numpy as np

import mtl_jax as mtl
from mtl_jax import balancing

SHARED = "trunk/.*"
TASKS = ("a", "b", "c", "d")
CALLS = {name: f"{name}(weights=(1.0, 2.0, 0.5, 1.5))" if name == "fixed" else name for name in balancing.NAMES}


def params(seed=0):
    """A trunk in two leaves and a head per task."""
    draw = np.random.default_rng(seed)
    heads = {t: {"w": jnp.asarray(draw.normal(size=5))} for t in TASKS}
    return {
        "trunk": {"w": jnp.asarray(draw.normal(size=(3, 5))), "b": jnp.asarray(draw.normal(size=5))},
        "heads": heads,
    }


def batch(seed=0, rows=8):
    """(inputs [rows, 3], targets [rows, 4])."""
    draw = np.random.default_rng(100 + seed)
    return jnp.asarray(draw.normal(size=(rows, 3))), jnp.asarray(draw.normal(size=(rows, 4)))


def features(params, batch):
    """[rows, 5]."""
    return jnp.tanh(batch[0] @ params["trunk"]["w"] + params["trunk"]["b"])


def head(task):
    """The loss of a task by the features: all are means over rows, positive, and of different scales."""
    i = TASKS.index(task)

    def loss(params, features, batch):
        error = features @ params["heads"][task]["w"] - batch[1][:, i]
        return [jnp.square(error), jnp.abs(error), jnp.logaddexp(error, -error), 5 * jnp.square(error)][i].mean()

    return loss


HEADS = {t: head(t) for t in TASKS}
EACH = {t: lambda params, batch, h=h: h(params, features(params, batch), batch) for t, h in HEADS.items()}


def losses(params, batch):
    """[4]."""
    found = features(params, batch)
    return jnp.stack([h(params, found, batch) for h in HEADS.values()])


def named(params, batch):
    """{task: scalar}."""
    return dict(zip(TASKS, losses(params, batch), strict=True))


def build(name):
    """The method of a name, with the arguments that it cannot do without."""
    return balancing.build(CALLS[name])


def more(balancer, key=None):
    """What a call needs besides the batch."""
    needed = {"key": jax.random.key(7) if key is None else key}
    if balancer.needs is balancing.Needs.ORACLE:
        needed["validation"] = batch(50)
    return needed


def tolerance(state):
    """Of a comparison in float64: what a method keeps is float32, and Adam amplifies what that rounds."""
    kept = jax.tree.leaves(state)
    return {"rtol": 1e-4, "atol": 1e-5} if kept else {"rtol": 1e-7, "atol": 1e-9}


def call(given=losses, balancer="upgrad", at=None, on=None, **how):
    """(gradients, state, info) of a first call, of losses, at parameters, on a batch; `how` goes to `balanced`."""
    at = params() if at is None else at
    balanced = mtl.balanced(given, balancer, **{"shared": SHARED, **how})
    return balanced(at, balanced.init(at), batch() if on is None else on)

"""One clear error for each way in which what `balanced` is given does not fit."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import balancing
from tests.balancing import own
from tests.balancing.own import SHARED, call


def of_state(name, count=4):
    """A first state of another method, or of other tasks."""
    losses = lambda p, b: own.losses(p, b)[:count]  # noqa: E731
    return mtl.balanced(losses, name, shared=SHARED, tasks=count).init(own.params())


def later(balancer="uncertainty", **given):
    """A call with something of its own."""
    balanced = mtl.balanced(own.losses, balancer, shared=SHARED, tasks=4)
    return balanced(own.params(), given.pop("state", None) or balanced.init(own.params()), own.batch(), **given)


ERRORS = {
    "losses have shape (8, 4); they must be [K]": lambda: call(lambda p, b: own.features(p, b)[:, :4] * b[1]),
    "losses['a'] has shape (8,); it must be a scalar: take its mean": lambda: call(lambda p, b: {"a": b[1][:, 0]}),
    "losses['a'] returns shape (8,)": lambda: call({"a": lambda p, b: b[1][:, 0]}, on={"a": own.batch()}),
    "losses are empty; there is nothing to balance": lambda: call(lambda p, b: {}),
    "losses have the key 0; tasks are named by text": lambda: call(lambda p, b: {0: own.losses(p, b)[0]}),
    "losses are int32; they must be floating-point": lambda: call(lambda p, b: jnp.arange(4)),
    "losses are 4, and there are 3 tasks: 0, 1, 2": lambda: call(tasks=3),
    "losses are named a, b, c, d; the tasks are a, b": lambda: call(own.named, tasks=("a", "b")),
    "tasks=('a', 'a') has a name twice": lambda: call(tasks=("a", "a")),
    "tasks='ab' must be how many there are, or their names": lambda: call(tasks="ab"),
    "state is of mgda, and the method is uncertainty": lambda: later(state=of_state("mgda")),
    "state does not fit uncertainty with 4 tasks (0, 1, 2, 3)": lambda: later(state=of_state("uncertainty", 3)),
    "pcgrad draws at random and no key was given": lambda: later("pcgrad"),
    "moml learns from a validation batch; give one": lambda: later("moml"),
    "upgrad reads no validation batch; leave": lambda: later("upgrad", validation=own.batch()),
    "upgrad reads one sample; leave second out": lambda: later("upgrad", second=own.batch()),
    "mask entries are 2, and there are 4 tasks": lambda: later(mask=jnp.ones(2, bool)),
    "mask is float32; it must be bool": lambda: later(mask=jnp.ones(4)),
    "leaf 'step' is int32, which has no gradient": lambda: call(at=own.params() | {"step": jnp.arange(2)}),
    "leaf 'f' is tanh, which has no gradient": lambda: call(at=own.params() | {"f": np.tanh}),
    "params have no leaf": lambda: call(at={}),
    "two leaves are called 'trunk/w'": lambda: call(at=own.params() | {"trunk/w": jnp.ones(2)}),
    "rule 'tronk/.*' matches no parameter": lambda: call(shared="tronk/.*"),
    "chooses no parameter, so there is nothing to balance": lambda: call(shared=lambda path: False),
    "shared is a tree of bools that does not fit params": lambda: call(shared={"trunk": True}),
    "modo reads two samples, the halves of a batch, and batch leaf '0' of shape (7, 3)": lambda: call(
        balancer="modo", on=own.batch(rows=7)),
    "give either losses, or features= and heads=": lambda: mtl.balanced(),
    "features and heads go together": lambda: mtl.balanced(features=own.features),
    "unknown balancer 'upgard'; did you mean 'upgrad'?": lambda: mtl.balanced(own.losses, "upgard"),
    "unknown nonfinite 'skip'; did you mean 'skip_task'": lambda: mtl.balanced(own.losses, nonfinite="skip"),
    "graddrop() reads the Jacobian, which engine 'columns' never": lambda: call(balancer="graddrop", engine="columns"),
    "engine 'layers' reads the layers of a model": lambda: call(engine="layers"),
    "level='features' needs features that all heads read": lambda: call(level="features"),
    "batch has a, b; each function reads one of its own": lambda: call(own.EACH, on=dict.fromkeys("ab", 0)),
    "losses returns an array; with has_aux or has_mask it must be": lambda: call(has_aux=True),
    "fixed: 2 weights were given for 4 tasks": lambda: call(balancer="fixed(weights=(1.0, 2.0))"),
    "task in balancer auto_lambda(primary=('z',)): 'z'": lambda: later(balancing.auto_lambda(("z",))),
    "after: the state has not been through a call": lambda: mtl.balanced(own.losses, "famo").after(
        own.params(), mtl.balanced(own.losses, "famo").init(own.params()), own.batch()),
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_one_clear_error(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ERRORS[text]()

"""What lies inside objects is found: numbers in closures, and the code of one's own functions."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import mtl_jax as mtl
from mtl_jax.training.contents import code_of, contents
from mtl_jax.training.optimizers import build_schedule

FACTOR = 2.0


def doubled(outputs, targets):
    """With a constant of its module."""
    return FACTOR * (outputs - targets) ** 2


def tripled(outputs, targets):
    return 3.0 * (outputs - targets) ** 2


def made(factor):
    return lambda outputs, targets: factor * (outputs - targets) ** 2


class Rate:
    """A schedule of one's own, as an object."""

    scale = 1.0

    def __init__(self, first):
        self.first = first

    def __call__(self, step):
        return self.scale * self.first / (step + 1)


class Slower(Rate):
    scale = 0.5


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate


SETTINGS = {"rate": 1.0}


def by_settings(step):
    return SETTINGS["rate"]


EQUAL_AND_OTHER = {
    "own object": (lambda: optax.sgd(Rate(0.1)), lambda: optax.sgd(Rate(0.2))),
    "own class": (lambda: Rate(0.1), lambda: Slower(0.1)),
    "slots": (lambda: Slotted(0.1), lambda: Slotted(0.2)),
    "a method of an object": (lambda: Rate(0.1).__call__, lambda: Rate(0.2).__call__),
    "rate": (lambda: optax.adam(1e-3), lambda: optax.adam(1e-2)),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), lambda: optax.sgd(0.1, momentum=0.8)),
    "schedule": (
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 200)),
    ),
    "own schedule": (lambda: optax.sgd(lambda s: 0.1 / (s + 1)), lambda: optax.sgd(lambda s: 0.2 / (s + 1))),
    "chain": (
        lambda: optax.chain(optax.clip(1.0), optax.adam(1e-3)),
        lambda: optax.chain(optax.clip(2.0), optax.adam(1e-3)),
    ),
    "injected": (
        lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.2),
    ),
    "by label": (
        lambda: optax.partition({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, {"w": "a", "v": "b"}),
        lambda: optax.partition({"a": optax.sgd(0.1), "b": optax.sgd(0.3)}, {"w": "a", "v": "b"}),
    ),
    "closure": (lambda: made(1.0), lambda: made(2.0)),
    "function": (lambda: doubled, lambda: tripled),
    "partial": (lambda: functools.partial(doubled, targets=1), lambda: functools.partial(doubled, targets=2)),
    "jitted": (lambda: jax.jit(doubled), lambda: jax.jit(tripled)),
    "array": (lambda: jnp.arange(30), lambda: jnp.arange(1, 31)),
    "module": (lambda: mtl.encoders.mlp(features=(4,)), lambda: mtl.encoders.mlp(features=(5,))),
    "method": (lambda: mtl.balancing.cagrad(c=0.4), lambda: mtl.balancing.cagrad(c=0.5)),
}


@pytest.mark.parametrize("name", EQUAL_AND_OTHER)
def test_equal_objects_have_equal_contents_and_others_differ(name):
    same, other = EQUAL_AND_OTHER[name]
    assert contents(same()) == contents(same()) != contents(other())
    assert "0x" not in str(contents(same()))  # no addresses


def test_the_rate_is_there_in_its_own_words():
    found = contents(optax.adam(1e-3))
    assert [v for k, v in found.items() if k.endswith("step_size")] == [-1e-3]
    assert [v for k, v in found.items() if k.endswith("b1")] == [0.9]


def test_what_a_function_reads_of_its_module_counts(monkeypatch):
    before = contents(doubled)
    assert before["FACTOR"] == 2.0 and before[""].endswith("test_contents.doubled")
    monkeypatch.setitem(doubled.__globals__, "FACTOR", 5.0)
    assert contents(doubled)["FACTOR"] == 5.0
    assert code_of(doubled) != code_of(tripled)


def test_what_a_function_reads_in_a_table_counts(monkeypatch):
    before = contents(by_settings)
    monkeypatch.setitem(SETTINGS, "rate", 2.0)
    assert contents(by_settings) != before


def test_what_is_too_large_is_said():
    assert "not followed" in contents({str(i): i for i in range(5000)})["more"]


def test_something_that_holds_itself_ends():
    loop = []
    loop.append(loop)
    assert "seen above" in str(contents(loop))


def test_a_schedule_is_known_by_what_made_it():
    """A longer run may go on, so that the steps are told apart from the rest."""
    found = [contents(optax.sgd(build_schedule("cosine_decay", 0.1, n))) for n in (100, 200)]
    differ = {k for k in found[0] if found[0][k] != found[1][k]}
    assert differ and all(k.endswith("over_steps") for k in differ)

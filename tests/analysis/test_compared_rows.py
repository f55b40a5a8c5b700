"""Rows of a comparison from text and objects: their names, what identifies them, and what is refused."""

import jax.numpy as jnp
import pytest

import mtl_jax as mtl
from mtl_jax import balancing
from mtl_jax.analysis.pareto import of_preference
from mtl_jax.analysis.rows import Row, read_rows
from mtl_jax.balancing import Balancer, Needs, Result
from mtl_jax.balancing.base import stateless
from mtl_jax.training.objects import text_of, written
from tests import tiny


def mine(rate):
    """A method of one's own, which no text describes."""

    def update(signal, state, *, mask, key):
        weights = jnp.where(mask, rate, 0.0)
        return Result(weights, head_weights=weights), state

    return Balancer(stateless, update, Needs.LOSSES)


def by_another_rule():
    def update(signal, state, *, mask, key):
        return Result(signal.losses), state

    def other(signal, state, *, mask, key):
        return Result(signal.losses + 1), state

    return [Balancer(stateless, update, Needs.LOSSES), Balancer(stateless, other, Needs.LOSSES)]


def test_objects_are_called_as_what_made_them():
    b = balancing
    rows = read_rows(["equal", b.upgrad(), b.cagrad(c=0.4), b.cr_mogm(b.upgrad(), 0.5), mine(0.1)])
    assert list(rows) == ["equal", "upgrad", "cagrad(c=0.4)", "cr_mogm(method='upgrad()', alpha=0.5)", "mine"]
    assert rows["upgrad"].texts() == {"sharing": "hard", "balancer": "upgrad()"} and not rows["upgrad"].objects()
    assert rows["mine"].objects().keys() == {"balancer"}


def test_what_looks_alike_has_rows_of_its_own():
    """By the values that set methods apart; the same method twice is one row; a changed one is not what made it."""
    assert list(read_rows([mine(0.1), mine(2.0), mine(0.1)])) == ["mine (rate=0.1)", "mine (rate=2.0)"]
    assert list(read_rows(["upgrad", balancing.upgrad()])) == ["upgrad"]
    changed = balancing.upgrad()._replace(update=mine(0.3).update)
    assert text_of(changed, balancing.build) is None and list(read_rows([changed])) == ["mine"]
    assert text_of(balancing.upgrad(), balancing.build) == "upgrad()"
    with pytest.raises(ValueError, match="2 are called 'by_another_rule' and differ in what has no name"):
        read_rows(by_another_rule())


def test_architectures_are_text_functions_or_models():
    data, encoder = tiny.data(), mtl.encoders.mlp(features=(4,))
    model = mtl.sharing.hard(encoder, data.tasks)
    rows = read_rows({"a": (mtl.sharing.mmoe, "equal"), "b": (model, balancing.mgda()), "c": balancing.upgrad()})
    found = {n: row.model(encoder, data.tasks).spec for n, row in rows.items()}
    assert found == {"a": "mmoe()", "b": "hard()", "c": "hard()"}
    assert rows["b"].objects().keys() == {"sharing"} and rows["b"].texts()["balancer"] == "mgda()"
    assert rows["c"].texts() == {"sharing": "hard", "balancer": "upgrad()"}


ENCODER = mtl.encoders.mlp(features=(4,))
MODEL = tiny.model(tiny.data().tasks)
WRONG = {
    "methods is upgrad itself, which was not called": lambda: read_rows(balancing.upgrad),
    "methods: 0 is upgrad itself, which was not called": lambda: read_rows([balancing.upgrad]),
    "methods is 'upgrad'; it must be several": lambda: read_rows("upgrad"),
    "methods: 'a' is 3; it must be a method": lambda: read_rows({"a": 3}),
    "methods: sharing of 'a' is 3": lambda: read_rows({"a": (3, "equal")}),
    "methods: a name is 1; it must be text": lambda: read_rows({1: "equal"}),
    "methods: what .* makes is 3": lambda: Row(lambda e, t: 3, "equal").model(ENCODER, ()),
    "a model of tasks color, price, sold was given": lambda: Row(MODEL, "equal").model(ENCODER, ()),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_refused(said):
    with pytest.raises(ValueError, match=said):
        WRONG[said]()


def test_a_front_varies_text_objects_and_functions():
    for method, name in (("stch(mu=0.2)", "stch"), (balancing.stch(mu=0.2), "stch"), (balancing.upgrad, "upgrad")):
        called, make = of_preference(method)
        assert called.startswith(name) and "preference=(0.25, 0.75)" in make((0.25, 0.75)).spec
    assert of_preference(lambda p: balancing.epo(p))[1]((0.5, 0.5)).spec == "epo(preference=(0.5, 0.5))"
    with pytest.raises(ValueError, match="balancer 'pcgrad' takes no preference"):
        of_preference(balancing.pcgrad())
    with pytest.raises(ValueError, match="no text describes, so that its preference cannot be varied"):
        of_preference(mine(1.0))
    with pytest.raises(ValueError, match="what method makes of a preference is 3"):
        of_preference(lambda p: 3)[1]((0.5, 0.5))


def test_a_config_is_written_by_what_its_objects_hold():
    one, same, other = ({"a": (1, 2), "balancer": mine(x)} for x in (0.1, 0.1, 0.2))
    assert written(one) == written(same) != written(other)
    assert written(one)["a"] == (1, 2) and written(one)["balancer"].startswith("given as an object (")

"""The optax transformation of a Jacobian: every method that can, against `aggregate`, in a chain, over steps."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import balancing
from mtl_jax.balancing import Needs, aggregate, aggregator
from mtl_jax.balancing.balance import task_ids
from tests.balancing import own

LATER = ("famo", "auto_lambda", "moml", "forum", "samo")
# Of each thing that a method may read, with and without a state and draws; the others by -m slow.
NOW = ("equal", "dwa", "random_loss", "upgrad", "pcgrad", "gradvac", "nash_mtl", "graddrop", "moco", "grouped", "modo")


@pytest.mark.parametrize(
    "name", [n if n in NOW else pytest.param(n, marks=pytest.mark.slow) for n in balancing.NAMES if n not in LATER]
)
def test_every_method_is_that_of_aggregate(name):
    """Three updates of one leaf [4, 6] with losses and a key, at the second of which a task is absent and holds nan."""
    balancer, draw = own.build(name), np.random.default_rng(0)
    tx = aggregator(balancer, own.TASKS)
    opt, state = tx.init({"": jnp.zeros(6)}), None
    for i in range(3):
        jacobian, losses, key = draw.normal(size=(4, 6)), draw.uniform(0.5, 2, 4), jax.random.key(i)
        mask = np.arange(4) != (1 if i == 1 else 9)
        jacobian[~mask] = np.nan
        rows, losses, mask = jnp.asarray(jacobian, jnp.float32), jnp.asarray(losses, jnp.float32), jnp.asarray(mask)
        second = {"": rows} if balancer.needs is Needs.CROSS else None
        found, opt = tx.update({"": rows}, opt, losses=losses, mask=mask, key=key, second=second)
        expected, _, state = aggregate(balancer, rows, losses, mask, state, key, task_ids(own.TASKS))
        np.testing.assert_allclose(found[""], expected, rtol=1e-4, atol=1e-5)
        assert np.isfinite(found[""]).all() and opt.step == i + 1


def test_in_a_chain_with_adam():
    """Losses fall under jit, and the updates are Adam's of the direction."""
    tx = optax.chain(aggregator(balancing.upgrad()), optax.adam(0.05))

    @jax.jit
    def step(params, opt):
        updates, opt = tx.update(jax.jacrev(own.losses)(params, own.batch()), opt, params)
        return optax.apply_updates(params, updates), opt, own.losses(params, own.batch())

    params, opt, seen = own.params(), tx.init(own.params()), []
    for _ in range(30):
        params, opt, losses = step(params, opt)
        seen.append(losses)
    assert (seen[-1] < seen[0]).all()


def update(name="mgda", rows=None, tasks=None, **given):
    tx = aggregator(own.build(name), tasks)
    rows = {"w": jnp.ones((4, 3))} if rows is None else rows
    return tx.update(rows, tx.init({"w": jnp.ones(3)}), **given)


ERRORS = {
    "famo reads losses after the step, which a Jacobian does not have": lambda: aggregator(balancing.famo()),
    "moml reads validation batches, which a Jacobian does not have": lambda: aggregator(balancing.moml()),
    "samo reads losses at other parameters, which a Jacobian does not have": lambda: aggregator(balancing.samo()),
    "dwa reads losses, which was not given": lambda: update("dwa"),
    "pcgrad reads key, which was not given": lambda: update("pcgrad"),
    "modo reads second, which was not given": lambda: update("modo"),
    "mgda reads gramian": lambda: update(second={"w": jnp.ones((4, 3))}),
    "the Jacobian has 4 rows, and there are 3 tasks: 0, 1, 2": lambda: update(tasks=3),
    "leaf 'w' of the Jacobian has shape (4, 3) and 'b' (3,)": lambda: update(
        rows={"w": jnp.ones((4, 3)), "b": jnp.ones(3)}),
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_one_clear_error(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ERRORS[text]()

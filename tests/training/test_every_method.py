"""Every balancing method, by its name, trains for a few steps, sees its losses fall, and resumes to the same bits.

A method differs from another in its step and its state alone: each has its state go through a checkpoint in the middle.
That `fit` resumes is shown with one method for each thing that a method may read, and with ``-m slow`` with all.
"""

import jax
import numpy as np
import pytest

from mtl_jax import balancing
from mtl_jax.balancing.base import Needs
from mtl_jax.checkpoint import Checkpoints
from tests import tiny

NAMES = {n: n for n in balancing.NAMES}
NAMES |= {
    "krum": "krum(outliers=0, selected=2)",
    "fixed": "fixed((1.0, 1.0, 0.5))",
    "gradvac by leaf": "gradvac(groups='leaf')",
}
# Of losses, with a history, and with a look at those after the step; the others are of one thing each.
BY_FIT = ("dwa", "famo", "gradvac", "graddrop", "modo", "auto_lambda", "samo")


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall_and_a_state_from_disk_goes_on_to_the_same_bits(name, tmp_path):
    balancer, model = balancing.build(NAMES[name]), tiny.model(tiny.data().tasks)
    step, first, layout = tiny.training(balancer, model=model, stacked=True)
    held_out = (layout.stack_batch(tiny.batch(16)),) if balancer.needs is Needs.ORACLE else ()
    batches = [layout.stack_batch(rows(16 * i)) for i in range(4)]
    run, losses = jax.jit(step), []

    def on(state, begin, end):
        for i in range(begin, end):
            state, record = run(state, batches[i % 4], *held_out)
            losses.append(np.sum(record["losses"]))
        return state

    middle = on(first, 0, 20)
    whole = on(middle, 20, 60)
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    with Checkpoints(tmp_path) as kept:
        kept.save(20, {"state": middle})
        kept.wait()
        restored = kept.restore(20, {"state": first})["state"]
    tiny.assert_same(on(restored, 20, 60), whole)


def rows(begin):
    """16 rows of the training split."""
    return jax.tree.map(lambda x: x[begin : begin + 16], tiny.batch(72))


@pytest.mark.parametrize("name", [n if n in BY_FIT else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_losses_fall_and_resuming_is_exact(name, tmp_path):
    model = tiny.model(tiny.data().tasks)
    options = {"balancer": NAMES[name], "optimizer": "adam(0.03)", "eval_every": 20, "log_every": 10}
    whole = tiny.fit(model, num_steps=60, **options)
    records = [r for r in whole.history if r["split"] == "train"]
    assert sum(records[-1]["losses"].values()) < 0.9 * sum(records[0]["losses"].values())
    tiny.fit(model, num_steps=20, workdir=tmp_path, **options)
    resumed = tiny.fit(model, num_steps=60, workdir=tmp_path, **options)
    assert resumed.resumed_from == 20
    tiny.assert_same(resumed.state, whole.state)

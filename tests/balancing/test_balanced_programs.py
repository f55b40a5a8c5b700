"""The loops of `experiments.own_loops` and of README run as they stand, and their tasks are learned."""

import importlib
import pathlib

import jax
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from experiments import own_loops
from experiments.own_loops.problem import TASKS
from tests.balancing import own

PROGRAMS = sorted(p.stem for p in pathlib.Path(own_loops.__file__).parent.glob("with_*.py"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_task_is_learned(program):
    if program == "with_equinox":
        pytest.importorskip("equinox")
    found = importlib.import_module(f"experiments.own_loops.{program}").main(num_steps=250)
    assert set(found) == set(TASKS)
    assert all(v < 0.5 for v in found.values()), found


def test_there_is_one_for_each_library():
    assert PROGRAMS == ["with_equinox", "with_flax_nnx", "with_plain_jax"]


def test_the_lines_of_readme_run():
    """As they stand, on losses of one's own, twice: the gradients are UPGrad's direction by `aggregate`."""
    readme = pathlib.Path(own_loops.__file__).parents[2] / "README.md"
    code = "balanced = " + readme.read_text().split("```python\nbalanced = ")[1].split("```")[0]
    space = {"mtl": mtl, "losses": own.losses, "params": own.params(), "batch": own.batch(), "tx": optax.adam(0.1)}
    space["opt_state"] = space["tx"].init(space["params"])
    for _ in range(2):
        exec(code, space)
    rows = jax.tree.leaves(jax.jacrev(own.losses)(space["params"], space["batch"]))
    matrix = np.concatenate([np.reshape(x, (4, -1)) for x in rows], 1)
    expected = mtl.balancing.aggregate(mtl.balancing.upgrad(), matrix)[0]
    found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(space["grads"])])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)
    assert {"losses", "weights", "norms", "cosines", "conflict", "aux"} <= set(space["info"]._fields)
    assert jax.tree.structure(space["updates"]) == jax.tree.structure(space["params"])

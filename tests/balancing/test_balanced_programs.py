"""The loops of `experiments.own_loops` run as they stand: after a fifth of their steps every task is learned."""

import importlib
import pathlib

import pytest

from experiments import own_loops
from experiments.own_loops.problem import TASKS

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

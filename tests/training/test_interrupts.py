"""Signals: noted, handed on to the program, and never swallowed."""

import os
import signal

import pytest

import mtl_jax as mtl
from mtl_jax.training.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handlers():
    """As they were, whatever a test does."""
    before = {s: signal.getsignal(s) for s in Interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "number, kind, status", [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, SystemExit, 143)]
)
def test_a_signal_is_noted_and_then_ends_the_program(number, kind, status):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        assert interrupts.caught == number
    assert signal.getsignal(number) is before
    with pytest.raises(kind, match="saved at step 3") as caught:
        interrupts.deliver("saved at step 3", "the run")
    assert isinstance(caught.value, mtl.Interrupted) and not isinstance(caught.value, Exception)
    assert (caught.value.run, caught.value.signal, caught.value.status) == ("the run", number.name, status)
    if kind is SystemExit:
        assert caught.value.code == status


def test_the_programs_own_handler_is_called():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
    with pytest.raises(mtl.Interrupted):
        interrupts.deliver("", None)
    assert seen == [signal.SIGTERM]


def test_a_signal_that_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background jobs
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
    assert interrupts.caught is None


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_an_error_does_not_swallow_a_signal():
    with pytest.raises(KeyboardInterrupt) as caught, Interrupts():
        signal.raise_signal(signal.SIGINT)
        raise FloatingPointError("nan")
    assert isinstance(caught.value.__context__, FloatingPointError)

"""Ctrl-C and SIGTERM: the step under way is finished, the run is saved, and the signal goes on to the program.

A fit is rarely all that a program does: if it only returned early, a loop over seeds would go on with half a run.
"""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal ended a fit, which has saved what it had. Ctrl-C is also a KeyboardInterrupt, SIGTERM a SystemExit.

    In a notebook, where nothing caught it: ``sys.last_value.run``.

    Attributes:
      run: as far as it came, ready to predict and evaluate.
      signal: "SIGINT" or "SIGTERM".
      status: 128 and the signal's number, for `sys.exit`.
    """

    def __init__(self, message: str, run: Any, number: int):
        super().__init__(message)
        self.run, self.signal, self.status = run, signal.Signals(number).name, 128 + number


class _InterruptedByKey(Interrupted, KeyboardInterrupt):
    pass


class _Terminated(Interrupted, SystemExit):
    """Ends the program with status 143 if nobody catches it."""

    def __init__(self, message: str, run: Any, number: int):
        super().__init__(message, run, number)
        self.code = self.status


class Interrupts:
    """While entered, the first signal is noted in `caught`; a second Ctrl-C interrupts at once.

    A signal that was ignored before stays ignored. One that was noted when an error ends the block is sent again.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.caught: signal.Signals | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # handlers can be set there only
            for number in self.SIGNALS:
                # None: not a handler of Python, which could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.caught is not None and kind is not None and issubclass(kind, Exception):
            signal.raise_signal(self.caught)

    def deliver(self, message: str, run: Any) -> None:
        """Hands a noted signal to the handler that the program had, and then ends the program's way out of `fit`.

        Raises:
          Interrupted: holding the run, whatever the handler did.
        """
        caught = self.caught
        assert caught is not None  # else there is nothing to hand on
        handler = self._previous[caught]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(caught, None)
        kind = _InterruptedByKey if caught == signal.SIGINT else _Terminated
        raise kind(message, run, caught)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)

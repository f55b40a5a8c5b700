"""Where records go: the interface of a writer, and a record as plain numbers."""

import numbers
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Writer(Protocol):
    """Takes the records of a run. Any object with these three methods is one."""

    def begin(self, run: Any, step: int) -> None:
        """Called when a loop begins at a step: 0, or the one that it goes on from. `run` has config and tasks."""

    def write(self, record: dict) -> None:
        """Called with every record, as metrics.jsonl has it; after a resume with those since the checkpoint again."""

    def close(self) -> None:
        """Called when the loop ends, whatever ended it."""


def numbers_of(record: dict) -> dict[str, float]:
    """{name: number} of a record: ``train/losses/left``, ``val/metrics/left/accuracy``, ``train/conflict``.

    Where runs train side by side, a number per run: ``train/losses/left/0``. The cosines and what is not there (None)
    are left out.
    """
    found: dict[str, float] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}/{key}", part)
        elif isinstance(value, list):
            for i, part in enumerate(value):
                walk(f"{name}/{i}", part)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            found[name] = float(value)

    for key, value in record.items():
        if key not in ("step", "split", "cosines"):
            walk(f"{record['split']}/{key}", value)
    return found


def missing(package: str, extra: str, error: ImportError) -> ImportError:
    """The error for a package that is not there, with the extra that brings it."""
    return ImportError(f"writer {extra!r} needs {package}: pip install 'mtl_jax[{extra}]' ({error})")

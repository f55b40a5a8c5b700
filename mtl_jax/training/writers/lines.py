"""metrics.jsonl: a line per record, always there where there is a workdir."""

import pathlib
from typing import Any

from mtl_jax import files
from mtl_jax.training import record_lines, records

FILE = "metrics.jsonl"


class Lines:
    """Appends to ``workdir/metrics.jsonl``, which begins with the records that a run goes on from."""

    def __init__(self, workdir: pathlib.Path):
        self.path = workdir / FILE

    def begin(self, run: Any, step: int) -> None:
        """Drops the records after the step, as they will be written again; what is left gets today's form."""
        if self.path.exists():
            files.write_whole(self.path, record_lines.text_of(run.history))

    def write(self, record: dict) -> None:
        """Adds a line."""
        records.append(self.path, record)

    def close(self) -> None:
        """Nothing is open in between."""

"""In which order an encoder's stages compute, for methods that go stage by stage."""

import re
from collections.abc import Sequence

STAGE = re.compile(r"(.*?/stage_\d+)(/.*)?")


def stages_of(paths: Sequence[str], order: Sequence[str]) -> list[list[str]]:
    """Paths of each stage, those that compute first in front; leaves of stages without a kernel are in none.

    Args:
      paths: of all leaves.
      order: those of kernels, in the order of the computation.
    """
    names = list(dict.fromkeys(stage_of(p) for p in order))
    return [[p for p in paths if stage_of(p) == name] for name in names]


def stage_of(path: str) -> str:
    """The stage that a leaf is in: up to ``stage_3``, or, without one, its module."""
    found = STAGE.fullmatch(path)
    return found[1] if found else path.rpartition("/")[0]

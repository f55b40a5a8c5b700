"""Where a warning points: to the line that called the library, however deep in it the warning is."""

import os
import pathlib
import sys

_PACKAGE = str(pathlib.Path(__file__).parent) + os.sep


def outside() -> int:
    """The `stacklevel` that `warnings.warn` takes, in the function that calls this one."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level

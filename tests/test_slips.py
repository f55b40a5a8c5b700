"""A mistake gets the library's own words before anything is compiled: one line with the thing and the way out."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.slips import SLIPS


@pytest.fixture(scope="module")
def messages():
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.slips"], cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("slip", SLIPS)
def test_slip(slip, messages):
    kind, message = messages[slip]
    assert kind in ("ValueError", "TypeError") and re.search(SLIPS[slip][1], message), f"{kind}: {message}"
    assert kind == "ValueError" or "unexpected keyword" in message or "missing a required" in message, message
    assert "\n" not in message and len(message) < 400

"""A working directory has one writer; a killed one leaves it free."""

import errno
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from mtl_jax.training import lock

ROOT = pathlib.Path(__file__).parents[2]
HOLD = """
import pathlib, sys
from mtl_jax.training import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "run"
    for ends in ("by itself", "killed"):
        process = holder(folder)
        try:
            with pytest.raises(ValueError, match=rf"run is in use by another process \(pid {process.pid} on host .+\); "
                               "wait until it ends"), lock.held(folder):  # fmt: skip
                pass
            if ends == "killed":
                process.kill()
                process.wait()
        finally:
            process.communicate()
        with lock.held(folder):
            pass
    assert os.listdir(folder) == []


def test_two_fits_of_one_process(tmp_path):
    (tmp_path / "link").symlink_to("run")
    refused = []

    def second():
        with pytest.raises(ValueError, match="in use by another fit of this process"), lock.held(tmp_path / "link"):
            pass
        refused.append(True)

    (tmp_path / "run").mkdir()
    with lock.held(tmp_path / "run"), lock.held(tmp_path / "other"), lock.held(None):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused == [True]
    with lock.held(tmp_path / "run"):
        pass


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path):
        1 / 0  # noqa: B018
    with lock.held(tmp_path):
        pass


def test_a_forked_copy_holds_nothing(tmp_path):
    """Else a data loader that outlives a killed program would keep its folder."""
    code = f"""
import os, pathlib, sys
from mtl_jax.training import lock
folder = pathlib.Path({str(tmp_path)!r})
ready, tell = os.pipe()
with lock.held(folder):
    child = os.fork()
    if child:
        os.read(ready, 1)  # the copy runs by now
        os.kill(os.getpid(), 9)
    os.write(tell, b"x")
    sys.stdin.read()  # until the test has looked
os._exit(0)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as process:
        process.wait()
        with lock.held(tmp_path):
            pass


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="there are no file locks here; nothing keeps two processes apart"):
        with lock.held(tmp_path):
            with pytest.raises(ValueError, match="another fit of this process"), lock.held(tmp_path):
                pass

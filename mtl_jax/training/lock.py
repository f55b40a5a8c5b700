"""One process at a time in a working directory: a lock of the operating system, which a killed process lets go of."""

import contextlib
import errno
import os
import pathlib
import socket
import threading
import warnings
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module that is not there

NAME = ".lock"
_held: dict[tuple[int, int], int] = {}  # (device, inode) of each folder that this process holds: file descriptor
_guard = threading.Lock()


@contextlib.contextmanager
def held(folder: pathlib.Path | None) -> Iterator[None]:
    """Holds a folder, which is made if need be, until the block ends; with None, nothing.

    Where there are no locks (some network file systems, Windows), a warning says so, and only fits of one process are
    kept apart. With several hosts, the caller takes it in one process only.

    Raises:
      ValueError: if another process, or another fit of this one, holds it; the message names the process.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    found, path = folder.stat(), folder.absolute() / NAME
    key, process = (found.st_dev, found.st_ino), os.getpid()
    with _guard:
        if key in _held:
            raise ValueError(f"{folder} is in use by another fit of this process; {_WAY_OUT}")
        _held[key] = _take(folder)
    try:
        yield
    finally:
        if os.getpid() == process:  # a forked copy of this process holds nothing
            with _guard:
                # Removed while it is held: whoever opened it meanwhile sees that it is gone, and makes another.
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(_held.pop(key))


_WAY_OUT = "wait until it ends, or use another workdir"


def _take(folder: pathlib.Path) -> int:
    path = folder / NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, folder)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed by the holder before


def _lock(descriptor: int, folder: pathlib.Path) -> None:
    no_locks = f"{folder}: there are no file locks here; nothing keeps two processes apart, so start only one"
    if fcntl is None:
        warnings.warn(no_locks, stacklevel=2)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            process, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
            who = f" (pid {process} on host {host})" if host else ""
            raise ValueError(f"{folder} is in use by another process{who}; {_WAY_OUT}") from error
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        warnings.warn(no_locks, stacklevel=2)


def _let_go() -> None:
    """A forked copy would keep the locks of a process that is killed."""
    global _guard
    _guard = threading.Lock()
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

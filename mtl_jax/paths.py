"""Paths as people write them: ``~``, links, and URLs, which are refused."""

import os
import pathlib
import re

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a letter and a colon alone are a drive


def local(path: str | os.PathLike, what: str = "path") -> pathlib.Path:
    """A path of this machine, with ``~`` as the home folder.

    Args:
      path: as it was given.
      what: names it in errors.

    Raises:
      ValueError: for a URL, nothing at all, or a home folder that is not known.
    """
    text = os.fsdecode(path)
    if URL.match(text):
        raise ValueError(f"{what} {text!r} is a URL; files are kept on local paths only (a mounted bucket has one)")
    if not text:
        raise ValueError(f"{what} is empty; give a path ('.' is the current folder)")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{what} {text!r}: {error}") from error


def local_folder(path: str | os.PathLike, what: str) -> pathlib.Path:
    """Like `local`; an error if something other than a folder is there, or in the way."""
    found = local(path, what)
    for each in (found, *found.parents):
        if each.exists() and not each.is_dir():
            raise NotADirectoryError(f"{what} {os.fspath(path)!r} cannot be a folder: {each} is a file")
    return found


def followed(path: pathlib.Path) -> pathlib.Path:
    """The absolute path that links lead to; what is not there yet may be the end of one."""
    try:
        found = pathlib.Path(os.path.realpath(path))
        found.is_symlink()  # a name that is too long, too
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} leads nowhere: {error}") from error
    if found.is_symlink():
        raise ValueError(f"{path} is a link that leads back to itself")
    return found

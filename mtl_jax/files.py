"""Files that are read within bounds, whatever lies there, and written whole or not at all."""

import contextlib
import json
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, BinaryIO

from mtl_jax.paths import followed

LONGEST = 32 * 2**20  # bytes of a JSON document
DEEPEST = 100  # levels of lists and objects in one


def beside(path: pathlib.Path) -> pathlib.Path:
    """A name in the same folder that nothing has, for a draft of `path`."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.draft")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The draft that replaces a file atomically once it is written; where that is a link, what the link leads to.

    Raises:
      OSError: naming the file, if it is a folder, or there is no right or no room to write it.
    """
    path = followed(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is to be written there")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = beside(path)
    try:
        yield draft
        os.replace(draft, path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: pathlib.Path, text: str) -> None:
    """Replaces a text file atomically (`replacing`)."""
    with replacing(path) as draft, draft.open("x", encoding="utf-8") as file:
        file.write(text)


def write_json(path: pathlib.Path, content: Any) -> None:
    """`write_whole` of a JSON document."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def open_regular(path: pathlib.Path, limit: int) -> BinaryIO:
    """A file opened for reading bytes.

    Raises:
      FileNotFoundError: naming it.
      ValueError: if it is a folder, pipe or device, or larger than `limit` bytes.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise ValueError(f"{path} is {kind}; a file is expected there")
    if found.st_size > limit:
        raise ValueError(f"{path} is {found.st_size:,} bytes long; at most {limit:,} are read")
    return path.open("rb")


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file.

    Raises:
      FileNotFoundError: naming the file.
      ValueError: naming the file, if it is no file, no JSON, or larger or deeper than anything that a run writes.
    """
    with open_regular(path, LONGEST) as file:
        return parse_json(file.read(LONGEST), str(path))


def parse_json(content: bytes, where: str) -> Any:
    """JSON of at most `DEEPEST` levels; an error starts with `where`."""
    too_deep = f"{where} is nested deeper than {DEEPEST} levels; no run writes that"
    try:
        found = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: no UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise ValueError(too_deep) from error
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}" if content else f"{where} is empty") from error
    level = [found]
    for _ in range(DEEPEST):
        inner = (x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list))
        level = [x for each in inner for x in each if isinstance(x, dict | list)]
        if not level:
            return found
    raise ValueError(too_deep)


def read_object(path: pathlib.Path, fields: Mapping[str, type | UnionType]) -> dict[str, Any]:
    """A JSON object that has these fields, of these types, and perhaps others."""
    found = read_json(path)
    check_fields(found, fields, str(path))
    return found


def check_fields(found: Any, fields: Mapping[str, type | UnionType], where: str) -> None:
    """An error that names the first field that is missing or of another type."""
    if not isinstance(found, dict):
        raise ValueError(f"{where} is damaged: it holds a {type(found).__name__} in place of an object")
    for name, kinds in fields.items():
        if name not in found:
            raise ValueError(f"{where} is damaged: it has no field {name!r}")
        if not isinstance(found[name], kinds):
            shown = repr(found[name])
            shown = shown if len(shown) < 60 else shown[:57] + "..."
            raise ValueError(f"{where} is damaged: its field {name!r} is {shown}")

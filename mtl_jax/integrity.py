"""Is a checkpoint what was written? Sizes and digests lie beside its files, and are compared before they are read."""

import hashlib
import json
import os
import pathlib
from typing import Any

import tensorstore

from mtl_jax import files

NAME = "digests.json"


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not what was written; the message names it."""


def write_digests(folder: pathlib.Path) -> None:
    """Writes {file: [bytes, BLAKE2b]} of a whole checkpoint into it."""
    content = {name: [path.stat().st_size, digest(path)] for name, path in sorted(contents(folder).items())}
    files.write_whole(folder / NAME, json.dumps(content) + "\n")


def contents(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{name relative to the folder: path} of every file under it but its digests."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path for name, path in found.items() if name != NAME}


def digest(path: pathlib.Path) -> str:
    """BLAKE2b (RFC 7693) of a file's bytes, 128 bits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def check(folder: pathlib.Path) -> bool:
    """Whether digests vouch for a checkpoint; False if it has none, as those of earlier versions, but all its parts.

    Raises:
      DamagedCheckpoint: naming the first file that is missing, cut, or not what was written.
    """
    try:
        if os.path.lexists(folder / NAME):
            check_files(folder, files.read_object(folder / NAME, {}))
            return True
        check_parts(folder)
    except DamagedCheckpoint:
        raise
    except (ValueError, OSError) as error:
        raise damaged(folder, str(error)) from error
    return False


def check_files(folder: pathlib.Path, wanted: dict[str, Any]) -> None:
    """An error for the first file that differs from its digest: sizes first, since they cost nothing."""
    for entry in wanted.values():
        if not (isinstance(entry, list) and [type(x) for x in entry] == [int, str]):
            raise damaged(folder, f"{NAME} holds something other than digests")
    found = contents(folder)
    for name, (size, _) in wanted.items():
        if name not in found:
            raise damaged(folder, f"{name} is missing")
        if (there := found[name].stat().st_size) != size:
            raise damaged(folder, f"{name} has {there:,} bytes of {size:,}")
    for name, (_, written) in wanted.items():
        if digest(found[name]) != written:
            raise damaged(folder, f"{name} is not what was written (its digest differs)")


def check_parts(folder: pathlib.Path) -> None:
    """An error if an item is not there, or its arrays cannot be read: tensorstore finds what is missing or cut.

    Orbax would find it too, but not say what it found.
    """
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not (path.is_file() or path.is_dir()):
            raise damaged(folder, f"{name} is no regular file")
        if path.is_file() and path.parent.name != "d" and path.stat().st_size > files.LONGEST:
            raise damaged(folder, f"{name} has {path.stat().st_size:,} bytes")
    for item in items(folder):
        for name in ("_METADATA", "manifest.ocdbt"):
            if not (folder / item / name).is_file():
                raise damaged(folder, f"{item}/{name} is missing")
        files.read_json(folder / item / "_METADATA")
        stored = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder / item}/"}}
        try:
            arrays = tensorstore.KvStore.open(stored).result()
            for key in arrays.list().result():
                arrays.read(key).result()
        except ValueError as error:
            raise damaged(folder, f"item {item!r} cannot be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What happened, without the registries and specifications that errors of Orbax and tensorstore go on with."""
    lines = str(error).partition("[tensorstore_spec")[0].partition("[source locations")[0].splitlines()
    return lines[0][:300].strip() if lines else type(error).__name__


def items(folder: pathlib.Path) -> list[str]:
    """The names of the pytrees in a checkpoint."""
    return list(files.read_object(folder / "_CHECKPOINT_METADATA", {"item_handlers": dict})["item_handlers"])


def damaged(folder: pathlib.Path, why: str) -> DamagedCheckpoint:
    """The error."""
    return DamagedCheckpoint(f"checkpoint step {folder.name} in {folder.parent} is damaged: {why}")

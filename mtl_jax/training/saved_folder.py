"""The folder of a saved run: made beside its place, then put there whole. It knows its files, and removes no others."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import mtl_jax
from mtl_jax import files, paths
from mtl_jax.training import changes, description, fallback, records
from mtl_jax.uncertainty import of_run

MARK = "saved.json"  # in every folder that `Run.save` made; names its files
BEFORE = ("config.json", "data.json", "environment.json", "metrics.jsonl", "checkpoints")  # where the mark names none


@contextlib.contextmanager
def replaced(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A draft to write into, which takes the place of `folder` when the block ends well, and else is removed.

    Raises:
      FileExistsError: if the folder is no saved run, or holds more than one.
    """
    target = paths.followed(folder)
    check_replaceable(folder, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, before = files.beside(target), []
    draft.mkdir()
    try:
        yield draft
        mark = {"by": f"mtl_jax {mtl_jax.__version__}", "files": sorted(contents(draft))}
        files.write_json(draft / MARK, mark)
        while True:
            if target.exists():
                check_replaceable(folder, target)
                before.append(files.beside(target))
                os.rename(target, before[-1])
            try:
                os.rename(draft, target)
                break
            except OSError:
                if not target.exists():  # else another process saved there just now: the last one stays
                    raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if before and not target.exists():
            os.rename(before.pop(), target)
        raise
    finally:
        for each in before:
            shutil.rmtree(each, ignore_errors=True)


def check_replaceable(folder: pathlib.Path, target: pathlib.Path) -> None:
    """An error if something would be lost with what is there."""
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / MARK).exists():
        if (target / "identity.json").exists() and (target / "checkpoints").is_dir():
            raise FileExistsError(f"{folder} is the workdir of a fit, which keeps its state there to go on from; save "
                                  "to another directory, and load the run from that one")  # fmt: skip
        raise FileExistsError(f"{folder} holds something other than a saved run; save to another directory")
    own = files.read_object(target / MARK, {}).get("files")
    if own is None:
        others = [p.name for p in target.iterdir() if p.name not in (*BEFORE, MARK)]
    else:
        files.check_fields({"files": own}, {"files": list}, str(target / MARK))
        others = [name for name in contents(target) if name not in {*own, MARK}]
    if others:
        raise FileExistsError(
            f"{folder} holds {min(others)} beside the saved run; move it away, or save to another directory"
        )


def check_not_saved(folder: pathlib.Path) -> None:
    """An error if a `fit` is to train in the folder of a saved run."""
    if (folder / MARK).exists():
        raise ValueError(f"{folder} holds a saved run, which cannot be trained on; use another workdir")


def contents(folder: pathlib.Path) -> list[str]:
    """The names of all that is no folder under a folder, and of empty folders, relative to it."""
    return [
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_symlink() or not p.is_dir() or not any(p.iterdir())
    ]


def fill(directory: pathlib.Path, run: Any) -> None:
    """All files of a run, in an empty folder."""
    from mtl_jax.checkpoint import Checkpoints

    files.write_json(directory / "config.json", run.config)
    description.write_description(directory, run)
    for record in run.history:
        records.append(directory / "metrics.jsonl", record)
    of_run.write(directory, run.calibration, run.variables)
    fallback.write(directory, run.fallback, run.variables)
    changes.write(directory, run.changes)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        checkpoints.save(run.steps, {"best": run.variables})

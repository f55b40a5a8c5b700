"""Results of several trainings under one working directory: each in a folder, known again by all that it rests on."""

import hashlib
import inspect
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax import files, parts, paths
from mtl_jax.training import identity
from mtl_jax.training.fit import fit
from mtl_jax.training.objects import GIVEN

# Arguments of `fit` that do not change a result.
NOT_IN_RESULTS = ("config", "workdir", "progress", "nonfinite", "log_every", "writers")
STEPS = inspect.signature(fit).parameters["num_steps"].default


class ResultFolders:
    """A folder per result, and one for each run while it trains.

    A result is described by a name, by texts {what: text, or None where an object has none}, and by the objects that no
    text describes.
    """

    def __init__(
        self, workdir: str | pathlib.Path | None, config: dict[str, Any], rests_on: dict[str, Any],
        fields: Mapping[str, Any], room: str = "methods",
    ):  # fmt: skip
        """Results in a working directory.

        Args:
          workdir: None keeps nothing.
          config: what all results have in common, as far as text can say it.
          rests_on: all that they rest on in common (`identity.describe`).
          fields: {field of a result: its type}.
          room: the folder of the results.
        """
        self.workdir = None if workdir is None else paths.local_folder(workdir, "workdir")
        self.config, self.rests_on, self.fields, self.room = config, rests_on, fields, room

    def known(self, name: str, texts: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any] | None:
        """A result, if it is there and of as many steps; an error if it rests on anything else."""
        if self.workdir is None:
            return None
        directory = self.workdir / self.room / file_name(name)
        config, path = self.of(texts), directory / "config.json"
        if not path.exists():
            return None
        own = identity.with_objects(self.rests_on, objects)
        for text in identity.check(directory, own, config, own_config=True, named={}):
            warnings.warn(text, UserWarning, stacklevel=3)
        steps = [c.get("num_steps", STEPS) for c in (files.read_object(path, {}), config)]
        if steps[0] > steps[1]:
            identity.refuse(directory, [f"num_steps: {steps[0]} -> {steps[1]}"])
        result = directory / "result.json"
        return files.read_object(result, self.fields) if steps[0] == steps[1] and result.exists() else None

    def keep(self, name: str, texts: Mapping[str, Any], objects: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Writes a result."""
        if self.workdir is not None:
            directory = self.workdir / self.room / file_name(name)
            files.write_json(directory / "result.json", result)
            files.write_json(directory / identity.FILE, identity.with_objects(self.rests_on, objects))
            files.write_json(directory / "config.json", self.of(texts))

    def program(self, names: Sequence[str]) -> pathlib.Path | None:
        """Where the run of several results goes."""
        return None if self.workdir is None else self.workdir / "programs" / file_name(" and ".join(names))

    def of(self, texts: Mapping[str, Any]) -> dict[str, Any]:
        """What identifies a result, as far as text can."""
        return {**self.config, **{k: GIVEN if text is None else text for k, text in texts.items()}}


def described(arguments: Mapping[str, Any], set_here: Sequence[str]) -> dict[str, Any]:
    """The arguments of `fit`, or the config they came from, as JSON has them, but for what a caller sets itself."""
    given = arguments.get("config") or arguments
    return {k: v if parts.is_literal(v) else GIVEN for k, v in given.items() if k not in set_here}


def file_name(name: str) -> str:
    """A directory's name for a method, or several: readable, and of its own."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")
    return plain if plain == name else f"{plain[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

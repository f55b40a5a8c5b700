"""Losses, metrics and encoders of one's own: written by name, missed when a run is loaded, and given back."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

from mtl_jax import encoders, parts
from mtl_jax.encoders import Encoder
from mtl_jax.reporting import many
from mtl_jax.tasks import Missing, Task
from mtl_jax.training.contents import code_of, name_of


def written(part: Any, kind: str) -> Any:
    """A loss or metric as data.json has it: text, or for a function its name and a digest of its code."""
    if part is None or isinstance(part, str):
        return part
    missing = part if isinstance(part, Missing) else Missing(_name(part), code_of(part), kind)
    return dataclasses.asdict(missing)


def read(entry: Any) -> Any:
    """A loss or metric, or class name, of data.json; a function as `Missing`."""
    return Missing(**entry) if isinstance(entry, dict) else entry


def give_back(tasks: Sequence[Task], given: Sequence[Task] | None) -> tuple[Task, ...]:
    """The tasks with their own functions in place, of `given` tasks of the same names; a warning of what is missing.

    Raises:
      ValueError: for a task that is none of `tasks`, or of another kind or size.
    """
    known = {t.name: t for t in tasks}
    for task in given or ():
        if task.name not in known:
            raise parts.unknown("task to load", task.name, known)
        was = known[task.name]
        if (task.kind, task.size) != (was.kind, was.size):
            raise ValueError(
                f"task {task.name!r} is {was.kind} of size {was.size} in the run, but {task.kind} of size {task.size} "
                "in tasks="
            )
    by_name = {t.name: t for t in given or ()}
    gone: dict[str, str] = {}
    filled = tuple(_filled(t, by_name.get(t.name), gone) for t in tasks)
    many.warn_of(gone, tasks, stacklevel=3)
    return filled


def written_encoder(encoder: Encoder | None) -> dict[str, str] | None:
    """What data.json has of an encoder that no text makes: what its stages are, and a digest of their code."""
    if encoder is None or encoder.spec is not None:
        return None
    stages = [getattr(s, "stage", s) for s in (*encoder.stages, *([] if encoder.pool is None else [encoder.pool]))]
    names = [s.network.name if hasattr(s, "network") else name_of(s) for s in stages]
    return {"made_of": ", ".join(names), "code": code_of(encoder, without="weights")}


def encoder_given(content: dict[str, Any], given: Any, directory: Any) -> Encoder:
    """The encoder of a saved run: what data.json names, or else the one that is given back.

    Raises:
      ValueError: if none is given where one is needed, or one where the run names its own.

    A UserWarning says where the code of the given one is not what the run was trained with.
    """
    own = content.get("own_encoder")
    if content["encoder"] is not None:
        if given is not None and getattr(given, "spec", given) != content["encoder"]:
            raise ValueError(f"the encoder of {directory} is {content['encoder']!r}; leave encoder= out")
        return encoders.build(content["encoder"])
    if given is None:
        of = f" is of one's own ({own['made_of']}): a saved run holds no Python code. G" if own else (
            " was not made of named parts; g")  # fmt: skip
        raise ValueError(
            f"the encoder of {directory}{of}ive it back: load_run(..., "
            "encoder=mtl.encoders.from_module(...)), or the whole model, load_run(..., model=model)"
        )
    if not isinstance(given, Encoder):
        what = given if isinstance(given, str) else type(given).__name__
        raise ValueError(f"encoder is {what!r}; it must be an encoder, such as mtl.encoders.from_module(module)")
    now = written_encoder(given)
    if own and (now is None or (now["code"] != own["code"] and now["code"].split()[0] == own["code"].split()[0])):
        warnings.warn(
            f"the encoder given back is {given.spec if now is None else now['made_of']}, and its code or its settings "
            f"are not those that {directory} was trained with, {own['made_of']}",
            UserWarning,
            stacklevel=3,
        )
    return given


def _filled(task: Task, given: Task | None, gone: dict[str, str]) -> Task:
    """A task with what was given back; what was not is said in `gone`."""
    loss = task.loss
    if isinstance(loss, Missing) and given is not None and callable(given.loss):
        loss = _checked(task, loss, given.loss)
    metrics = task.metrics
    if metrics is not None:
        own = {_name(m): m for m in (given.metrics or () if given is not None else ()) if not isinstance(m, str)}
        metrics = tuple(
            _checked(task, m, own[m.function]) if isinstance(m, Missing) and m.function in own else m for m in metrics
        )
    filled = dataclasses.replace(task, loss=loss, metrics=metrics)
    absent = [m for m in (loss, *(metrics or ())) if isinstance(m, Missing)]
    if absent:
        fields = ", ".join(sorted({"loss=..." if m.part == "loss" else "metrics=..." for m in absent}))
        gone[task.name] = (
            f"task {task.name!r}: a saved run holds no Python functions, here its "
            f"{' and its '.join(f'{m.part} {m.function}' for m in absent)}. They are left out of what is evaluated, "
            "and without its loss a task cannot be trained on. Give them back: "
            f"load_run(..., tasks=[Task({task.name!r}, {task.kind!r}, {fields})])"
        )
    return filled


def _checked(task: Task, missing: Missing, given: Any) -> Any:
    now = code_of(given)
    if now != missing.code and now.split()[0] == missing.code.split()[0]:
        warnings.warn(
            f"task {task.name!r}: the {missing.part} given is {_name(given)}, which is not the code that it was "
            f"trained with, {missing.function}",
            UserWarning,
            stacklevel=6,
        )
    return given


def _name(part: Any) -> str:
    """The name of a loss, or the one that a metric reports."""
    return part.name if hasattr(part, "measure") else name_of(part)

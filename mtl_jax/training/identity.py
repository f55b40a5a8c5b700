"""What a run rests on, in one description: another one in the same place is an error that says what differs.

Everything that changes the result is in it: the data's fingerprint, the tasks with their losses and scalers, what lies
inside objects (an optimizer's rates, a joint loss), all other arguments, and the variables that a run starts from. It
is kept in identity.json, beside the config. What cannot be compared is said.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax import files, partition, parts
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.fingerprint import differences as data_differences
from mtl_jax.data.fingerprint import fingerprint, of_tree
from mtl_jax.reporting import many
from mtl_jax.tasks import Task
from mtl_jax.training import description, records
from mtl_jax.training.contents import contents, versions
from mtl_jax.training.intervals import NAMES as INTERVALS
from mtl_jax.training.objects import GIVEN
from mtl_jax.training.start import Adapted, numbered

FILE = "identity.json"
EARLIER = "earlier version until"  # the step of the last checkpoint of a version that kept no identity
SHOWN = 6  # differences in one message


def describe(
    data: Dataset, tasks: Sequence[Task], arguments: Mapping[str, Any], adapted: Adapted | None = None
) -> dict[str, Any]:
    """The identity of a run, or of a comparison, as JSON has it.

    Args:
      data: what it trains on and is measured on.
      tasks: with the scalers and classes that it uses.
      arguments: all else that changes the result: literals, or objects that are looked into (`contents`).
      adapted: what it starts from, if not from scratch.
    """
    found: dict[str, Any] = {
        "data": fingerprint(data),
        "order of tasks": [t.name for t in tasks],
        "tasks": {t.name: of_task(t) for t in tasks},
        "settings": {k: v for k, v in arguments.items() if parts.is_literal(v)},
        "objects": {k: contents(v) for k, v in arguments.items() if not parts.is_literal(v)},
        "versions": versions(),
    }
    if adapted is not None:
        found["starts from"] = f"{adapted.source}, variables {of_tree(adapted.variables)}"
        found["shared start"] = shared_start(adapted.variables.get("params", {}))
    return records.as_json(found)


def with_objects(found: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with further objects in it."""
    more = records.as_json({k: contents(v) for k, v in objects.items()})
    return {**found, "objects": {**found["objects"], **more}} if more else dict(found)


def shared_start(params: Mapping[str, Any]) -> str:
    """A digest of the shared parameters among {path: array}: runs that have the same started from one trunk."""
    return of_tree({p: x for p, x in params.items() if partition.owner(p) == "shared"})


def of_task(task: Task) -> dict[str, Any]:
    """A task's fields; its loss by name where it is the kind's own."""
    found = contents(task)
    if task.loss is None:
        found["loss"] = task.of_kind.loss
    if task.scaler is not None:
        found["scaler"] = "Scaler"  # where the class lies in the library is nothing that changes a result
    del found[""], found["name"]
    return found


def check(
    directory: pathlib.Path,
    identity: Mapping[str, Any],
    config: dict[str, Any],
    *,
    own_config: bool,
    named: Mapping[str, Any],
) -> list[str]:
    """An error that says what differs, if the directory holds another run; returns what could not be compared.

    Args:
      directory: with the files of an earlier run, or without any.
      identity: of the run that is to go on there.
      config: which the run writes to config.json.
      own_config: whether the caller gave that config, so that all of it is compared too.
      named: {interval: what the caller gave, or None}; those that follow from the number of steps do not count.

    Raises:
      ValueError: if anything differs.
    """
    path = directory / "config.json"
    if not path.exists():
        return []
    files.read_object(path, {})  # it is written anew: a folder or garbage in its place is another's, and is said
    stored, said = read(directory), []
    if stored is None:
        found = records.config_differences(path, config, new_keys=False)
        if named.get("steps_per_dispatch") is None and not own_config:
            found.pop("steps_per_dispatch", None)
        said.append(
            f"{directory} was begun by an earlier version, which kept no {FILE}: whether its data, its tasks' losses "
            "and scalers and what lies inside its optimizer are the same could not be compared"
        )
    else:
        found, said = differences(stored, identity)
        found |= intervals_that_differ(stored, identity, named)
        if own_config:
            found |= records.config_differences(path, config)
        elif not found:  # a config that a caller gave, or changed by hand, is not written over
            of_file = records.config_differences(path, config, new_keys=False)
            found = {k: text for k, text in of_file.items() if k not in ("data", *INTERVALS)}
    refuse(directory, list(found.values()))
    return said


def refuse(directory: pathlib.Path, differ: Sequence[str]) -> None:
    """The error that says what differs, if anything does."""
    if differ:
        more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise ValueError(
            f"{directory} holds a run of another config; it differs in {'; '.join(differ[:SHOWN])}{more}. "
            "Use another workdir, or the config of that run"
        )


def read(directory: pathlib.Path) -> dict[str, Any] | None:
    """The identity that a directory holds; None where there is none."""
    return files.read_json(directory / FILE) if (directory / FILE).exists() else None


def earlier_settings(directory: pathlib.Path) -> dict[str, Any] | None:
    """What `intervals.continued` takes of a directory: an identity, or the config of an earlier version."""
    stored = read(directory)
    if stored is None and (directory / "config.json").exists():
        return {"settings": files.read_json(directory / "config.json")}
    return stored


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """({what: how two identities differ in it, in plain words}, what could not be compared); intervals left out."""
    said: list[str] = []
    found = {text: text for text in data_differences(old["data"], new["data"])}
    if old["order of tasks"] != new["order of tasks"]:
        found["order of tasks"] = _tasks_changed(old["order of tasks"], new["order of tasks"])
    for task in old["tasks"].keys() & new["tasks"].keys():
        for key, text in _entries(old["tasks"][task], new["tasks"][task], f"task {task!r}: ", said).items():
            # A scaler that was fitted follows the data, whose difference says enough.
            if not (key.startswith("scaler") and found):
                found[f"{task}.{key}"] = text
    settings = [{k: v for k, v in x["settings"].items() if k not in INTERVALS} for x in (old, new)]
    for key in sorted(settings[0].keys() | settings[1].keys() | (old["objects"].keys() ^ new["objects"].keys())):
        values = [s.get(key, GIVEN if key in x["objects"] else None)
                  for s, x in zip(settings, (old, new), strict=True)]  # fmt: skip
        if values[0] != values[1] and key not in records.FREE_TO_CHANGE:
            found[key] = _changed(key, *values)
    other_version = [f"{k} {old['versions'].get(k)} -> {v}" for k, v in new["versions"].items()
                     if old["versions"].get(k) != v]  # fmt: skip
    for key in sorted(old["objects"].keys() & new["objects"].keys()):
        texts = _entries(old["objects"][key], new["objects"][key], f"{key}: ", said)
        if texts and other_version:
            said.append(f"whether the {key} is the same could not be compared, as versions differ: "
                        f"{', '.join(other_version)}")  # fmt: skip
        elif texts:
            found |= {f"{key}.{text}": text for text in texts.values()}
    if old.get("hooks") != new.get("hooks"):
        said.append("the hooks are others than it was begun with; what they change could not be compared")
    if old.get("starts from") != new.get("starts from"):
        found["starts from"] = _changed("starts from", old.get("starts from"), new.get("starts from"))
    return found, said


def intervals_that_differ(old: Mapping[str, Any], new: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, str]:
    """{interval: how it differs} of those that change the result, where a caller named them."""
    was, now = old["settings"], new["settings"]
    return {
        k: _changed(k, was.get(k), now.get(k))
        for k in INTERVALS
        if was.get(k) != now.get(k) and k not in records.FREE_TO_CHANGE
        and not (k == "steps_per_dispatch" and (named.get(k) is None or k not in old.get("named", ())))
    }  # fmt: skip


def _entries(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str, said: list[str]) -> dict[str, str]:
    """{place: text} of two `contents`; a text names the last part of a place, since that is what the code calls it."""
    found: dict[str, str] = {}
    for place in sorted(old.keys() | new.keys(), key=lambda p: (p.count("."), p)):
        was, now = (x.get(place, "nothing") for x in (old, new))
        field = next((n for n in reversed(place.split(".")) if not n.isdigit()), "")
        if was == now or any(place.startswith(f"{p}.") or not p for p in found):
            continue  # what is within something else differs by itself
        if field == "over_steps":
            said.append(
                f"{prefix}its schedule was made for {was} steps, and is now for {now}: the rate jumps where the run "
                "goes on"
            )
        elif field == "code" and "nothing" not in (was, now):
            name = old.get(place.removesuffix("code").removesuffix("."), "a function")
            if was.split()[0] == now.split()[0]:
                found[place] = f"{prefix}{name} has other code"
            else:
                said.append(
                    f"{prefix}whether {name} is the same could not be compared, as Python is another: "
                    f"{was.split()[0]} -> {now.split()[0]}"
                )
        else:
            found[place] = f"{prefix}{_value(field, was, now)}"
    replaced = _functions_replaced(old, new)
    if replaced and any(str(old.get(p)).startswith("function ") for p in found) and "loss" not in found:
        return {"": f"{prefix}{replaced}"}
    return {p: t for i, (p, t) in enumerate(found.items()) if t not in list(found.values())[:i]}


def _functions_replaced(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which functions two objects do not have in common: scale_by_adam -> identity."""
    names = [
        dict.fromkeys(v.removeprefix("function ").split(".<locals>")[0].rpartition(".")[2] for v in x.values()
                      if str(v).startswith("function "))
        for x in (old, new)
    ]  # fmt: skip
    gone, came = ([n for n in a if n not in b] for a, b in (names, names[::-1]))
    return f"{', '.join(gone) or 'nothing'} -> {', '.join(came) or 'nothing'}" if gone or came else ""


def _value(field: str, old: Any, new: Any) -> str:
    if field == "step_size" and all(isinstance(v, int | float) for v in (old, new)):
        field, old, new = "learning_rate", -old, -new  # as optax has it inside
    return f"{field} {old!r} -> {new!r}" if field else f"{old!r} -> {new!r}"


def _tasks_changed(old: Sequence[str], new: Sequence[str]) -> str:
    """How two lists of tasks differ; of many tasks, which are gone and which are new."""
    if not (many.is_many(old) or many.is_many(new)):
        return _changed("tasks", old, new)
    gone, came = ([t for t in a if t not in set(b)] for a, b in ((old, new), (new, old)))
    parts_of = [f"{what} {len(names)} ({many.some(names, many.WORST)})" for what, names in
                (("without", gone), ("with", came)) if names]  # fmt: skip
    return f"tasks: {len(old)} -> {len(new)}, {' and '.join(parts_of) or 'in another order'}"


def _changed(what: str, old: Any, new: Any) -> str:
    return f"{what}: {old!r} -> {new!r}"


def check_data(directory: pathlib.Path, data: Dataset) -> None:
    """An error that says what differs, if the run in a directory was trained on other data.

    Labels are compared by class name, as a run may number classes otherwise than the data.

    Raises:
      ValueError: if it was.
    """
    stored = read(directory)
    if stored is not None and all(t in {t.name for t in data.tasks} for t in stored["order of tasks"]):
        tasks = description.read_description(directory)["tasks"]
        data = data.select(stored["order of tasks"])
        splits: dict[str, Any] = numbered(tasks, data)
        now = fingerprint(dataclasses.replace(data, **splits))
        refuse(directory, data_differences(stored["data"], now))

"""What a run was changed by while it went on, kept with it: in `Run.changes`, and in changes.json of its workdir.

Options are kept as they were given, so that a run that is resumed is changed again where it was, and ends the same.
What was done to the state itself lies in the checkpoints; that it was done is kept in words.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtl_jax import callers, files, partition, parts
from mtl_jax.training.objects import GIVEN
from mtl_jax.training.options import CHANGEABLE, FitOptions
from mtl_jax.training.state import TrainState

FILE = "changes.json"
ENTRY = {"step": int, "saved": bool, "what": str, "options": dict}


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The changes of a run, in their order.

    Each has ``step``, ``saved`` (whether a checkpoint of that step was there before), ``what`` in words and
    ``options``.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    found = files.read_object(path, {"changes": list})["changes"]
    for entry in found:
        files.check_fields(entry, ENTRY, f"{path}, an entry")
        check_names(entry["options"])
    return found


def write(workdir: pathlib.Path, changes: Sequence[dict[str, Any]]) -> None:
    """Writes them, or removes the file where there are none."""
    if changes:
        files.write_json(workdir / FILE, {"changes": list(changes)})
    else:
        (workdir / FILE).unlink(missing_ok=True)


def add(changes: list[dict[str, Any]], step: int, saved: bool, what: str, options: Mapping[str, Any] | None) -> bool:
    """Adds one, unless it only says again what the last one does; whether it was added."""
    if not options and changes and changes[-1]["what"] == what and changes[-1]["saved"] == saved:
        return False
    written = {k: v if parts.is_literal(v) else GIVEN for k, v in (options or {}).items()}
    changes.append({"step": step, "saved": saved, "what": what, "options": written})
    return True


def until(changes: Sequence[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Those that were made up to a step; a run that goes on from there makes the later ones again."""
    return [c for c in changes if c["step"] <= step]


def options_at(changes: Sequence[dict[str, Any]], step: int, saved: bool = False) -> dict[str, Any]:
    """The options that a checkpoint of a step was made with; with `saved`, those that held after it."""
    found: dict[str, Any] = {}
    for change in changes:
        if change["step"] < step or (change["step"] == step and (saved or not change["saved"])):
            found |= change["options"]
    return found


def check_names(options: Mapping[str, Any]) -> None:
    """An error for what does not change while a run goes on."""
    for name in options:
        if name not in CHANGEABLE:
            raise parts.unknown("option to change", name, CHANGEABLE)


def check_text(options: Mapping[str, Any]) -> None:
    """An error for an object where a run is resumed from what is written."""
    for name, value in options.items():
        if not parts.is_literal(value):
            text = ': its text, "adam(learning_rate=0.0001)"' if name in ("optimizer", "balancer") else ""
            raise ValueError(f"{name} is an object, which a workdir cannot keep for a resumed run; give what can be "
                             f"written{text}")  # fmt: skip


def replaced(options: FitOptions, changed: Mapping[str, Any]) -> FitOptions:
    """The options with those that changed."""
    return dataclasses.replace(options, **{k: _tuples(v) for k, v in changed.items()})


def differ(one: FitOptions, other: FitOptions) -> list[str]:
    """Names of the options that are not the same."""
    pairs = {k: (_tuples(getattr(one, k)), _tuples(getattr(other, k))) for k in CHANGEABLE}
    return [k for k, (a, b) in pairs.items() if a is not b and not (parts.is_literal(a) and _equal(a, b))]


def _equal(one: Any, other: Any) -> bool:
    return parts.is_literal(other) and one == other


def _tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) and type(value) in (list, tuple) else value


def carried(new: TrainState, old: TrainState, optimizers: Sequence[Any], balancers: Sequence[Any]) -> TrainState:
    """The state of changed options, with all of the old one that it has a place for.

    The state of an optimizer that has another form begins anew, and so does that of another balancer.

    Args:
      new, old: with an entry per task.
      optimizers: the new one and the old one.
      balancers: likewise.
    """
    leaves, anew = partition.flatten(old), ()
    some = {"shared/x": jax.numpy.zeros((2, 2))}
    forms: list[Any] = [jax.tree.structure(jax.eval_shape(o.init, some)) for o in optimizers]
    anew += ("opt_state/",) if forms[0] != forms[1] else ()
    anew += ("balancer_state/",) if balancers[0] != balancers[1] else ()
    kept = {
        p: leaves[p]
        for p, x in partition.flatten(new).items()
        if p in leaves and leaves[p].shape == x.shape and leaves[p].dtype == x.dtype and not p.startswith(anew)
    }
    return partition.unflatten(kept, new)


def warn_of_unsaved(changes: Sequence[dict[str, Any]], step: int, workdir: pathlib.Path) -> None:
    """A warning where a state was changed after the checkpoint that a run goes on from."""
    for change in changes:
        if change["step"] == step and change["saved"] and not change["options"]:
            warnings.warn(f"{workdir}: after checkpoint step {step} was written, {change['what']}; the run goes on "
                          "from the checkpoint, without that", UserWarning, stacklevel=callers.outside())  # fmt: skip


def warn_of_earlier(job: Any) -> None:
    """A warning where a loop that changes nothing goes on with a run that was changed."""
    earlier = job.changes
    if earlier and not job.hooks:
        last = earlier[-1]
        warnings.warn(f"{job.workdir} holds a run that was changed by hand while it trained (at step {last['step']}: "
                      f"{last['what']}); it goes on so, and run.changes has all of it", UserWarning,
                      stacklevel=callers.outside())  # fmt: skip

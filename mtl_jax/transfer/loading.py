"""Load parameters and statistics from anywhere: all is checked before anything is read, and a report says what is what.

A checkpoint of another model raises; a rule with a typo raises; nothing is left at its initial value that a rule does
not `KEEP`. (Partial loads of other libraries keep initial values silently where a name is missing.)
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import partition
from mtl_jax.tasks import Task
from mtl_jax.transfer import resizing
from mtl_jax.transfer.class_order import outputs_in_order
from mtl_jax.transfer.load_report import DoesNotFit, Line, LoadReport
from mtl_jax.transfer.load_rules import KEEP, Origin, origins
from mtl_jax.transfer.sources import Source, is_variables, of_variables, open_source
from mtl_jax.transfer.sources.base import nearest


def load_parameters(
    params: Any,
    source: Any,
    rules: Sequence[Sequence[Any]] = (),
    *,
    resize: Sequence[tuple[str, Any]] = (),
    unused: str | Sequence[str] | None = None,
    tasks: Sequence[Task] = (),
) -> tuple[Any, LoadReport]:
    """Parameters, or parameters and statistics, with values from `source`.

    Args:
      params: a tree of arrays, or a model's whole variables {"params", "state"}, whose statistics are then loaded by
        the same rules. A leaf's dtype and sharding are those of what is loaded. A leaf may be a ShapeDtypeStruct, if it
        is not kept.
      source: a folder of a run, an Orbax checkpoint, a ``.safetensors`` file or the ``.safetensors.index.json`` of
        several, an ``.npz``, a folder with one of these, a `Run`, or {path: array}.
      rules: ordered; the first whose regex matches a leaf's whole path decides where it comes from.
        ``(regex, template)`` names the path in the source, with the regex's groups; ``(regex, KEEP)`` keeps the initial
        value; ``(regex, template or several, change)`` applies a function to what was read, such as a transposition.
        A path that no rule matches is looked for under its own name.
      resize: (regex, how) of the leaves that may be of another size there: "positions" (of a square grid of patches),
        ("positions", (high, wide)), "steps" (the first ones) or "channels" (`transfer.resizing`).
      unused: regexes of what may be left in the source; None: anything, the report lists it.
      tasks: the model's; then classes of heads that come from a run are matched by name.

    Returns:
      (the tree, with new arrays; the report). Only what is needed is read.

    Raises:
      DoesNotFit: a ValueError that lists every leaf without a value and every shape that differs. Nothing was loaded.
      ValueError: for a rule that matches nothing, a damaged source, or values that are not finite, naming them.
      FileNotFoundError: if there is no such source.
    """
    opened = open_source(source)
    leaves = of_variables(params, "the parameters")
    if not leaves:
        raise ValueError("there are no parameters to load into; give a tree of arrays, such as model.init(...)")
    plan = make_plan(leaves, opened, rules, resize=resize, unused=unused, tasks=tasks)
    empty = [p for p in plan.report["kept"] if isinstance(leaves[p], jax.ShapeDtypeStruct)]
    if empty:
        raise ValueError(f"{empty[0]} is to keep its initial value, and is a shape without one")
    values = dict(read(plan, opened, leaves))
    if not is_variables(params):
        return partition.unflatten(values, params), plan.report
    return {kind: partition.unflatten(values, params[kind]) for kind in params}, plan.report


class Part(NamedTuple):
    """How one leaf is made of what the source holds; `order` says which outputs of a head are its own."""

    origin: Origin
    resize: Callable | None
    order: np.ndarray | None


class Plan(NamedTuple):
    """{path: how it is made} of the leaves that are loaded, and the report."""

    parts: dict[str, Part]
    report: LoadReport


def make_plan(
    leaves: dict[str, Any],
    source: Source,
    rules: Sequence[Sequence[Any]],
    *,
    resize: Sequence[tuple[str, Any]] = (),
    unused: str | Sequence[str] | None = None,
    tasks: Sequence[Task] = (),
) -> Plan:
    """What is to be read for which leaf, from shapes alone; arguments are those of `load_parameters`.

    Raises:
      DoesNotFit: if a leaf has no value, or one of another shape.
    """
    found = origins(rules, leaves)
    resizers = resizing.resizers(resize, list(leaves))
    parts: dict[str, Part] = {}
    lines, reshaped = [], []
    for path, origin in found.items():
        if not isinstance(origin, Origin):
            lines.append(Line("kept", path))
            continue
        missing = [p for p in origin.paths if p not in source.shapes]
        if missing:
            why = "there is no" if origin.by_rule else "no rule names it, and the source has no"
            note = f"{why} {missing[0]!r} in it; {nearest(missing[0], source.shapes)}"
            lines.append(Line("uncovered", path, origin.paths, note))
            continue
        try:
            order = outputs_in_order(path, origin.paths[0], tasks, source.tasks) if source.tasks else None
            part = Part(origin, resizers[path], order)
            kind, note, changed = _fit(part, [source.shapes[p] for p in origin.paths], leaves[path])
        except ValueError as error:
            kind, note, changed = "unfit", str(error), False
        lines.append(Line(kind, path, tuple(source.names.get(p, p) for p in origin.paths), note))
        if kind == "loaded":
            parts[path] = part
            reshaped += [path] if changed else []
    read_of = {p for part in parts.values() for p in part.origin.paths}
    left = [p for p in source.shapes if p not in read_of]
    lines += [Line("unused", source.names.get(p, p), note=str(tuple(source.shapes[p].shape))) for p in left]
    report = LoadReport(source.name, lines, reshaped)
    if report["uncovered"] or report["unfit"]:
        raise DoesNotFit(report)
    if not parts:
        raise ValueError(f"nothing would be loaded from {source.name}: the rules keep every path")
    if unused is not None:
        allowed = [re.compile(r) for r in ((unused,) if isinstance(unused, str) else unused)]
        over = [p for p in left if not any(r.fullmatch(p) for r in allowed)]
        if over:
            names = ", ".join(source.names.get(p, p) for p in over[:6]) + (", ..." if len(over) > 6 else "")
            raise ValueError(
                f"{source.name} holds {len(over)} arrays that the model has no place for: {names}; is it of another "
                "model?"
            )
    return Plan(parts, report)


def _fit(part: Part, shapes: list[jax.ShapeDtypeStruct], leaf: Any) -> tuple[str, str, bool]:
    """("loaded" or "unfit", shapes where they change, whether more than the layout does) of one leaf."""
    stored = ", ".join(str(tuple(s.shape)) for s in shapes)
    wanted = tuple(leaf.shape)
    try:
        made = shapes[0] if part.origin.change is None else jax.eval_shape(part.origin.change, *shapes)
    except (TypeError, ValueError, IndexError) as error:
        return "unfit", f"{stored} is not of the layout that is expected there: {str(error).splitlines()[0]}", False
    shape = tuple(made.shape)
    if part.order is not None:
        shape = (*shape[:-1], len(part.order))
    for there in shapes:
        if not _castable(there.dtype, leaf.dtype):
            return (
                "unfit",
                f"{there.dtype} there, {leaf.dtype} in the model; only floats of 16 bits or more are cast",
                False,
            )
    changed = part.order is not None
    if shape != wanted and part.resize is not None:
        try:
            part.resize(np.zeros(shape, np.float32), wanted)
        except ValueError as error:
            return "unfit", str(error), False
        changed = True
    elif shape != wanted:
        given = "" if part.origin.change is None else f" gives {shape}"
        return "unfit", f"{stored}{given} there, {wanted} in the model", False
    notes = [f"{stored} -> {wanted}"] if stored != str(wanted) else []
    notes += [f"{shapes[0].dtype} -> {leaf.dtype}"] if shapes[0].dtype != leaf.dtype else []
    return "loaded", ", ".join(notes), changed


def _castable(old: Any, new: Any) -> bool:
    """Bits of 8 have scales of their own somewhere, and integers are no weights."""
    floats = [jnp.issubdtype(d, jnp.floating) and jnp.dtype(d).itemsize > 1 for d in (old, new)]
    return old == new or all(floats)


def read(plan: Plan, source: Source, leaves: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, array in the leaf's dtype and sharding) of all that the plan loads; each file is read once.

    Raises:
      ValueError: naming a path whose values are not finite, or too large for the leaf's dtype.
    """
    readers: dict[str, list[str]] = {}
    for path, part in plan.parts.items():
        for old in dict.fromkeys(part.origin.paths):
            readers.setdefault(old, []).append(path)
    waiting = {p: set(part.origin.paths) for p, part in plan.parts.items()}
    held: dict[str, np.ndarray] = {}
    for old, value in source.read(list(readers)):
        held[old] = value
        for path in readers[old]:
            waiting[path].discard(old)
            if not waiting[path]:
                yield path, _made(path, plan.parts[path], held, leaves[path], source.name)
        # What nobody waits for any more is let go of.
        held = {o: v for o, v in held.items() if any(waiting[p] for p in readers[o])}


def _made(path: str, part: Part, held: dict[str, np.ndarray], leaf: Any, where: str) -> Any:
    arrays = [held[p] for p in part.origin.paths]
    value = arrays[0] if part.origin.change is None else part.origin.change(*arrays)
    value = value if part.order is None else value[..., part.order]
    if tuple(value.shape) != tuple(leaf.shape):
        assert part.resize is not None  # else the plan would not have been made
        value = part.resize(np.asarray(value, np.float32), tuple(leaf.shape))
    value = np.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
        with np.errstate(over="ignore"):
            cast = value.astype(leaf.dtype)
        if not np.isfinite(cast).all():
            what = f"too large for {leaf.dtype}" if np.isfinite(value).all() else "not finite"
            raise ValueError(f"{where}: values of {', '.join(part.origin.paths)}, for {path}, are {what}")
        value = cast
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return np.ascontiguousarray(value)
    return jax.make_array_from_callback(tuple(leaf.shape), sharding, lambda index: value[index])


__all__ = ["KEEP", "DoesNotFit", "LoadReport", "load_parameters", "make_plan", "read"]

"""Who owns which parameter, how many there are, and what a forward pass costs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tables import serving
from mtl_jax.encoders.base import check_inputs
from mtl_jax.inputs import place
from mtl_jax.model import MultiTaskModel, forward
from mtl_jax.reporting import many
from mtl_jax.tasks import Task
from mtl_jax.training.arguments import check_data, check_model
from mtl_jax.training.start import Adapted, small_batch


class Description(str):
    """Text that a notebook shows as it is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...], right: tuple[int, ...] = ()) -> str:
    """Plain text columns; those in `right` are right-aligned."""
    cells = [header, *rows]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]
    lines = [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def describe(model: MultiTaskModel | Adapted, data: Dataset, freeze: Any = None) -> Description:
    """A table of all parameters (path, shape, count, owner, trains) with totals, tasks and forward FLOPs per row.

    Of many tasks (`reporting.many`), parameters that are alike in all of them have one row, with * for the task.

    Args:
      model: a model, or what `transfer.adapt` returned.
      data: where shapes come from.
      freeze: as `fit` takes it.
    """
    check_model(model)
    check_data(data)
    if isinstance(model, Adapted):
        freeze, model = model.freeze if freeze is None else freeze, model.model
    serving.check_encoder(data, model.encoder)
    example = small_batch(data.train)
    if model.encoder is not None:
        check_inputs(model.encoder, example.inputs, place("train"))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), example))
    trainable = partition.trainable_paths(variables["params"], freeze)
    rows, names = partition.rows(variables["params"], trainable), [t.name for t in model.tasks]
    listed = alike(rows, names) if many.is_many(names) else rows
    shown = [(p, str(s), f"{n:,}", o, "yes" if t else "frozen") for p, s, n, o, t in listed]
    by_owner: dict[str, int] = {"shared": 0}
    for _, _, count, owner, _ in rows:
        by_owner[owner] = by_owner.get(owner, 0) + count
    total = sum(by_owner.values())
    free = sum(n for _, _, n, _, t in rows if t)
    lines = [table(shown, ("path", "shape", "count", "owner", "trains"), right=(2,)), ""]
    if many.is_many(names):
        shared = by_owner.pop("shared")
        own = f" ({many.in_a_line(by_owner, form=',.0f', word='most')})" if by_owner else ""
        by_owner = {"shared": shared, f"{len(by_owner)} tasks{own}": total - shared}
    lines += [f"{owner}: {count:,} ({100 * count / max(total, 1):.0f}%)" for owner, count in by_owner.items()]
    lines += [f"total: {total:,} parameters, {free:,} trainable"]
    lines += [f"forward: {forward_flops(model, variables, example):,.0f} FLOPs per row"]
    about = kind_lines if many.is_many(names) else task_lines
    return Description("\n".join([*lines, *about(model.tasks, data)]))


Row = tuple[str, Any, int, str, bool]  # path, shape, count, owner, trains, as `partition.rows` has them


def alike(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with those as one that differ in the name of a task only, or in shape: * in its place, counts added."""
    tasks, groups = frozenset(names), {}
    for row in rows:
        pattern = "/".join("*" if part in tasks else part for part in row[0].split("/"))
        groups.setdefault((pattern, row[4]), []).append(row)
    found = []
    for (pattern, trains), members in groups.items():
        paths, shapes, _, owners, _ = (dict.fromkeys(x) for x in zip(*members, strict=True))
        shape = next(iter(shapes)) if len(shapes) == 1 else f"{len(shapes)} shapes"
        owner = next(iter(owners)) if len(owners) == 1 else f"{len(owners)} tasks"
        path = pattern if len(paths) > 1 else next(iter(paths))
        found.append((path, shape, sum(row[2] for row in members), owner, trains))
    return found


def kind_lines(tasks: Sequence[Task], data: Dataset) -> list[str]:
    """A line per kind of task: how many there are, and how many labels they have."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.kind, []).append(task)
    lines = []
    for kind, members in groups.items():
        sizes = sorted({t.size for t in members if t.size is not None})
        size = f"({sizes[0]}{f' to {sizes[-1]}' if sizes[1:] else ''})" if sizes else ""
        masks = {t.name: np.asarray(m) for t in members if (m := data.train.masks.get(t.name)) is not None and len(m)}
        rows = {name: int(mask.reshape(len(mask), -1).any(1).sum()) for name, mask in masks.items()}
        counts = many.in_a_line(rows, higher_is_better=True, most=3, form=",.0f", word="fewest")
        apart = {
            "rows weighted": [t.name for t in members if t.name in (data.train.weights or {})],
            "classes weighted": [t.name for t in members if t.class_weights is not None],
            "not in this data set": [t.name for t in members if t.name not in rows],
        }
        more = "".join(f"; {what}: {many.some(of, 3)}" for what, of in apart.items() if of)
        lines.append(f"{len(members)} tasks: {kind}{size}; labelled rows: {counts}{more}")
    return lines


def task_lines(tasks: Sequence[Task], data: Dataset) -> list[str]:
    """A line per task."""
    lines = []
    for task in tasks:
        mask = np.asarray(data.train.masks[task.name]) if task.name in data.train.masks else np.zeros(0)
        size = "" if task.size is None else f"({task.size})"
        present = "not in this data set"
        if mask.size:
            present = f"{mask.reshape(len(mask), -1).any(1).mean():.0%} of {len(mask):,} rows labelled"
        if mask.ndim > 1:
            present += f", at {mask.sum():,} positions"
        present += ", rows weighted" if task.name in (data.train.weights or {}) else ""
        present += ", classes weighted" if task.class_weights is not None else ""
        lines.append(f"task {task.name}: {task.kind}{size}, {present}")
    return lines


def forward_flops(model: MultiTaskModel, variables: Any, example: Any) -> float:
    """Floating-point operations of inference on one row, as XLA counts them before optimisation."""
    rows = len(jax.tree.leaves(example.inputs)[0])
    lowered = jax.jit(lambda v, b: forward(model, v, b)[0]).lower(variables, example)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan"))) / rows

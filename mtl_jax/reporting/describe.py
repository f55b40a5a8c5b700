"""Who owns which parameter, how many there are, and what a forward pass costs."""

from typing import Any

import jax
import numpy as np

from mtl_jax import partition
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.tables import serving
from mtl_jax.encoders.base import check_inputs
from mtl_jax.inputs import place
from mtl_jax.sharing.model import MultiTaskModel, forward
from mtl_jax.training.arguments import check_data, check_model
from mtl_jax.training.start import Adapted, small_batch


class Description(str):
    """Text that a notebook shows as it is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def table(rows: list[tuple[str, ...]], header: tuple[str, ...], right: tuple[int, ...] = ()) -> str:
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
    rows = partition.rows(variables["params"], trainable)
    shown = [(p, str(s), f"{n:,}", o, "yes" if t else "frozen") for p, s, n, o, t in rows]
    by_owner: dict[str, int] = {"shared": 0}
    for _, _, count, owner, _ in rows:
        by_owner[owner] = by_owner.get(owner, 0) + count
    total = sum(by_owner.values())
    free = sum(n for _, _, n, _, t in rows if t)
    lines = [table(shown, ("path", "shape", "count", "owner", "trains"), right=(2,)), ""]
    lines += [f"{owner}: {count:,} ({100 * count / max(total, 1):.0f}%)" for owner, count in by_owner.items()]
    lines += [f"total: {total:,} parameters, {free:,} trainable"]
    lines += [f"forward: {forward_flops(model, variables, example):,.0f} FLOPs per row"]
    for task in model.tasks:
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
    return Description("\n".join(lines))


def forward_flops(model: MultiTaskModel, variables: Any, example: Any) -> float:
    """Floating-point operations of inference on one row, as XLA counts them before optimisation."""
    rows = len(jax.tree.leaves(example.inputs)[0])
    lowered = jax.jit(lambda v, b: forward(model, v, b)[0]).lower(variables, example)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan"))) / rows

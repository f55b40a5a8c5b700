"""Per-task gradients of one forward pass: heads run once, the trunk is pulled back as often as a method needs.

One backward pass of the summed losses through the heads (`heads`) gives every head's gradient and, decode being
separable, the K cotangents at the features. From there the trunk's Jacobian, its Gramian and any weighted sum of task
gradients are pulls of combinations of those cotangents (`forward`, `trunk`). In mode "columns" the cotangents are not
kept either: each is made anew from its own head, so that memory does not grow with the number of tasks.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp

from mtl_jax import partition
from mtl_jax.alike import layout_of
from mtl_jax.batch import Batch
from mtl_jax.gradients import inner_products
from mtl_jax.gradients.examples import examples_of
from mtl_jax.gradients.extra import extra_gradient
from mtl_jax.gradients.forward import through_trunk
from mtl_jax.gradients.heads import cut, through_heads
from mtl_jax.gradients.linearization import MODES, Gradient, JointLoss, Linearization
from mtl_jax.gradients.point import Point
from mtl_jax.gradients.trunk import Trunk
from mtl_jax.model import MultiTaskModel
from mtl_jax.parallel import global_sum, local_key
from mtl_jax.stacking import Layout
from mtl_jax.tasks import Task


def linearize(
    model: MultiTaskModel,
    variables: Any,
    batch: Batch,
    *,
    tasks: Sequence[Task] | None = None,
    trainable: frozenset[str] | None = None,
    **arguments: Any,
) -> Linearization:
    """`linearize_stacked` for variables and a batch with an entry per task.

    Args:
      model, variables, batch: what to differentiate, and where.
      tasks: the model's tasks with their scalers, if the model's own lack them.
      trainable: paths of the leaves to differentiate by; None for all.
      arguments: the others of `linearize_stacked`.
    """
    check_mode(arguments.get("mode", "map"))
    layout = layout_of(model, tuple(tasks or model.tasks), variables, batch, trainable=trainable)
    line = linearize_stacked(
        model, layout, layout.stack_variables(variables), layout.stack_batch(batch), trainable=trainable, **arguments
    )
    state = {**line.state, "tasks": layout.unstack(line.state["tasks"])}
    return line._replace(
        state=state, own=lambda: layout.unstack_paths(line.own()), extra=lambda: layout.unstack_paths(line.extra())
    )


def linearize_stacked(
    model: MultiTaskModel,
    layout: Layout,
    variables: Any,
    batch: Batch,
    *,
    rng: Any = None,
    train: Any = True,
    trainable: frozenset[str] | None = None,
    mode: str | int = "map",
    paths: frozenset[str] | None = None,
    joint: Sequence[JointLoss] = (),
    check_heads: bool = True,
    rows_wanted: bool = True,
) -> Linearization:
    """Runs the model once and offers the gradients of its K losses.

    Args:
      model: what to differentiate.
      layout: how its tasks lie.
      variables, batch: stacked.
      rng: key of the pass.
      train: bool, or a function of paths (see `MultiTaskModel`).
      trainable: paths of the leaves to differentiate by; None for all.
      mode: how the Jacobian's rows are pulled: "map" one by one, "vmap" at once, an integer that many at once;
        "layers": one by one, and of dense layers wider than the batch only the factors (`dense_factors`); or "columns":
        the Gramian as J (J^T e_j) without ever holding J, one tangent map after one pull per task. Rows of tasks with
        branches of their own are pulled together, group by group.
      paths: of the shared leaves that `jacobian`, `gramian` and `cross` are about; None for all.
      joint: losses over several tasks' outputs.
      check_heads: whether a task counts as finite only if what comes back from it through its head is, too.
      rows_wanted: whether rows of the Jacobian will be asked for, and not only weighted sums, which alone are cheaper.
    """
    check_mode(mode)
    flat = partition.flatten(variables["params"])
    chosen = {p: v for p, v in flat.items() if trainable is None or p in trainable}
    shared = {p: v for p, v in chosen.items() if partition.owner(p) == "shared"}
    private = {p: v for p, v in chosen.items() if partition.owner(p) != "shared"}
    point = Point(model, layout, variables, batch, train, None if rng is None else local_key(rng), shared, private)
    columns = mode == "columns"
    rows_wanted = rows_wanted or check_heads
    forward = through_trunk(point, mode, paths, copies=point.branched and rows_wanted and not columns)
    kept = rows_wanted and not (columns and forward.common)  # whether cotangents are; else each is made anew
    heads = through_heads(point, forward, both_ways=columns, kept=kept, check=check_heads)
    trunk = Trunk(point, forward, heads, mode, paths)
    return Linearization(
        losses=heads.losses,
        labelled=heads.labelled,
        finite=heads.finite,
        state=heads.state,
        metrics=forward.metrics,
        jacobian=trunk.jacobian,
        gramian=partial(inner_products.gramian_by_columns if columns else inner_products.held_gramian, trunk),
        largest=partial(inner_products.largest_by_rows if columns else inner_products.held_largest, trunk),
        weighted=lambda weights: global_sum(trunk.weighted(weights).shared),
        cross=partial(inner_products.cross_by_columns if columns else inner_products.held_cross, trunk),
        examples=partial(examples_of, heads),
        at_features=partial(at_features, trunk),
        along=lambda direction: global_sum(trunk.pull(direction).shared),
        own=partial(own_gradient, trunk),
        extra=partial(extra_gradient, trunk, joint),
        notes=forward.notes,
    )


def at_features(trunk: Trunk) -> Gradient:
    """{path in the features: [K, ...]}, the Jacobian by the features that all heads read.

    Raises:
      ValueError: if there are none.
    """
    if not trunk.common:
        raise ValueError("the Jacobian at the features needs features that all heads read; these are per task")
    return trunk.stacked()


def own_gradient(trunk: Trunk) -> Gradient:
    """{path: array}, each leaf of a task's own by that task's loss."""
    heads = trunk.heads
    # Leaves of tasks/* that encode reads are pulled with ones; for the others this part is constant zero.
    read_early = trunk.weighted(jnp.ones(trunk.objectives(), trunk.dtype)).private
    total = global_sum({p: heads.own[p] + read_early[p] for p in trunk.point.private})
    return {p: cut(trunk.layout, heads.usable, g, partition.owner(p)) for p, g in total.items()}


def check_mode(mode: str | int) -> None:
    """An error for a mode that is neither one of `MODES` nor a positive number of rows."""
    if mode not in MODES and not (isinstance(mode, int) and mode > 0):
        raise ValueError(f"unknown engine mode {mode!r}; ({', '.join(MODES)}, or how many rows to pull at once)")


__all__ = ["JointLoss", "Linearization", "linearize", "linearize_stacked"]

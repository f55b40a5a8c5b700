"""The forward pass through the trunk, kept with its transpose: features, new state, and what the model reports."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from mtl_jax.batch import PerTask
from mtl_jax.gradients import dense_factors
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.point import Point
from mtl_jax.gradients.vjps import with_transpose
from mtl_jax.model import merge
from mtl_jax.parallel import data_axis


class Branch(NamedTuple):
    """One linearised computation of features: pull is its transpose, push its tangent map (columns mode only)."""

    first: str | None  # the group that it serves; None: all of them
    pull: Callable
    push: Callable | None
    copies: bool  # whether shared leaves come back as [task, ...], from a copy for each task of the group


class Forward(NamedTuple):
    """A trunk at one batch.

    Attributes:
      branches: one for all tasks, or (`Point.branched`) one for each group.
      common: whether all heads read one value.
      values: {first: features as its heads read them}, [task, ...] unless they are common.
      features: {first: {path in the features: array}} of those that can be differentiated.
      state: what changed of the model's state.
      metrics: what the model reports of itself.
      has_losses: whether it reports auxiliary losses.
      inputs: {path: [N, in]} of the layers whose rows are kept as factors.
      notes: what the mode could not do here, in words.
    """

    branches: list[Branch]
    common: bool
    values: dict[str, Any]
    features: dict[str, Gradient]
    state: dict
    metrics: dict[str, Array]
    has_losses: bool
    inputs: Gradient
    notes: list[str]


def through_trunk(point: Point, mode: str | int, paths: frozenset[str] | None, copies: bool) -> Forward:
    """Runs the trunk once.

    Args:
      point: where.
      mode, paths: as `engine.linearize_stacked` takes them.
      copies: whether a branch reads a copy of the shared leaves for each task, so that a pull gives the row of each.
    """
    opened, notes = taken_apart(point, paths) if mode == "layers" else (None, [])
    zeros = opened.zeros if opened else {}

    def run(shared: Gradient, private: Gradient, added: Gradient, first: str | None) -> tuple[Any, Any]:
        """`Point.encode`, with zeros added to the outputs of factored layers: a pull to those is the cotangents."""
        if opened is None:
            (features, aux), inputs = point.encode(shared, private, first, copies), {}
        else:
            (features, aux), inputs = opened.run(shared, private, added)
        return features, (inputs, *aux)

    groups = point.layout.groups
    branches, values, features, state, metrics, has_losses = [], {}, {}, {}, {}, False
    for first in list(groups) if point.branched else [None]:
        entering = point.layout.copies(first, point.shared) if first and copies else point.shared
        found, pull, push, (inputs, value, changed, aux) = with_transpose(
            lambda s, p, a, first=first: run(s, p, a, first), mode == "columns", entering, point.private, zeros
        )
        branches.append(Branch(first, pull, push, copies))
        common = not isinstance(value, PerTask)
        values |= dict.fromkeys(groups, value) if common else dict(value)
        features |= dict.fromkeys(groups, found) if common else found
        state, metrics = merge(state, changed), metrics | aux["metrics"]
        has_losses |= bool(aux["losses"])
    return Forward(branches, common, values, features, state, metrics, has_losses, inputs, notes)


def taken_apart(point: Point, paths: frozenset[str] | None) -> tuple[dense_factors.Program | None, list[str]]:
    """(the trunk, taken apart at its dense layers, or None where it cannot be; why no layer is, if none is)."""
    if point.branched or data_axis():
        why = "every task has a branch of its own" if point.branched else "under pmap"
        return None, [dense_factors.nothing(why)]
    kernels = [p for p, x in point.shared.items() if x.ndim == 2 and (paths is None or p in paths)]
    opened = dense_factors.take_apart(
        lambda s, p: point.encode(s, p, None), kernels, len(point.layout.names), point.shared, point.private
    )
    return opened, [] if opened.zeros else [dense_factors.nothing(opened.left)]

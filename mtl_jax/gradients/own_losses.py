"""Loss functions of one's own, in the three forms that `balanced` takes, and their values at a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import partition, parts
from mtl_jax.gradients import over_devices
from mtl_jax.gradients.given import check_floats, check_names, in_order, read_mask
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.oracle import Losses


class Values(NamedTuple):
    """What the functions say at a batch: the K losses, which tasks are there, and what came along."""

    losses: Float[Array, " task"]
    mask: Bool[Array, " task"]
    aux: Any


class OwnLosses(NamedTuple):
    """Loss functions.

    Attributes:
      functions: one function of (params, batch) with all losses, or {task: a function of (params, its batch)}; with
        `features` of (params, features, batch), and all read one batch.
      features: (params, batch) -> what all heads read; None where losses are functions of the parameters alone.
      has_aux: whether each function, `features` too, returns (what it returns else, aux).
      has_mask: whether losses come as (losses, mask).
      tasks: names of the tasks, where they are known before a batch is seen.
    """

    functions: Any
    features: Callable | None = None
    has_aux: bool = False
    has_mask: bool = False
    tasks: tuple[str, ...] | None = None

    @property
    def apart(self) -> bool:
        """Whether each task has a function of its own."""
        return isinstance(self.functions, Mapping)

    # --- one call of the user's functions ------------------------------------------------------------------------
    def encoded(self, params: Any, batch: Any) -> tuple[Any, Any]:
        """(features, aux)."""
        if self.features is None:
            raise ValueError("losses without features= encode nothing")
        found = self.features(params, batch)
        return _pair(found, "features", "(features, aux)") if self.has_aux else (found, None)

    def one(self, name: str, *args: Any) -> tuple[Array, tuple[Array, Any]]:
        """(a task's loss, (whether it is there, aux)) by its own function."""
        loss, mask, aux = self._taken_apart(self.functions[name](*args), f"losses[{name!r}]")
        if jnp.ndim(loss):
            raise ValueError(f"losses[{name!r}] returns shape {jnp.shape(loss)}; it must be a scalar: take its mean")
        check_floats(jnp.asarray(loss)[None])
        return jnp.asarray(loss), (jnp.ones((), bool) if mask is None else jnp.asarray(mask, bool), aux)

    def all(self, *args: Any) -> tuple[tuple[str, ...], Values, bool]:
        """(names, values, whether the losses are named) by the one function of all tasks."""
        losses, mask, aux = self._taken_apart(self.functions(*args), "losses")
        names, values, named = in_order(losses, self.tasks)
        return names, Values(check_floats(values), read_mask(mask, names), aux), named

    def _taken_apart(self, found: Any, what: str) -> tuple[Any, Any, Any]:
        found, aux = _pair(found, what, "(losses, aux)") if self.has_aux else (found, None)
        losses, mask = _pair(found, what, "(losses, mask)") if self.has_mask else (found, None)
        return losses, mask, aux

    # --- the values at a batch ------------------------------------------------------------------------------------
    def at(self, params: Any, batch: Any) -> tuple[tuple[str, ...], Values, bool]:
        """(names, values, whether the losses are named)."""
        given, aux = (params,), None
        if self.features is not None:
            features, aux = self.encoded(params, batch)
            given = (params, features)
        if not self.apart:
            names, values, named = self.all(*given, batch)
            return names, values._replace(aux=self.joined_aux(aux, values.aux)), named
        found = {n: self.one(n, *given, own) for n, own in self.batches(batch).items()}
        losses = jnp.stack([x for x, _ in found.values()])
        mask = jnp.stack([m for _, (m, _) in found.values()])
        every = {n: a for n, (_, (_, a)) in found.items()} if self.has_aux else None
        return tuple(found), Values(losses, mask, self.joined_aux(aux, every)), True

    def batches(self, batch: Any) -> dict[str, Any]:
        """{task: what its function reads}; each its own, but for heads, which read the features' batch.

        Raises:
          ValueError: for a task without a batch, or a batch without a task.
        """
        names = tuple(self.functions) if self.tasks is None else self.tasks
        if self.features is not None:
            return dict.fromkeys(names, batch)
        if not isinstance(batch, Mapping) or set(batch) != set(names):
            given = f"has {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"is {type(batch).__name__}"
            raise ValueError(f"batch {given}; each function reads one of its own: {{task: batch}} for "
                             f"{', '.join(names)}")  # fmt: skip
        return {n: batch[n] for n in names}

    def joined_aux(self, of_features: Any, of_losses: Any) -> Any:
        """What the functions returned besides: (the features', the losses') where there are both."""
        if not self.has_aux:
            return None
        return of_losses if self.features is None else (of_features, of_losses)


def read_losses(
    losses: Any, features: Any, heads: Any, has_aux: bool, has_mask: bool, tasks: Sequence[str] | None
) -> OwnLosses:
    """The functions that a caller gave, in whichever form.

    Raises:
      ValueError: if they are no functions, or both forms or neither are given.
    """
    if (features is None) != (heads is None):
        raise ValueError("features and heads go together: heads read (params, features, batch)")
    if (losses is None) == (heads is None):
        raise ValueError("give either losses, or features= and heads=")
    functions = losses if heads is None else heads
    kind = "losses" if heads is None else "heads"
    if isinstance(functions, Mapping):
        check_names(functions, kind)
        if not all(map(callable, functions.values())):
            raise ValueError(f"{kind} must be a function of all losses, or {{task: function}}")
        if tasks is not None and set(tasks) != set(functions):
            raise ValueError(f"tasks are {', '.join(tasks)}, but {kind} are of {', '.join(functions)}")
        tasks = tuple(functions) if tasks is None else tasks
    elif not callable(functions):
        raise parts.no_such(kind, functions, "a function of (params, batch), or {task: function}")
    if features is not None and not callable(features):
        raise parts.no_such("features", features, "a function of (params, batch)")
    return OwnLosses(functions, features, has_aux, has_mask, None if tasks is None else tuple(tasks))


def side(losses: OwnLosses, params: Any, leaves: Gradient, batch: Any, axis_name: str | None, on: Any = True) -> Losses:
    """The losses on a batch as functions of the leaves, for methods that look ahead; `on` are the tasks to look at."""

    def local(leaves: Gradient) -> Float[Array, " task"]:
        values = losses.at(partition.unflatten(leaves, params), batch)[1]
        return jnp.where(labelled, values.losses, 0)

    def mean(tree: Any) -> Any:
        return over_devices.mean(tree, axis_name)

    def own(tree: Any) -> Any:
        return over_devices.vary(tree, axis_name)

    def gradient(leaves: Gradient, weights: Float[Array, " task"]) -> Gradient:
        return mean(jax.grad(lambda x: (weights * local(x)).sum())(own(leaves)))

    def slope(leaves: Gradient, direction: Gradient) -> Float[Array, " task"]:
        return mean(jax.jvp(local, (own(leaves),), (own(direction),))[1])

    mask = losses.at(partition.unflatten(leaves, params), batch)[1].mask
    labelled = over_devices.anywhere(mask, axis_name) & on
    return Losses(lambda leaves: mean(local(leaves)), gradient, slope, labelled)


def two_samples(losses: OwnLosses) -> OwnLosses:
    """The mean of the losses on a pair of batches; a task is there where it is in both."""

    def function(params: Any, batches: tuple[Any, Any]) -> Any:
        (names, one, named), (_, two, _) = (losses.at(params, batch) for batch in batches)
        mean = (one.losses + two.losses) / 2
        found = dict(zip(names, mean, strict=True)) if named else mean
        return (found, one.mask & two.mask), (one.aux, two.aux)

    return OwnLosses(function, None, True, True, losses.tasks)


def _pair(found: Any, what: str, wanted: str) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        shown = "an array" if hasattr(found, "shape") else type(found).__name__
        raise ValueError(f"{what} returns {shown}; with has_aux or has_mask it must be {wanted}")
    return found

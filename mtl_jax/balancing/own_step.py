"""One step of balancing in a loop of one's own: from parameters, state and batch to gradients and the new state."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtl_jax import parts
from mtl_jax.balancing import balance as asking
from mtl_jax.balancing import kept, options
from mtl_jax.balancing.base import Balancer, Needs, method_name
from mtl_jax.balancing.kept import State
from mtl_jax.balancing.options import Options
from mtl_jax.gradients import over_devices, own_losses
from mtl_jax.gradients.finite import all_finite
from mtl_jax.gradients.given import halves, leaves_of, read_mask, shared_paths
from mtl_jax.gradients.oracle import Oracle
from mtl_jax.gradients.own_linearization import linear, vjps_of
from mtl_jax.gradients.own_losses import OwnLosses
from mtl_jax.gradients.own_vjps import Vjps, Where
from mtl_jax.partition import match, unflatten


class Info(NamedTuple):
    """What a call tells of its step. What has an entry per task is [K], or {name: scalar} where losses are named.

    Attributes:
      losses: as they are, nan included.
      weights: of the tasks' gradients of shared leaves; nan where the method decides on a direction instead.
      norms: of the tasks' gradients, cosines: [K, K] between them in the order of the tasks, conflict: the share of
        pairs with a negative one. None where the method has no Gramian, or with monitor=False.
      present: which tasks took part.
      applied: whether the gradients are usable and the state moved on; False where something is not finite.
      aux: what the functions returned besides.
    """

    losses: Any
    weights: Any
    norms: Any
    cosines: Float[Array, "task task"] | None
    conflict: Float[Array, ""] | None
    present: Any
    applied: Bool[Array, ""]
    aux: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Balanced:
    """What `balanced` returns: pure functions, with all that is remembered in a state of the caller's."""

    losses: OwnLosses
    balancer: Balancer
    shared: Any
    options: Options
    balance_paths: Sequence[str]
    nonfinite: str
    axis_name: str | None

    def init(self, params: Any, batch: Any = None) -> State:
        """The first state.

        Args:
          params: any pytree of floating-point arrays.
          batch: one as the losses read (only its shapes count), where the number of losses is not known otherwise and
            the state has to have its final form at once, as `jax.lax.scan` wants it. Without it, a method that keeps
            something per task starts at the first call.
        """
        leaves = leaves_of(params)
        names = self.losses.tasks if batch is None else self._shapes(params, batch)[0]
        return kept.first(self.balancer, names, self._seen(params, leaves), self.options)

    def __call__(
        self,
        params: Any,
        state: State,
        batch: Any,
        key: Array | None = None,
        *,
        mask: Any = None,
        second: Any = None,
        validation: Any = None,
    ) -> tuple[Any, State, Info]:
        """The gradients of one step.

        Args:
          params: where to take them; state: from `init` or the last call.
          batch: what the losses read; for functions of the tasks' own {task: its batch}.
          key: for methods that draw; what the losses draw from is part of the batch.
          mask: [K] bool or {name: bool}, which tasks are there; all by default. Leaves that an absent task alone reads
            have gradient zero, which an optimizer's momentum and decay do not stop (`fit` has a state per task).
          second: another batch, for methods that read two samples: then losses and gradients are means over both. By
            default the samples are the even and the odd rows of `batch`.
          validation: a validation batch, for methods that learn from one.

        Returns:
          (gradients like `params`, new state, info). A leaf that no loss depends on has gradient zero.

        Raises:
          ValueError: for anything that does not fit, saying what does.
        """
        over_devices.check_axis(self.axis_name)
        leaves = leaves_of(params)
        shared = shared_paths(self.shared, params, list(leaves))
        names, named = self._shapes(params, batch)
        template = self._seen(params, leaves)
        how = self._options(names, template)
        self._check_call(how, names, template, key, second, validation)
        state = kept.started(state, self.balancer, names, template, how)
        skip = self.nonfinite == "skip_task"
        given = None if mask is None else read_mask(mask, names)
        where = Where(params, leaves, shared, batch, how.mode, given, skip, self.axis_name)
        source, samples = self.losses, None
        if second is not None:
            source, where = own_losses.two_samples(self.losses), where._replace(batch=(batch, second))
        if self.balancer.needs is Needs.CROSS:
            samples = self._samples(where, batch, second)
        vjps = vjps_of(source, where)
        step = linear(vjps, shared, columns=how.mode == "columns", paths=how.paths, samples=samples)
        oracle = None
        if self.balancer.needs.functions:
            shown = [(batch, True if given is None else given)] + ([] if validation is None else [(validation, True)])
            train, *other = (own_losses.side(self.losses, params, leaves, b, self.axis_name, on) for b, on in shown)
            oracle = Oracle(leaves, train, other[0] if other else None, frozenset(shared))

        present = vjps.labelled & vjps.finite
        ids = asking.task_ids(names)
        key = jax.random.key(0) if key is None else key
        direction, heads, inner, record = asking.balance(
            self.balancer, step.line, state.inner, present, key, state.step, how, ids, oracle
        )
        if len(shared) < len(leaves):
            direction = step.rest(jnp.ones_like(vjps.losses) if heads is None else heads) | direction
        gradients = {p: direction[p].astype(x.dtype) for p, x in leaves.items()}
        whole = all_finite(gradients) & all_finite(inner, state.inner)
        fine = present.any() | ~vjps.labelled.any() if skip else (vjps.finite | ~vjps.labelled).all()
        applied = whole & fine
        gradients = jax.tree.map(lambda g: jnp.where(applied, g, jnp.nan), gradients)
        new = state.moved(applied, inner, vjps.losses, present)

        def by_name(values: Array | None) -> Any:
            if values is None or not named:
                return values
            return {n: values[i] for i, n in enumerate(names)}

        info = Info(
            by_name(vjps.losses), by_name(record["weights"]), by_name(record.get("norms")), record.get("cosines"),
            record.get("conflict"), by_name(present), applied, vjps.aux,
        )  # fmt: skip
        return unflatten(gradients, params), new, info

    def after(self, new_params: Any, state: State, batch: Any) -> State:
        """The state once the step is made, for methods that look at how the losses of the batch changed ('famo').

        Any other method's state is returned as it is, so a loop may always call this.

        Args:
          new_params: after the step; state: what the call returned; batch: what the call read.
        """
        if self.balancer.after is None:
            return state
        if state.before is None:
            raise ValueError("after: the state has not been through a call of balanced(params, state, batch) yet")
        over_devices.check_axis(self.axis_name)
        leaves_of(new_params)
        names, values, _ = self.losses.at(new_params, batch)
        kept.check(state, self.balancer, names, self._seen(new_params, leaves_of(new_params)), self.options)
        losses, present = state.before
        later = jnp.where(present, over_devices.mean(values.losses, self.axis_name), 0)
        inner = asking.after(self.balancer, losses, later, state.inner, present, self.options)
        fine = all_finite(inner, state.inner)
        return state.replace(inner=jax.tree.map(lambda n, o: jnp.where(fine, n, o), inner, state.inner))

    # --- what a call reckons with ---------------------------------------------------------------------------------
    def _shapes(self, params: Any, batch: Any) -> tuple[tuple[str, ...], bool]:
        """(names, whether losses are named), without running the losses."""
        if self.losses.apart:
            return self.losses.tasks or (), True
        found: list[tuple[tuple[str, ...], bool]] = []

        def read(params: Any, batch: Any) -> Array:
            names, values, named = self.losses.at(params, batch)
            found.append((names, named))
            return values.losses

        jax.eval_shape(read, params, batch)
        return found[-1]

    def _seen(self, params: Any, leaves: dict[str, Array]) -> dict[str, Array]:
        """The leaves of one row of the Jacobian."""
        shared = shared_paths(self.shared, params, list(leaves))
        return {p: x for p, x in leaves.items() if p in shared}

    def _options(self, names: tuple[str, ...], template: dict[str, Array]) -> Options:
        """The options with a mode that is none but "map", "vmap", "columns" or a number."""
        paths = None
        if self.balance_paths:
            found = match([(r, True) for r in self.balance_paths], list(template), False)
            paths = frozenset(p for p, on in found.items() if on)
        how = self.options._replace(paths=paths)
        options.check(how, self.balancer, self.losses.features is not None)
        if self.axis_name is not None and how.level == "features" and self.axis_name != over_devices.DATA_AXIS:
            raise ValueError(f"level='features' over devices needs axis_name={over_devices.DATA_AXIS!r}")
        mode, _ = options.resolve(how.mode, self.balancer, len(names), template)
        if how.mode == "auto" and (mode == "layers" or (mode == "columns" and self.nonfinite == "skip_task")):
            mode = "map"
        return how._replace(mode=mode)

    def _samples(self, where: Where, batch: Any, second: Any) -> Callable[[], tuple[Vjps, Vjps]]:
        def samples() -> tuple[Vjps, Vjps]:
            two = halves(batch, method_name(self.balancer)) if second is None else (batch, second)
            first, last = (vjps_of(self.losses, where._replace(batch=b)) for b in two)
            return first, last

        return samples

    def _check_call(
        self, how: Options, names: tuple[str, ...], template: Any, key: Any, second: Any, validation: Any
    ) -> None:
        name, needs = method_name(self.balancer), self.balancer.needs
        if unknown := [t for t in self.balancer.about if t not in names]:
            raise parts.unknown(f"task in balancer {self.balancer.spec}:", unknown[0], names)
        if needs is Needs.ORACLE and validation is None:
            raise ValueError(f"{name} learns from a validation batch; give one: balanced(..., validation=batch)")
        if needs is not Needs.ORACLE and validation is not None:
            raise ValueError(f"{name} reads no validation batch; leave validation out")
        if needs is not Needs.CROSS and second is not None:
            raise ValueError(f"{name} reads one sample; leave second out")
        if key is None and kept.reads(self.balancer, len(names), template, how).key:
            raise ValueError(f"{name} draws at random and no key was given; give one: balanced(..., key=key)")

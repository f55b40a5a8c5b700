"""What a loop of one's own carries from step to step for its balancing method, and whether it is the right one."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtl_jax.balancing import balance
from mtl_jax.balancing.base import Balancer, Keeps, Signal, method_name
from mtl_jax.balancing.options import Options
from mtl_jax.gradients.linearization import Gradient
from mtl_jax.gradients.oracle import Losses, Oracle
from mtl_jax.gradients.reach import reached


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state of a balancing method in a loop of one's own: a pytree of arrays.

    Attributes:
      step: int32 scalar, steps that were applied.
      inner: of the method; None before a method that keeps something per task knows how many there are.
      before: ([K] losses, [K] which tasks took part) of the last step, for methods that look after it; else ().
      method: the method's name.
    """

    step: Any
    inner: Any
    before: Any
    method: str = dataclasses.field(metadata={"static": True})

    def replace(self, **changes: Any) -> "State":
        """The state with some fields changed."""
        return dataclasses.replace(self, **changes)

    def moved(
        self, applied: Bool[Array, ""], inner: Any, losses: Float[Array, " task"], present: Bool[Array, " task"]
    ) -> "State":
        """The state after a step; one that was not applied leaves all but `before` as it was."""
        inner = jax.tree.map(lambda n, o: jnp.where(applied, n, o).astype(o.dtype), inner, self.inner)
        before = self.before
        if before:
            present = present & applied
            before = (jnp.where(present, losses, 0).astype(before[0].dtype), present)
        return self.replace(step=self.step + applied.astype(jnp.int32), inner=inner, before=before)


def _made(balancer: Balancer, count: int, template: Gradient, options: Options) -> tuple[Any, Any]:
    """(the method's first state, what is kept of the step before) for this many tasks."""
    inner = balance.start(balancer, count, count, template, options)
    if balancer.after is None:
        return inner, ()
    wide = jnp.result_type(jnp.float32, *template.values())
    return inner, (jnp.zeros((count,), wide), jnp.zeros((count,), bool))


def _form(balancer: Balancer, count: int, template: Gradient, options: Options) -> Any:
    return jax.eval_shape(lambda leaves: _made(balancer, count, leaves, options), template)


def first(balancer: Balancer, names: tuple[str, ...] | None, template: Gradient, options: Options) -> State:
    """The first state. Without `names`, and if it depends on how many tasks there are, it is not started yet."""
    step, method = jnp.zeros((), jnp.int32), method_name(balancer)
    if names is None:
        without = balancer.memory is Keeps.NOTHING and balancer.after is None and options.update_every == 1
        return State(step, (), (), method) if without else State(step, None, None, method)
    made = _made(balancer, len(names), template, options)
    # Buffers of its own: a step that donates parameters and state cannot take one of them twice.
    inner, before = jax.tree.map(jnp.copy, made)
    return State(step, inner, before, method)


def started(state: Any, balancer: Balancer, names: tuple[str, ...], template: Gradient, options: Options) -> State:
    """The state, begun if it was not, or an error if it is another method's or another number of tasks'."""
    if isinstance(state, State) and state.inner is None and state.before is None:
        _same_method(state, balancer)
        inner, before = _made(balancer, len(names), template, options)
        return state.replace(inner=inner, before=before)
    check(state, balancer, names, template, options)
    return state


def check(state: Any, balancer: Balancer, names: tuple[str, ...], template: Gradient, options: Options) -> None:
    """An error for a state that the method did not make for these tasks, parameters and options."""
    if not isinstance(state, State):
        raise ValueError(f"state is {type(state).__name__}; balanced.init(params) makes the first one")
    _same_method(state, balancer)
    wanted = _form(balancer, len(names), template, options)
    given = jax.tree.map(lambda x: jnp.shape(x), (state.inner, state.before))
    if given != jax.tree.map(lambda x: x.shape, wanted):
        raise ValueError(
            f"state does not fit {method_name(balancer)} with {len(names)} tasks ({', '.join(names)}) and these "
            "parameters and options; balanced.init(params) makes one that does"
        )


def _same_method(state: State, balancer: Balancer) -> None:
    if state.method != method_name(balancer):
        raise ValueError(f"state is of {state.method}, and the method is {method_name(balancer)}; "
                         "balanced.init(params) makes its own")  # fmt: skip


class Reads(NamedTuple):
    """Whether what a method decides depends on these."""

    losses: bool
    key: bool


def reads(balancer: Balancer, count: int, template: Gradient, options: Options) -> Reads:
    """What a method reads besides gradients, off the trace of one update."""
    ones, mask = jnp.ones(count), jnp.ones(count, bool)
    square = jnp.eye(count)

    def update(losses: Array, key: Array) -> Any:
        leaves = {"": jnp.zeros(2)} if options.level == "features" else jax.tree.map(jnp.zeros_like, template)
        flat = Losses(lambda x: ones, lambda x, w: x, lambda x, d: ones, mask)
        rows = {p: jnp.zeros((count, *x.shape), x.dtype) for p, x in leaves.items()}
        ids = np.arange(count, dtype=np.uint32)
        signal = Signal(losses, square, rows, square, Oracle(leaves, flat, flat, frozenset(leaves)), ids)
        state = balancer.init(count, {} if options.level == "features" else leaves)
        return balancer.update(signal, state, mask=mask, key=key)

    return Reads(*reached(update, ones, jax.random.key(0)))

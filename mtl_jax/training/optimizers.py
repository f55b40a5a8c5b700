"""Optimizers: any of optax by name, one state per owner, and decay, factors and clipping by path."""

import contextlib
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mtl_jax import partition, parts
from mtl_jax.batch import aligned


class PerOwner(NamedTuple):
    """An optimizer with a state of its own for ``shared`` and for every task.

    A task without labels in a batch must not move: zero gradients are not enough, since momentum and weight decay
    would move its head. With a state per owner, update and state are both kept by selection.

    Attributes:
      init: ({path: leaf}, stacked=()) -> {owner: state}; the leaves of owners in `stacked` are [task, ...], and so is
        their state: each task's as if it were alone.
      update: (gradients, state, params, present, turn) -> (new params, new state), all but the state {path: leaf};
        `present` is {owner: bool scalar, or [task] of one that is stacked}, owners that it lacks always move; `turn`
        says which of the trunk's states.
      trunk_states: how many states there are for ``shared``, stacked; one per task where tasks take turns.
      clips: whether gradients are clipped by their norm, so that they may be long, and one owner's tell on the others'
        updates.
      factors: rules from path to a factor on the update.
      optimizer: the optax optimizer itself.
    """

    init: Callable
    update: Callable
    trunk_states: int = 1
    clips: bool = False
    factors: partition.Rules = ()
    optimizer: Any = None


def groups(leaves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{owner: {path: leaf}}."""
    by_owner: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        by_owner.setdefault(partition.owner(path), {})[path] = leaf
    return by_owner


def per_owner(
    optimizer: optax.GradientTransformation,
    *,
    clip_norm: float | None = None,
    factors: partition.Rules = (),
    trunk_states: int = 1,
) -> PerOwner:
    """Applies an optax optimizer to each owner's leaves.

    Args:
      optimizer: sees one owner's trainable leaves at a time, so a schedule in it counts the steps in which that owner
        had labels.
      clip_norm: the gradient of all trainable leaves together is scaled down to this norm; frozen leaves do not count.
      factors: rules from path to a factor on the update, for learning rates by layer.
      trunk_states: states of the optimizer for ``shared``, of which an update uses and changes one.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(leaves: dict[str, Array], stacked: Collection[str] = ()) -> dict[str, Any]:
        if not stacked:
            partition.match(factors, list(leaves), 1.0)  # a rule that matches nothing is an error
        states = {
            name: jax.vmap(optimizer.init)(group) if name in stacked else optimizer.init(group)
            for name, group in groups(leaves).items()
        }
        if trunk_states > 1 and "shared" in states:
            states["shared"] = jax.tree.map(lambda x: jnp.stack([x] * trunk_states), states["shared"])
        return states

    def update(
        gradients: dict[str, Array],
        state: dict[str, Any],
        params: dict[str, Array],
        present: dict[str, Bool[Array, "*task"]],
        turn: Int[Array, ""] | None = None,
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        if clip_norm is not None:
            scale = clipping(gradients, clip_norm)
            gradients = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
        factor = partition.match(matching(factors, params), list(params), 1.0) if factors else None

        def move(old: tuple[dict[str, Array], Any], gradients: dict[str, Array]) -> tuple[dict[str, Array], Any]:
            step, inner = optimizer.update(gradients, old[1], old[0])
            if factor is not None:
                step = {p: u * factor[p] for p, u in step.items()}
            return optax.apply_updates(old[0], step), inner

        new_params, new_state = dict(params), {}
        for name, group in groups(gradients).items():
            mine = {p: params[p] for p in group}
            several = trunk_states > 1 and name == "shared"
            before = jax.tree.map(lambda x: x[turn], state[name]) if several else state[name]
            if name in present and present[name].ndim:
                moved, inner = where_each_holds(present[name], move, (mine, before), group)
            elif name in present:
                moved, inner = where_it_holds(present[name], move, (mine, before), group)
            else:
                moved, inner = move((mine, before), group)
            new_params |= moved
            new_state[name] = jax.tree.map(lambda x, new: x.at[turn].set(new), state[name], inner) if several else inner
        return new_params, new_state

    return PerOwner(init, update, trunk_states, clip_norm is not None, factors, optimizer)


def clipping(gradients: dict[str, Array], clip_norm: float) -> Float[Array, ""]:
    """The factor that brings the norm of all leaves down to `clip_norm`; it is measured again in the unit of their
    largest number where squares overflow."""
    norm = optax.tree.norm(gradients)
    one = jnp.ones((), norm.dtype)

    def measure(carry: tuple) -> tuple:
        largest = jnp.stack([jnp.abs(g).max().astype(norm.dtype) for g in jax.tree.leaves(gradients)]).max()
        return optax.tree.norm(jax.tree.map(lambda g: g / largest, gradients)), largest, jnp.zeros((), bool)

    norm, unit, _ = jax.lax.while_loop(lambda c: c[2], measure, (norm, one, jnp.isinf(norm)))
    return jnp.minimum(1.0, clip_norm / unit / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))


def keep_unless(condition: Bool[Array, "*task"], new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`, leaf by leaf; a condition [task] is one for each entry of leaves."""
    return jax.tree.map(lambda n, o: jnp.where(aligned(condition, n) if condition.ndim else condition, n, o), new, old)


def where_it_holds(condition: Bool[Array, ""], move: Callable, old: Any, *given: Any) -> Any:
    """move(old, *given) where the condition holds, else `old`.

    As a branch it is made in place; a selection would copy what both sides read, and takes longer to compile. A GPU
    selects, since it asks the host which branch to take.
    """
    if jax.default_backend() == "gpu":
        return keep_unless(condition, move(old, *given), old)
    return jax.lax.cond(condition, move, lambda old, *_: old, old, *given)


def where_each_holds(conditions: Bool[Array, " task"], move: Callable, old: Any, *given: Any) -> Any:
    """`where_it_holds` for every entry of the leading axis of what lies stacked."""
    if len(conditions) == 1:  # a task by itself moves in place
        alone = jax.tree.map(lambda x: x[0], (old, *given))
        return jax.tree.map(lambda x: x[None], where_it_holds(conditions[0], move, *alone))
    return jax.tree.map(lambda n, o: jnp.where(aligned(conditions, n), n, o), jax.vmap(move)(old, *given), old)


def check_suits(optimizer: Any, leaves: dict[str, Any], name: str | None = None) -> None:
    """An error for an optimizer that cannot be made for, or move, leaves {path: array or shape} by gradients alone.

    Those that search along a line or scale by the loss want its value, or the loss as a function, which nothing here
    can give them: the trunk and every head are moved apart, each by its own gradient, which may be no loss's.
    """

    def once(leaves: dict[str, Any]) -> Any:
        state = whole.init(leaves)
        _, new = whole.update(leaves, state, leaves)
        return state, new

    try:
        whole = optax.with_extra_args_support(optimizer)
        before, after = jax.eval_shape(once, leaves)
    except Exception as error:
        made_by = re.search(r"(\w+)\.<locals>", str(error))
        shown = name or (made_by.group(1) if made_by else "the given one")
        raise ValueError(
            f"optimizer {shown}: it asks for more than gradients and parameters ({error}), which is all that there is "
            "here: trunk and heads are moved apart, each by its own gradient; use 'adam', 'sgd' or another that needs "
            "no value or function of the loss"
        ) from error
    form: Any = jax.tree.structure(before)
    if form != jax.tree.structure(after):
        raise ValueError(f"optimizer {name or 'given'}: its state changes its form at the first step")


@functools.cache
def suited() -> tuple[str, ...]:
    """Names of the optimizers that gradients suffice for."""
    leaf = {"shared/kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
    found = []
    for name, function in OPTIMIZERS.items():
        with contextlib.suppress(ValueError, TypeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_suits(function(1e-3), leaf)
            found.append(name)
    return tuple(found)


def _takes_learning_rate(function: Any) -> bool:
    try:
        return inspect.isfunction(function) and next(iter(inspect.signature(function).parameters)) == "learning_rate"
    except StopIteration:
        return False


OPTIMIZERS = {
    name: getattr(module, name)
    for module in (optax.contrib, optax)  # where both have a name, optax's own wins
    for name in dir(module)
    if not name.startswith("_") and _takes_learning_rate(getattr(module, name))
}

SCHEDULES = {
    name.removesuffix("_schedule"): getattr(optax, name)
    for name in dir(optax)
    if name.endswith("_schedule") and inspect.isfunction(getattr(optax, name)) and name != "inject_hyperparams_schedule"
}


def build_schedule(text: str | None, learning_rate: float, num_steps: int) -> float | Callable:
    """The learning rate over steps.

    `text` names one of `SCHEDULES`, such as ``"cosine_decay"`` or ``"warmup_cosine_decay(warmup_steps=100)"``. What
    it leaves out follows from the run: the peak (or constant, or initial) value is `learning_rate`, warm-up starts at
    0 and lasts a tenth, decay lasts all steps.
    """
    if text is None or text in ("", "constant"):
        return learning_rate
    name, _, given = parts.parse(text, "schedule")
    function = parts.lookup(name, SCHEDULES, "schedule")
    takes = inspect.signature(function).parameters
    peak = "peak_value" if "peak_value" in takes else "value" if "value" in takes else "init_value"
    known = {
        "init_value": 0.0,
        "warmup_steps": max(1, num_steps // 10),
        "decay_steps": num_steps,
        "transition_steps": num_steps,
        "end_value": 0.0,
        peak: learning_rate,
    }
    filled = {k: v for k, v in known.items() if k in takes and k not in given}
    schedule = parts.build(text, SCHEDULES, "schedule", **filled)
    # What tells two of them apart (`training.contents`): a longer run goes on, though its decay is a longer one.
    schedule.described = {"schedule": text, "learning_rate": learning_rate, "over_steps": num_steps}
    return schedule


def build_optimizer(
    text: str, learning_rate: float | Callable = 1e-3, decay: partition.Rules = ()
) -> optax.GradientTransformation:
    """The optax optimizer that `text` names, such as ``"adamw(weight_decay=0.01)"``.

    Args:
      text: the name of any optax optimizer whose first argument is its learning rate, with further arguments.
      learning_rate: a value or a schedule.
      decay: ordered (regex, bool) rules over parameter paths that say where its weight decay applies.

    Raises:
      ValueError: for an unknown name or argument, or decay rules for an optimizer that takes no mask.
    """
    name, positional, given = parts.parse(text, "optimizer")
    if name not in OPTIMIZERS:
        raise parts.unknown("optimizer", name, suited())
    function = OPTIMIZERS[name]
    takes = inspect.signature(function).parameters
    for key in given:
        if key not in takes and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            raise parts.unknown(f"argument of optimizer {name!r}", key, takes)
    extra: dict[str, Any] = {} if positional or "learning_rate" in given else {"learning_rate": learning_rate}
    if decay:
        mask = next((m for m in ("mask", "weight_decay_mask") if m in takes), None)
        if mask is None:
            raise ValueError(f"optimizer {name!r} has no weight-decay mask, so decay rules do not apply; use 'adamw'")
        extra[mask] = lambda group: decay_mask(decay, group)
    return parts.build(text, OPTIMIZERS, "optimizer", **extra)


def decay_mask(rules: partition.Rules, group: dict[str, Array]) -> dict[str, bool]:
    """{path: does weight decay apply}; a rule may match nothing in one owner's group, so misses are no error here."""
    return {p: bool(v) for p, v in partition.match(matching(rules, group), list(group), True).items()}


def matching(rules: partition.Rules, group: dict[str, Array]) -> list:
    """The rules that match any of the paths: of what lies stacked, only the first task's are there."""
    return [r for r in rules if _matches(r[0], group)]


def _matches(pattern: str, group: dict[str, Array]) -> bool:
    try:
        return bool(partition.match([(pattern, True)], list(group), False))
    except ValueError:
        return False

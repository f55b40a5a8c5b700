"""Which inputs of a function its outputs depend on, read off its trace."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

INSIDE = frozenset("pjit jit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call".split())


def reached(function: Callable, *args: Any) -> tuple:
    """Trees of bools like the arguments: which leaves any output depends on. The function is traced, not run.

    A loop or a branch counts as reading all that enters it.
    """
    flat, tree = jax.tree.flatten(args)
    traced = jax.make_jaxpr(lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves))))(*flat)
    return jax.tree.unflatten(tree, _entering(traced.jaxpr, [True] * len(traced.jaxpr.outvars)))


def _entering(program: Any, leaving: list[bool]) -> list[bool]:
    """Which inputs of a jaxpr the marked outputs depend on."""
    wanted = {v for v, on in zip(program.outvars, leaving, strict=True) if on and not isinstance(v, Literal)}
    for equation in reversed(program.eqns):
        on = [v in wanted for v in equation.outvars]
        if not any(on):
            continue
        params = equation.params
        inner: Any = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        inside = [True] * len(equation.invars)
        if equation.primitive.name in INSIDE and len(inner.invars) == len(inside) and len(inner.outvars) == len(on):
            inside = _entering(inner, on)
        wanted |= {v for v, on in zip(equation.invars, inside, strict=True) if on and not isinstance(v, Literal)}
    return [v in wanted for v in program.invars]

"""Whether a program handles every row of a batch by itself, read off its trace.

A task's gradient can be taken apart into its rows' gradients at any point after which rows do not meet. Where they do
meet (batch statistics in a task's own stages, attention over the batch), a row's loss depends on every row's features.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

MIXED, UNKNOWN = "mixed", "unknown"  # what a value can be, besides None (no rows in it) and the axis of its rows

ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp complex conj convert_element_type copy "
    "copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma "
    "log log1p logistic lt max min mul ne neg nextafter not optimization_barrier or pow real reduce_precision rem "
    "round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor".split()
)
REDUCTIONS = frozenset("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split())
SCANS = {"cumsum": "axis", "cumprod": "axis", "cummax": "axis", "cummin": "axis", "cumlogsumexp": "axis",
         "sort": "dimension", "split": "axis", "concatenate": "dimension"}  # fmt: skip
WINDOWS = frozenset("reduce_window_sum reduce_window_max reduce_window_min reduce_window".split())


def meet(function: Callable, rows: Any, size: int) -> str | None:
    """Whether outputs of a function depend on more than their own row of its argument.

    Args:
      function: of `rows`; it is traced, not run.
      rows: a tree whose leaves have the batch as first axis.
      size: of the batch.

    Returns:
      None where row i of every output is a function of row i of the leaves; else why not: "mixed" for an operation
      that joins rows, "unknown" for one that this module does not know.
    """
    traced = jax.make_jaxpr(function)(rows)
    leaves = traced.jaxpr.invars
    if any(v.aval.ndim == 0 or v.aval.shape[0] != size for v in leaves):
        return UNKNOWN
    found = follow(traced.jaxpr, [0] * len(leaves))
    if MIXED in found:
        return MIXED
    # An output that is the same whatever the rows hold has no gradient to take apart.
    return None if all(axis in (0, None) for axis in found) else UNKNOWN


def follow(program: Any, entering: list) -> list:
    """What the outputs of a jaxpr are, from what its inputs are."""
    known: dict[Any, Any] = dict(zip(program.invars, entering, strict=True))

    def of(v: Any) -> Any:
        return None if isinstance(v, Literal) else known.get(v)

    for equation in program.eqns:
        given = [of(v) for v in equation.invars]
        if all(g is None for g in given):
            continue
        if MIXED in given or UNKNOWN in given:
            after: Any = MIXED if MIXED in given else UNKNOWN
        else:
            after = through(equation, given)
        known |= dict(zip(equation.outvars, after if isinstance(after, list) else [after] * len(equation.outvars),
                          strict=True))  # fmt: skip
    return [of(v) for v in program.outvars]


def through(equation: Any, given: list) -> Any:
    """What comes out of one equation, for all outputs alike or as a list."""
    name, params = equation.primitive.name, equation.params
    shapes = [v.aval.shape for v in equation.invars]
    out = equation.outvars[0].aval.shape
    axes = {g for g in given if g is not None}
    axis, at = min(axes), next(i for i, g in enumerate(given) if g is not None)
    shape = shapes[at]
    inner = next((params[k] for k in ("jaxpr", "call_jaxpr") if k in params), None)
    if inner is not None and name in ("pjit", "jit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
                                      "custom_jvp_call"):  # fmt: skip
        return follow(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner, given)
    if name == "dot_general":
        return through_product(params["dimension_numbers"], given, [len(s) for s in shapes])
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        if given[1] is not None or params["batch_group_count"] != 1:
            return UNKNOWN
        return numbers.out_spec[0] if axis == numbers.lhs_spec[0] else MIXED
    if len(axes) > 1:
        return UNKNOWN
    if name in ELEMENTWISE:
        # Operands have one shape but for axes of length 1, or are scalars.
        rows = all(s[axis] == out[axis] for s, g in zip(shapes, given, strict=True) if g is not None)
        return axis if rows and all(len(s) in (len(out), 0) for s in shapes) else UNKNOWN
    if name in REDUCTIONS:
        return MIXED if axis in params["axes"] else axis - sum(a < axis for a in params["axes"])
    if name in SCANS:
        return axis if params[SCANS[name]] != axis else MIXED
    if name == "rev":
        return axis if axis not in params["dimensions"] else MIXED
    if name == "broadcast_in_dim":
        return params["broadcast_dimensions"][axis] if len(axes) == 1 and given[0] is not None else UNKNOWN
    if name == "transpose":
        return params["permutation"].index(axis)
    if name == "squeeze":
        return axis - sum(a < axis for a in params["dimensions"]) if axis not in params["dimensions"] else MIXED
    if name == "reshape":
        return reshaped(shape, out, axis) if params.get("dimensions") is None else UNKNOWN
    if name == "slice":
        return axis if out[axis] == shape[axis] and (params["strides"] or (1,) * len(shape))[axis] == 1 else MIXED
    if name == "pad":
        return axis if given[1] is None and tuple(params["padding_config"][axis]) == (0, 0, 0) else UNKNOWN
    if name in WINDOWS and at == 0:
        still = params["window_dimensions"][axis] == 1 and params["window_strides"][axis] == 1
        return axis if still and tuple(params["padding"][axis]) == (0, 0) else MIXED
    return UNKNOWN


def through_product(numbers: Any, given: list, ndims: list[int]) -> Any:
    """The rows' axis in the output of a `dot_general`: its batch axes, then the left's others, then the right's."""
    contracted, batch = numbers
    if None not in given:
        left, right = [tuple(b).index(g) if g in b else None for b, g in zip(batch, given, strict=True)]
        return left if left is not None and left == right else UNKNOWN
    side = 0 if given[0] is not None else 1
    axis = given[side]
    if axis in contracted[side]:
        return MIXED
    if axis in batch[side]:
        return tuple(batch[side]).index(axis)
    free = [[a for a in range(n) if a not in (*c, *b)] for n, c, b in zip(ndims, contracted, batch, strict=True)]
    return len(batch[0]) + side * len(free[0]) + free[side].index(axis)


def reshaped(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> Any:
    """Where an axis is after a reshape that leaves it whole."""
    ahead = np.prod(before[:axis], dtype=int)
    for i, length in enumerate(after):
        if length == before[axis] and np.prod(after[:i], dtype=int) == ahead:
            return i
    return UNKNOWN

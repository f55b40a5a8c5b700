"""What enters each layer: the Gram matrices of the inputs of every kernel, read off the traced program.

Whatever module, library or hand wrote the model: a kernel that enters a matrix product or a convolution as its right
operand has as inputs that product's left operand, or its patches. A kernel that is read several times has the inputs
of all readings. Others are left, and why is said.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float

from mtl_jax import partition

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # parameters that hold the program of a call
OPAQUE = ("scan", "while", "cond", "shard_map", "custom_linear_solve")  # not to be opened as a plain call


class Inputs(NamedTuple):
    """What enters the kernels.

    Attributes:
      grams: {path: [in, in], the mean outer product of a row of inputs}, in the order of the computation.
      left: {path: why there are none} of other leaves of two axes or more.
    """

    grams: dict[str, Float[np.ndarray, "input input"]]
    left: dict[str, str]


def make_grams(function: Callable, leaves: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Sequence[Any]], Inputs]:
    """(leaves, batches) -> `Inputs`, compiled once.

    Args:
      function: ({path: leaf}, batch) -> anything; it reads the kernels.
      leaves: {path: leaf} of which those of two axes or more are looked for.
    """
    wanted = tuple(p for p, x in leaves.items() if np.ndim(x) > 1)
    left: dict[str, str] = {}
    order: list[str] = []

    @jax.jit
    def sums(leaves: Mapping[str, Any], batch: Any) -> dict[str, tuple[Array, Array]]:
        traced = jax.make_jaxpr(function)(leaves, batch)
        flat = jax.tree.leaves((leaves, batch))
        names = dict(enumerate(partition.flatten(dict(leaves))))
        marks = {v: names[i] for i, v in enumerate(traced.jaxpr.invars[: len(names)]) if names[i] in wanted}
        walk = Walk({}, {}, [])
        walk.through(traced.jaxpr, traced.consts, flat, marks)
        left.clear()
        left.update({p: walk.left.get(p, "it is not read") for p in wanted if p not in walk.found})
        left.update({p: why for p, why in walk.left.items() if p in walk.found})
        order[:] = [p for p in walk.found if p not in left]
        return {p: outer(walk.found[p]) for p in order}

    def grams(leaves: Mapping[str, Any], batches: Sequence[Any]) -> Inputs:
        total: dict[str, Any] = {}
        rows: dict[str, float] = {}
        for batch in batches:
            for path, (gram, count) in jax.device_get(sums(dict(leaves), batch)).items():
                total[path] = total.get(path, 0) + gram.astype(np.float64)
                rows[path] = rows.get(path, 0) + float(count)
        return Inputs({p: total[p] / rows[p] for p in order if p in total}, dict(left))

    return grams


def outer(found: Sequence[Array]) -> tuple[Float[Array, "input input"], Float[Array, ""]]:
    """(the sum of the outer products of all rows, how many there are)."""
    rows = [x.reshape(-1, x.shape[-1]).astype(jnp.promote_types(x.dtype, jnp.float32)) for x in found]
    total: Any = sum(jnp.matmul(x.T, x, precision="highest") for x in rows)
    return total, jnp.asarray(float(sum(len(x) for x in rows)), jnp.float32)


class Walk(NamedTuple):
    """A run through a traced program that keeps what enters the marked kernels.

    Attributes:
      found: {path: inputs [..., in] of each reading}.
      left: {path: why its inputs are not known}.
      within: names of the calls that are open.
    """

    found: dict[str, list[Array]]
    left: dict[str, str]
    within: list[str]

    def through(self, program: Any, consts: Sequence[Any], args: Sequence[Any], marks: dict[Any, str]) -> list[Any]:
        """The program's outputs.

        Args:
          program: a jaxpr.
          consts, args: its values.
          marks: {variable: path} of the arguments that are kernels.
        """
        values = dict(zip([*program.constvars, *program.invars], [*consts, *args], strict=True))
        marks = dict(marks)

        def read(variable: Any) -> Any:
            return variable.val if isinstance(variable, core.Literal) else values[variable]

        for equation in program.eqns:
            operands = [read(v) for v in equation.invars]
            kernels = {i: marks[v] for i, v in enumerate(equation.invars) if not isinstance(v, core.Literal) and
                       v in marks}  # fmt: skip
            name = equation.primitive.name
            inner = next((equation.params[k] for k in CALLS if k in equation.params), None)
            if inner is not None and name not in OPAQUE:
                body, own = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
                below = {body.invars[i]: path for i, path in kernels.items()}
                found = self.through(body, own, operands, below)
            else:
                if kernels:
                    self.look(equation, operands, kernels, marks)
                variables = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal)))
                alone = program.replace(constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation])
                found = jax.core.eval_jaxpr(alone, (), *map(read, variables))
            values.update(zip(equation.outvars, found, strict=True))
        return [read(v) for v in program.outvars]

    def look(self, equation: Any, operands: list[Any], kernels: dict[int, str], marks: dict[Any, str]) -> None:
        """Keeps the inputs of the kernels that an equation reads, passes the mark on, or says why not."""
        name = equation.primitive.name
        if name in ("convert_element_type", "copy") or (name == "reshape" and as_matrix(operands[0], equation)):
            marks[equation.outvars[0]] = kernels[0]
            return
        for i, path in kernels.items():
            inputs = None
            if i == 1 and name == "dot_general":
                inputs = of_product(equation.params, *operands)
            elif i == 1 and name == "conv_general_dilated":
                inputs = of_convolution(equation.params, *operands)
            if inputs is None:
                self.left.setdefault(path, f"read by {name}, not as inputs @ kernel")
            else:
                self.found.setdefault(path, []).append(inputs)


def as_matrix(kernel: Array, equation: Any) -> bool:
    """Whether an equation makes a kernel a matrix by its outputs, as `encoders.convolution` does on a CPU."""
    return tuple(equation.outvars[0].aval.shape) == (kernel.size // max(kernel.shape[-1], 1), kernel.shape[-1])


def of_product(params: Mapping[str, Any], operand: Array, kernel: Array) -> Array | None:
    """[..., in], what a kernel [in axes, out axes] is multiplied with."""
    (left, right), batch = params["dimension_numbers"]
    if any(map(len, batch)) or tuple(right) != tuple(range(len(right))):
        return None
    operand = jnp.moveaxis(operand, left, range(-len(left), 0))
    return operand.reshape(*operand.shape[: operand.ndim - len(left)], int(np.prod(kernel.shape[: len(right)])))


def of_convolution(params: Mapping[str, Any], operand: Array, kernel: Array) -> Array | None:
    """[..., in], the patches that a kernel [spatial axes, channels, out] is multiplied with; None if it is grouped."""
    how = params["dimension_numbers"]
    axes = kernel.ndim
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    if tuple(how.rhs_spec) != (axes - 1, axes - 2, *range(axes - 2)):
        return None
    patches = jax.lax.conv_general_dilated_patches(
        operand, kernel.shape[:-2], params["window_strides"], params["padding"], params["lhs_dilation"],
        params["rhs_dilation"], dimension_numbers=how, precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    patches = jnp.moveaxis(patches, how.out_spec[1], -1)
    channels, window = kernel.shape[-2], kernel.shape[:-2]
    patches = patches.reshape(*patches.shape[:-1], channels, *window)  # channels come first there
    return jnp.moveaxis(patches, -len(window) - 1, -1).reshape(
        *patches.shape[: axes - 1], channels * int(np.prod(window))
    )

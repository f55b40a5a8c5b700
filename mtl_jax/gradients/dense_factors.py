"""Dense layers seen from outside: what enters their product and what comes back make their part of the Gramian.

The gradient of a kernel is A'D for inputs A [N, in] and cotangents D [N, out] of N rows (examples, or examples times
positions), so two tasks' gradients have the inner product <D_i, (AA') D_j>. Where N is well below the layer's width,
AA' is made once and that takes fewer operations and less memory than the gradients [in, out] themselves.

Which layers these are is read off the traced program, whatever module, library or hand wrote it: a kernel that enters
one matrix product, as ``inputs @ kernel`` and in no other way, has just that gradient, whatever the inputs went through
before. Zeros are added to the product itself, so that a pull to them is D, and A is the product's own operand.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FLOATS = ("float64", "float32", "float16", "bfloat16")  # between these a kernel may be cast on its way to the product


class Factored(NamedTuple):
    """The rows of a kernel's Jacobian as factors: row i is inputs' cotangents[i]."""

    inputs: Float[Array, "N input"]
    cotangents: Float[Array, "task N output"]


class Product(NamedTuple):
    """A matrix product inputs @ kernel of a traced program: the equation, and its shape with the inputs' rows as N."""

    equation: Any
    rows: int
    width: int
    out: int


class Program(NamedTuple):
    """A traced function, taken apart at some of its products.

    Attributes:
      run: (*the function's arguments, {path: zeros}) -> (what the function returns, {path: [N, in]}), with the zeros
        added to the products' outputs.
      zeros: {path: zeros like the product's output}.
      left: {path: why its product is not taken apart} of the other kernels.
    """

    run: Callable
    zeros: dict[str, Array]
    left: dict[str, str]


def is_factored(leaf: Any) -> bool:
    """Whether a leaf of a Jacobian is `Factored`."""
    return isinstance(leaf, Factored)


def take_apart(
    function: Callable, paths: Sequence[str], num_tasks: int, leaves: dict[str, Array], *args: Any
) -> Program:
    """A function of (leaves, *args), taken apart at the products of those kernels that are better `Factored`.

    Args:
      function: what reads the kernels; it is traced once.
      paths: of the kernels among the leaves.
      num_tasks: rows of the Jacobian.
      leaves, args: what the function is traced at.
    """
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(leaves, *args)
    program = traced.jaxpr
    readers: dict[Any, list[Any]] = {}
    for equation in program.eqns:
        for v in equation.invars:
            if not hasattr(v, "val"):  # no literal
                readers.setdefault(v, []).append(equation)
    returned = {v for v in program.outvars if not hasattr(v, "val")}
    variables = dict(zip(sorted(leaves), program.invars, strict=False))
    products, left = {}, {}
    for path in sorted(paths):
        found = product_of(variables[path], readers, returned)
        if isinstance(found, str):
            left[path] = found
        elif not pays(found, num_tasks):
            left[path] = f"{found.rows} rows are too many for {found.width} x {found.out}"
        else:
            products[path] = found

    # Each such equation's output, plus zeros that are arguments of the new program; its left operand is returned too.
    equations, added = {}, []
    for product in products.values():
        output = product.equation.outvars[0]
        like = jax.ShapeDtypeStruct(output.aval.shape, output.aval.dtype)
        addition = jax.make_jaxpr(jnp.add)(like, like).jaxpr
        before, zeros = addition.invars
        equations[id(product.equation)] = [
            product.equation.replace(outvars=[before]), addition.eqns[0].replace(outvars=[output])
        ]  # fmt: skip
        added.append(zeros)
    opened = program.replace(
        invars=[*program.invars, *added],
        outvars=[*program.outvars, *(p.equation.invars[0] for p in products.values())],
        eqns=[new for old in program.eqns for new in equations.get(id(old), [old])],
    )

    def run(*args: Any) -> tuple[Any, dict[str, Array]]:
        *args, zeros = args
        flat = [*jax.tree.leaves(args), *(zeros[p] for p in products)]
        values = jax.core.eval_jaxpr(opened, traced.consts, *flat)
        count = len(program.outvars)
        entering = {}
        for (path, product), operand in zip(products.items(), values[count:], strict=True):
            ((contracted,), _), _ = product.equation.params["dimension_numbers"]
            entering[path] = jnp.moveaxis(operand, contracted, -1).reshape(-1, product.width)
        return jax.tree.unflatten(jax.tree.structure(shapes), values[:count]), entering

    zeros = {p: jnp.zeros(x.equation.outvars[0].aval.shape, x.equation.outvars[0].aval.dtype)
             for p, x in products.items()}  # fmt: skip
    return Program(run, zeros, left)


def product_of(variable: Any, readers: dict[Any, list[Any]], returned: set) -> Product | str:
    """The one product that reads a kernel, or why there is none."""
    kernel = variable.aval
    while True:
        reading = readers.get(variable, [])
        if len(reading) + (variable in returned) != 1 or not reading:
            return f"read {len(reading) + (variable in returned)} times"
        equation = reading[0]
        name = equation.primitive.name
        if name != "convert_element_type":
            break
        variable = equation.outvars[0]
        if variable.aval.dtype.name not in FLOATS:
            return f"read as {variable.aval.dtype.name}"
    if name != "dot_general":
        return f"read by {name}"
    operand, output = equation.invars[0], equation.outvars[0].aval
    (left, right), batch = equation.params["dimension_numbers"]
    plain = equation.invars[1] is variable and hasattr(operand, "aval") and not hasattr(operand, "val")
    if not plain or tuple(right) != (0,) or any(map(len, batch)) or operand.aval.dtype.name not in FLOATS:
        return "not read as inputs @ kernel"
    if output.dtype.name not in FLOATS or kernel.dtype != jnp.promote_types(output.dtype, jnp.float32):
        return f"{kernel.dtype.name}, in a product in {output.dtype.name}"
    width, out = kernel.shape
    return Product(equation, operand.aval.size // max(operand.aval.shape[left[0]], 1), width, out)


def pays(product: Product, num_tasks: int) -> bool:
    """Whether AA', its products with D and one product A'D take fewer operations than a gradient per task."""
    rows, width, out = product.rows, product.width, product.out
    return num_tasks * rows * rows * out + rows * rows * width + rows * width * out < num_tasks * rows * width * out


def with_outer(rows: Factored) -> Float[Array, "task N output"]:
    """(AA') D_i of every task."""
    outer = jnp.einsum("ni,mi->nm", rows.inputs, rows.inputs, precision="highest", preferred_element_type=wide(rows))
    return jax.lax.map(lambda d: jnp.matmul(outer, d.astype(outer.dtype), precision="highest"), rows.cotangents)


def combine(weights: Float[Array, " task"], rows: Factored) -> Float[Array, "input output"]:
    """The weighted sum of the rows."""
    seed = jnp.tensordot(weights.astype(wide(rows)), rows.cotangents.astype(wide(rows)), 1, precision="highest")
    return jnp.matmul(rows.inputs.astype(seed.dtype).T, seed, precision="highest")


def wide(rows: Factored) -> Any:
    """The dtype of sums: float32 at least."""
    return jnp.promote_types(rows.cotangents.dtype, jnp.float32)


def nothing(why: str | dict[str, str]) -> str:
    """What to say where no layer is taken apart: why, or why each kernel is not (the first few)."""
    if isinstance(why, dict):
        few = [f"{p}: {w}" for p, w in list(why.items())[:3]]
        why = "; ".join(few + ["..."] * (len(why) > 3)) or "no matrix is trained and shared"
    return f"no layer is taken apart, so rows are pulled as by 'map' ({why})"

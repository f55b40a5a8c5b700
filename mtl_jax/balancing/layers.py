"""Dense layers seen from outside: what enters them and what comes back make their part of the Gramian.

The gradient of a kernel is A'D for inputs A [N, in] and cotangents D [N, out] of N rows (examples, or examples times
positions), so two tasks' gradients have the inner product <D_i, (AA') D_j>. Where N is well below the layer's width,
AA' is made once and that takes fewer operations and less memory than the gradients [in, out] themselves.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Factored(NamedTuple):
    """The rows of a kernel's Jacobian as factors: row i is inputs' cotangents[i]."""

    inputs: Float[Array, "N input"]
    cotangents: Float[Array, "task N output"]


class Watched(NamedTuple):
    """A dense layer that was called once: the shape and dtype of its output, rows first, and its input width."""

    output: jax.ShapeDtypeStruct
    width: int


def is_factored(leaf: Any) -> bool:
    """Whether a leaf of a Jacobian is `Factored`."""
    return isinstance(leaf, Factored)


@contextlib.contextmanager
def watching(kernels: dict[str, Array], call: Callable[[str, Float[Array, "N input"], Array], Array]) -> Iterator[None]:
    """Within it, a Flax `Dense` whose kernel is one of `kernels` returns call(path, its inputs, its output)."""
    paths = {id(kernel): path for path, kernel in kernels.items()}

    def intercept(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        output, module = method(*args, **kwargs), context.module
        if type(module) is not nn.Dense or context.method_name != "__call__":
            return output
        path = paths.get(id(module.get_variable("params", "kernel")))
        if path is None:
            return output
        inputs = args[0].astype(output.dtype)
        return call(path, inputs.reshape(-1, inputs.shape[-1]), output)

    with nn.intercept_methods(intercept):
        yield


def find(function: Callable[[dict[str, Array]], Any], kernels: dict[str, Array], num_tasks: int) -> dict[str, Watched]:
    """The layers that are better `Factored` with `num_tasks` rows in the Jacobian.

    Args:
      function: of the kernels, what calls the layers.
      kernels: {path: [in, out]}.
      num_tasks: rows of the Jacobian.

    A kernel that is read anywhere else, or by a layer that is called twice, is left out: its gradient has more parts.
    So is one that is read inside a loop or another compiled or rematerialised call, out of which no input comes.
    """
    found = {}

    def run(kernels: dict[str, Array]) -> Any:
        def note(path: str, inputs: Array, output: Array) -> Array:
            found[path] = Watched(jax.ShapeDtypeStruct((len(inputs), output.shape[-1]), output.dtype), inputs.shape[-1])
            return output

        with watching(kernels, note):
            return function(kernels)

    program = jax.make_jaxpr(run)(kernels).jaxpr
    readers: dict[int, list[Any]] = {}
    for equation in program.eqns:
        for v in equation.invars:
            readers.setdefault(id(v), []).append(equation)

    def one_product(variable: Any) -> bool:
        """Whether one matrix product is all that reads a variable, be it in another precision."""
        reading = readers.get(id(variable), [])
        if len(reading) != 1 or any(v is variable for v in program.outvars):
            return False
        name = reading[0].primitive.name
        return name == "dot_general" or (name == "convert_element_type" and one_product(reading[0].outvars[0]))

    alone = {path for path, v in zip(sorted(kernels), program.invars, strict=True) if one_product(v)}
    return {p: layer for p, layer in found.items() if p in alone and pays(layer, num_tasks)}


def pays(layer: Watched, num_tasks: int) -> bool:
    """Whether AA', its products with D and one product A'D take fewer operations than a gradient per task."""
    (rows, out), width = layer.output.shape, layer.width
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

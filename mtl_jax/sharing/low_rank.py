"""Kernels that are made of factors in common and a code per task and layer: what GO-MTL and DMTRL have in common.

Every leaf of an encoder with two or more axes is such a kernel; the others (biases, scales) are each task's own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey, named_key
from mtl_jax.model import MultiTaskModel, merge
from mtl_jax.sharing.composed import composed, split_kernels
from mtl_jax.sharing.encoder_copies import init_columns
from mtl_jax.tasks import Task


class Factors(NamedTuple):
    """How a kernel is made.

    Attributes:
      start: (kernels [latent, ...]) -> {name: factor}, from as many draws of the kernel as a code has entries.
      compose: ({name: factor}, code [latent]) -> kernel.
    """

    start: Callable
    compose: Callable


def map_kernels(tree: Any, function: Callable, stop: Callable) -> Any:
    """`tree` with `function` of every node that `stop` accepts in its place."""
    if stop(tree):
        return function(tree)
    return {name: map_kernels(value, function, stop) for name, value in tree.items()}


def is_factors(node: Any) -> bool:
    """Whether a node is {name: factor} of one kernel."""
    return bool(node) and not any(isinstance(value, dict) for value in node.values())


def kernel_of(variables: Any, task: str, factors: Factors) -> dict[str, Any]:
    """The encoder's parameters that `task` runs with."""
    own = variables["params"]["tasks"][task]
    made = {
        layer: map_kernels(tree, lambda node, layer=layer: factors.compose(node, own["codes"][layer]), is_factors)
        for layer, tree in variables["params"]["shared"]["encoder"].items()
    }
    return merge(made, own.get("encoder", {}))


def low_rank(
    encoder: Encoder,
    tasks: Sequence[Task],
    sharing: str,
    latent: int,
    factors: Factors,
    penalty: Callable,
) -> MultiTaskModel:
    """A network per task whose kernels are composed; each task is a pass of its own, with statistics of its own.

    Factors are under ``shared/encoder/<kernel's path>``, codes under ``tasks/<t>/codes/<layer>``, and what is no kernel
    under ``tasks/<t>/encoder``. A code starts as a random unit vector.
    """
    if latent < 1:
        raise ValueError(f"{sharing}: latent={latent} must be at least 1")
    named = base.layers(encoder)
    copies = tuple(map(str, range(latent)))

    def first(rng: Key[Array, ""] | TaskKey, x: Any, t: str) -> tuple[dict, dict, dict, Any]:
        """(shared params, the task's params, its state, features)."""
        drawn, _, _ = init_columns(named, rng, x, "shared/encoder", copies)
        kernels, _ = split_kernels(drawn, 1)
        made = map_kernels(kernels, factors.start, lambda node: not isinstance(node, dict))
        weights, state, x = base.init_layers(named, rng, x, f"tasks/{t}/encoder")
        _, others = split_kernels(weights, 0)
        codes = {layer: unit_vector(named_key(rng, f"tasks/{t}/codes/{layer}")) for layer in made}
        return made, {"codes": codes, **({"encoder": others} if others else {})}, state, x

    def unit_vector(key: Key[Array, ""]) -> Float[Array, " latent"]:
        draw = jax.random.normal(key, (latent,), jnp.float32)
        return draw / jnp.linalg.norm(draw)

    return composed(encoder, tasks, sharing, first, lambda variables, t: kernel_of(variables, t, factors), penalty)

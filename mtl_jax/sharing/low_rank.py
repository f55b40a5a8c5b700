"""Kernels that are made of factors in common and a code per task and layer: what GO-MTL and DMTRL have in common.

Every leaf of an encoder with two or more axes is such a kernel; the others (biases, scales) are each task's own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mtl_jax.encoders.base import Encoder
from mtl_jax.keys import TaskKey
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
    copies = tuple(map(str, range(latent)))

    def weights(at: Any, layers: Any, x: Any) -> dict[str, Any]:
        def kernels(key: Key[Array, ""] | TaskKey) -> dict[str, Any]:
            del key
            drawn = init_columns(layers, at.key, x, "shared/encoder", copies)[0]
            return map_kernels(split_kernels(drawn, 1)[0], factors.start, lambda node: not isinstance(node, dict))

        def others(key: Key[Array, ""] | TaskKey) -> dict[str, Any]:
            del key
            return split_kernels(at.drawn(layers, "own/encoder", x), 0)[1]

        made = {}
        for layer, tree in at.leaf("shared/encoder", kernels).items():
            code = at.leaf(f"own/codes/{layer}", unit_vector)
            made[layer] = map_kernels(tree, functools.partial(factors.compose, code=code), is_factors)
        return merge(made, at.leaf("own/encoder", others))

    def unit_vector(key: Key[Array, ""]) -> Float[Array, " latent"]:
        draw = jax.random.normal(key, (latent,), jnp.float32)
        return draw / jnp.linalg.norm(draw)

    return composed(encoder, tasks, sharing, weights, penalty)

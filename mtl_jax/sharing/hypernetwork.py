"""Adapters that a network in common makes from a task's vector (HyperFormer; Karimi Mahabadi et al., ACL 2021)."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mtl_jax.encoders import layers
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_conditioned import Step, behind_stages, task_passes
from mtl_jax.tasks import Task


class Generated(nn.Module):
    """x + scale * norm(act(x D) U) + shift, where D, U, scale and shift are linear in the task's vector."""

    width: int
    activation: str

    @nn.compact
    def __call__(self, told: Any, *, train: bool) -> Any:
        del train
        values, vector = values_of(told["x"]), told["task"]
        channels = values.shape[-1]

        def made(name: str, start: Callable, *shape: int) -> Array:
            weights = self.param(name, start, (vector.size, *shape))
            return jnp.tensordot(vector, weights, 1).astype(values.dtype)

        def unit(inputs: int) -> Callable:
            """So that what is made has variance 1 / inputs, as a layer's own kernel would."""
            return nn.initializers.normal((vector.size * inputs) ** -0.5)

        inner = values @ made("down", unit(channels), channels, self.width)
        inner = layers.ACTIVATIONS[self.activation](inner) @ made("up", unit(self.width), self.width, channels)
        inner = nn.LayerNorm(use_bias=False, use_scale=False, dtype=values.dtype)(inner)
        scale, shift = (made(name, nn.initializers.zeros, channels) for name in ("scale", "shift"))
        return with_values(told["x"], values + scale * inner + shift)


@architecture(
    paper="HyperFormer, Karimi Mahabadi et al., ACL 2021, arXiv:2106.04489; the start, Chang et al., ICLR 2020",
    when="many related tasks, whose adapters should learn from each other",
)
def hypernetwork(
    encoder: Encoder, tasks: Sequence[Task], size: int = 16, width: int = 8, activation: str = "gelu"
) -> MultiTaskModel:
    """One trunk with adapters after its stages, whose weights a network in common makes from each task's vector.

    A task has a vector e_t and a head for itself, ``tasks/<t>/embedding`` and ``tasks/<t>/head``; the maps of vectors
    to weights, ``shared/hypernetwork/<stage>``, learn from all tasks, and tasks of close vectors have close adapters.
    The scale and shift start at 0, for every vector: the model starts as hard sharing. Each task is a pass of its own.

    Where it departs from the paper: its trunk is a pretrained Transformer with adapters inside each layer, and a small
    network makes e_t; here adapters follow stages and e_t is learned as it is.

    Source: HyperFormer, Karimi Mahabadi et al., ACL 2021, arXiv:2106.04489; the start, Chang et al., ICLR 2020.

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.
      size: length of the vectors e_t, which start as standard normal draws.
      width, activation: of the adapters' bottleneck.
    """
    layers.check_sizes("hypernetwork", size=size, width=width)
    layers.check(width, "none", activation, 0.0, "hypernetwork")
    module = Generated(width, activation)
    steps = behind_stages(encoder, lambda n: Step("shared/hypernetwork", n, module, told=True))
    return task_passes(encoder, tasks, "hypernetwork", steps, lambda key: jax.random.normal(key, (size,), jnp.float32))

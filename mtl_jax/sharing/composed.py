"""A network per task whose parameters are made of what tasks share and what each has: GO-MTL, DMTRL and TAPS."""

from collections.abc import Callable, Sequence
from typing import Any

from mtl_jax.encoders import base
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.walk import walked
from mtl_jax.tasks import Task


def split_kernels(tree: Any, stacked: int) -> tuple[dict, dict]:
    """(the kernels of a nested dict, its other leaves); leaves have `stacked` axes in front."""
    kernels, others = {}, {}
    for name, value in tree.items():
        if isinstance(value, dict):
            below = split_kernels(value, stacked)
            kernels |= {name: below[0]} if below[0] else {}
            others |= {name: below[1]} if below[1] else {}
        else:
            (kernels if value.ndim - stacked >= 2 else others)[name] = value
    return kernels, others


def composed(
    encoder: Encoder, tasks: Sequence[Task], sharing: str, weights: Callable, penalty: Callable
) -> MultiTaskModel:
    """Each task is a pass through an encoder of its own making, with statistics of its own.

    Args:
      encoder: of each task's network.
      tasks: on common inputs, or each on its own of one shape.
      sharing: named in errors.
      weights: (at, the encoder's layers, inputs) -> the parameters that the encoder runs with, in the pass of one task.
      penalty: of the model.
    """
    layers = base.layers(encoder)

    def one(at: Any, x: Any) -> Any:
        return at.run(layers, weights(at, layers, x), "shared/encoder", x)

    return walked(sharing, encoder, tasks, lambda at, x: at.each(one, x), features="branched", penalty=penalty)

"""Neural discriminative dimensionality reduction (NDDR-CNN; Gao et al., CVPR 2019, arXiv:1801.08297)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders import layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_columns import mixed_columns, own_and_others
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="NDDR-CNN, Gao et al., CVPR 2019, arXiv:1801.08297",
    when="as cross_stitch on images, with maps of all channels",
)
def nddr(
    encoder: Encoder, tasks: Sequence[Task], own: float = 0.9, norm: str = "batch", activation: str = "relu"
) -> MultiTaskModel:
    """A column of stages per task; after each stage every task has a 1 x 1 map of all columns' features together.

    Column t goes on with act(norm(sum_s W_ts x_s + b_t)), W_ts of [width, width]: a cross-stitch unit that mixes
    channels too. Columns and maps are stacked under ``shared``, in the tasks' order.

    Where it departs from the paper: the paper starts from networks that were trained task by task, and trains these
    layers faster (`learning_rate_factors`); its variant with shortcuts to the last layer is not here.

    Source: NDDR-CNN, Gao et al., CVPR 2019, arXiv:1801.08297.

    Args:
      encoder: of each column.
      tasks: on common inputs.
      own: W_tt starts as this much of the identity; the rest is spread evenly over the other columns' identities. 1,
        without norm and after a ReLU, starts as independent networks.
      norm: "batch" as in the paper, "layer" or "none".
      activation: one of `layers.ACTIVATIONS`.
    """
    names = tuple(t.name for t in check_names(tasks))
    first = own_and_others(len(names), own, "nddr")
    layers.check(1, norm, activation, 0.0, "nddr")
    finish = [("finish", layers.Finish(norm, activation))]

    def unit(at: Any, path: str, x: Float[Array, "task batch ... width"]) -> Float[Array, "task batch ... width"]:
        width = x.shape[-1]
        kernel = at.leaf(f"{path}/kernel", lambda key: jnp.einsum("ts,io->tsio", first, jnp.eye(width)))
        mixed = jnp.einsum("tsio,sb...i->tb...o", kernel.astype(x.dtype), x)
        if norm != "batch":  # a bias in front of it has no effect, and its gradient is only noise
            bias = at.leaf(f"{path}/bias", lambda key: jnp.zeros((len(names), width)))
            mixed = mixed + bias.astype(x.dtype).reshape(len(names), *(1 for _ in x.shape[1:-1]), -1)
        return at.columns(finish, path, names, mixed, stacked=True)

    return mixed_columns(encoder, tasks, "nddr", unit)

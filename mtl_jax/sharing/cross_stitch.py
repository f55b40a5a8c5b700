"""Cross-stitch networks (Misra et al., CVPR 2016, arXiv:1604.03539)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_columns import mixed_columns, own_and_others
from mtl_jax.tasks import Task, check_names


@architecture(
    paper="Misra et al., CVPR 2016, arXiv:1604.03539",
    when="few tasks, when it is not known how much each stage should share",
)
def cross_stitch(encoder: Encoder, tasks: Sequence[Task], own: float = 0.9) -> MultiTaskModel:
    """A column of stages per task; after each stage a learned matrix mixes the columns' features.

    Column t goes on with sum_s A_ts x_s. Columns and matrices are stacked under ``shared``, in the tasks' order.

    Where it departs from the paper: the paper joins networks that were trained task by task, and trains its units 10 to
    1,000 times as fast (`learning_rate_factors` do that); here columns start afresh unless they are loaded. One matrix
    serves all channels of a stage.

    Source: Misra et al., CVPR 2016, arXiv:1604.03539.

    Args:
      encoder: of each column.
      tasks: on common inputs.
      own: first value of A_tt; the rest is spread evenly over the other columns. 1 starts as independent networks.
    """
    first = own_and_others(len(check_names(tasks)), own, "cross_stitch")

    def unit(at: Any, path: str, x: Float[Array, "task batch ... width"]) -> Float[Array, "task batch ... width"]:
        return jnp.einsum("ts,s...->t...", at.leaf(path, lambda key: first).astype(x.dtype), x)

    return mixed_columns(encoder, tasks, "cross_stitch", unit)

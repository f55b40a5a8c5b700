"""An ensemble of thin members for tables: one set of kernels, which each member scales with vectors of its own.

TabM (Gorishniy, Kotelnikov and Babenko, ICLR 2025, arXiv:2410.24210) over BatchEnsemble (Wen, Tran and Ba, ICLR 2020,
arXiv:2002.06715).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtl_jax import parts
from mtl_jax.encoders import base, layers
from mtl_jax.encoders.base import Encoder
from mtl_jax.encoders.tabular import ColumnCheck, Columns, check, check_vectors


class ThinStage(nn.Module):
    """finish(s_i * (K (r_i * x_i)) + b_i) for member i: K is everybody's; r, s and b are the member's.

    All members start alike (r = s = 1, b = 0), but for the r that `start` draws.
    """

    width: int
    finish: layers.Finish
    dtype: str | None = None
    start: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "batch member wide"], *, train: bool) -> Float[Array, "batch member width"]:
        members = x.shape[1]
        dtype = self.dtype or x.dtype
        r = self.param("scale_in", self.start, x.shape[1:]).astype(dtype)
        s = self.param("scale_out", nn.initializers.ones, (members, self.width)).astype(dtype)
        b = self.param("bias", nn.initializers.zeros, (members, self.width)).astype(dtype)
        y = layers.by_rows(nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="dense"), x * r)
        return self.finish(y * s + b, train=train)


class MembersStage(nn.Module):
    """`Columns`, read by every member with scales of its own.

    The first scales tell members apart: a sign per column, drawn at random. (The paper draws normal ones where numbers
    are embedded. On small tables members then read few columns: with 41 rows of concrete, RRMSE was 0.74, not 0.65.)
    """

    columns: Columns
    members: int
    width: int
    finish: layers.Finish
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Float[Array, "batch member width"]:
        joined, widths = self.columns.with_widths(x)

        def start(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
            draws = jax.random.rademacher(key, (shape[0], len(widths)), dtype)
            return jnp.repeat(draws, jnp.array(widths), 1, total_repeat_length=shape[1])

        rows = jnp.broadcast_to(joined[:, None], (len(joined), self.members, joined.shape[1]))
        return ThinStage(self.width, self.finish, self.dtype, start, name="layer")(rows, train=train)


@parts.recorded(
    paper=(
        "Gorishniy, Kotelnikov and Babenko, ICLR 2025, arXiv:2410.24210; Wen, Tran and Ba, ICLR 2020, arXiv:2002.06715"
    ),
    when="tables with few to many rows; what `for_table` picks",
)
def tabm(
    features: tuple[int, ...] = (128, 128),
    cardinalities: tuple[int, ...] = (),
    members: int = 16,
    embedding: int | None = None,
    numbers: str = "piecewise",
    width: int = 8,
    bins: int = 16,
    norm: str = "none",
    dropout: float = 0.1,
    activation: str = "relu",
    dtype: str | None = None,
    remat: bool = False,
) -> Encoder:
    """An ensemble of MLPs over tables that share their kernels; every task has a head for each member.

    Features are [B, members, width]; between stages an architecture treats members as positions, so that all of them
    work. A task's loss is the mean of its members' losses, and its prediction the mean of their predictions
    (`mtl_jax.members`). Columns are embedded once, for all members.

    Args:
      features: widths of the stages.
      cardinalities: number of categories of each category column.
      members: how many.
      embedding, numbers, width, bins: of the columns, as of `tabular`, which also says what inputs are.
      norm: "none", "batch" (over rows and members), "layer" or "group", in front of the activation.
      dropout: rate after the activation.
      activation: one of `layers.ACTIVATIONS`.
      dtype: computation dtype such as "bfloat16"; parameters stay float32.
      remat: compute a stage's inner values anew in the backward pass instead of keeping them.
    """
    widths, cardinalities = check(features, cardinalities, embedding, norm, dropout, activation, "tabm")
    check_vectors(numbers, width, bins, "tabm")
    layers.check_sizes("tabm", members=members)
    finish = layers.Finish(norm, activation, dropout, dtype)
    columns = Columns(cardinalities, embedding, True, dtype, numbers, width, bins, "tabm")
    first, *rest = widths
    stages = (MembersStage(columns, members, first, finish, dtype), *(ThinStage(w, finish, dtype) for w in rest))
    return base.assemble(stages, None, remat)._replace(
        reads_missing=True, members=members, check=ColumnCheck(cardinalities)
    )

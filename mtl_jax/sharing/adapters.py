"""Residual adapters: a small map per task after every stage of one trunk.

"linear" is the 1 x 1 map of Rebuffi, Bilen and Vedaldi (NeurIPS 2017, arXiv:1705.08045); "bottleneck" is the adapter of
Houlsby et al. (ICML 2019, arXiv:1902.00751).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from mtl_jax import parts
from mtl_jax.encoders import layers
from mtl_jax.encoders.base import Encoder, values_of, with_values
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.task_conditioned import Step, behind_stages, task_passes
from mtl_jax.tasks import Task

KINDS = ("bottleneck", "linear")


class Adapter(nn.Module):
    """x + A x, or x + U act(D x) with `width` channels between; the last map starts at zero."""

    kind: str
    width: int
    activation: str

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        values = inner = values_of(x)
        if self.kind == "bottleneck":
            down = nn.Dense(self.width, dtype=values.dtype, name="down")
            inner = layers.ACTIVATIONS[self.activation](layers.by_rows(down, values))
        up = nn.Dense(values.shape[-1], dtype=values.dtype, kernel_init=nn.initializers.zeros, name="up")
        return with_values(x, values + layers.by_rows(up, inner))


@architecture(
    paper=(
        "Rebuffi, Bilen and Vedaldi, NeurIPS 2017, arXiv:1705.08045 (linear); Houlsby et al., ICML 2019, "
        "arXiv:1902.00751 (bottleneck)"
    ),
    when="many tasks or new ones on a trunk that is good already",
)
def adapters(
    encoder: Encoder, tasks: Sequence[Task], kind: str = "bottleneck", width: int = 8, activation: str = "gelu"
) -> MultiTaskModel:
    """One trunk, and after each stage a residual map of each task's own, under ``tasks/<t>/adapters``.

    The model starts as hard sharing. Each task is a pass through the trunk of its own, with statistics of its own.

    Where it departs from the paper: in the papers the trunk was trained before and stands still (`freeze` does that),
    and adapters sit inside its blocks; here one follows each stage.

    Source: Rebuffi, Bilen and Vedaldi, NeurIPS 2017, arXiv:1705.08045 (linear); Houlsby et al., ICML 2019,
    arXiv:1902.00751 (bottleneck).

    Args:
      encoder: the trunk.
      tasks: on common inputs, or each on its own.
      kind: "bottleneck", x + U act(D x), or "linear", x + A x.
      width, activation: of the bottleneck.
    """
    if kind not in KINDS:
        raise parts.unknown("kind of adapters", kind, KINDS)
    layers.check(width, "none", activation, 0.0, "adapters")
    module = Adapter(kind, width, activation)
    return task_passes(encoder, tasks, "adapters", behind_stages(encoder, lambda n: Step("own/adapters", n, module)))

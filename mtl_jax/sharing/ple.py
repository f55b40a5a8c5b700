"""Progressive layered extraction (Tang et al., "Progressive layered extraction (PLE): a novel multi-task learning model
for personalized recommendations", RecSys 2020).
"""

from collections.abc import Sequence

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.cgc import check_counts
from mtl_jax.sharing.expert_layers import extraction
from mtl_jax.sharing.gates import softmax_gate
from mtl_jax.tasks import Task


@architecture(
    paper="PLE, Tang et al., RecSys 2020, section 4.2",
    when="as cgc, with more data and deeper experts",
)
def ple(
    encoder: Encoder, tasks: Sequence[Task], layers: int = 2, experts: int = 2, own: int = 1, gate: str = "input"
) -> MultiTaskModel:
    """CGC layers one after the other: shared experts and each task's own separate more in each (section 4.2).

    The encoder's stages are divided into `layers` groups, as even as they go; an expert of a layer is a copy of its
    group. Behind each layer but the last a gate under ``shared`` mixes all experts, the tasks' own too, into what the
    next layer's shared experts read, so that all tasks reach these: they are under ``shared/layer_<i>/experts_of``,
    stacked in the tasks' order.

    Where it departs from the paper: experts of a layer are groups of an encoder's stages.

    Source: PLE, Tang et al., RecSys 2020, section 4.2.

    Args:
      encoder: has at least `layers` stages.
      tasks: on common inputs, or each on its own.
      layers: how many; with 1 this is `cgc`.
      experts, own: how many experts a layer has in common and for each task.
      gate: what it reads, as in `mmoe`: "input" is the input of the gate's layer.

    Raises:
      ValueError: if numbers of layers or experts are impossible, or the gates cannot read what they should.
    """
    check_counts("ple", experts, own)
    if not 1 <= layers <= len(encoder.stages):
        raise ValueError(f"ple: layers={layers} must lie in 1..{len(encoder.stages)}, the encoder's stages")
    return extraction(
        encoder, tasks, "ple", shared=experts, own=own, gate=softmax_gate(gate), reads=gate, layers=layers
    )

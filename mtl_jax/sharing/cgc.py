"""Customised gate control, the layer that PLE is made of (Tang et al., RecSys 2020, section 4.1)."""

from collections.abc import Sequence

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.expert_layers import extraction
from mtl_jax.sharing.gates import softmax_gate
from mtl_jax.tasks import Task


def check_counts(sharing: str, experts: int, own: int) -> None:
    """An error for numbers of experts that make no mixture."""
    if experts < 1:
        raise ValueError(
            f"{sharing}: experts={experts} in common must be at least 1; for none use sharing 'independent'"
        )
    if own < 0:
        raise ValueError(f"{sharing}: own={own} experts per task must be at least 0")


@architecture(
    paper="CGC, the layer of PLE, Tang et al., RecSys 2020, section 4.1",
    when="as mmoe, where tasks hurt each other",
)
def cgc(encoder: Encoder, tasks: Sequence[Task], experts: int = 2, own: int = 1, gate: str = "input") -> MultiTaskModel:
    """A task reads a mixture of its own and the shared experts; softmax(W_t x) weights them.

    Experts are whole copies of the encoder, under ``shared/experts`` and ``tasks/<t>/experts``; gates are under
    ``tasks/<t>/gate``. Logged as by `mmoe`: ``load/<t>/own_<e>``, ``load/<t>/shared_<e>``, ``gate_entropy/<t>``.

    Where it departs from the paper: as in `mmoe`, experts are whole encoders and gates have a bias.

    Source: CGC, the layer of PLE, Tang et al., RecSys 2020, section 4.1.

    Args:
      encoder: of each expert.
      tasks: on common inputs, or each on its own.
      experts: how many in common.
      own: how many more each task has for itself; with 0 this is `mmoe`.
      gate: what it reads, as in `mmoe`.

    Raises:
      ValueError: if numbers of experts are impossible, or the gates cannot read what they should.
    """
    check_counts("cgc", experts, own)
    return extraction(encoder, tasks, "cgc", shared=experts, own=own, gate=softmax_gate(gate), reads=gate)

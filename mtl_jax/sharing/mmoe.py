"""Mixtures of experts: MMoE (Ma et al., KDD 2018, "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts").
"""

from collections.abc import Sequence

from mtl_jax.encoders.base import Encoder
from mtl_jax.model import MultiTaskModel
from mtl_jax.sharing.architecture import architecture
from mtl_jax.sharing.expert_layers import extraction
from mtl_jax.sharing.gates import softmax_gate
from mtl_jax.tasks import Task


@architecture(
    paper="MMoE, Ma et al., KDD 2018",
    when="tasks that agree in part; the usual choice for recommendations",
)
def mmoe(encoder: Encoder, tasks: Sequence[Task], experts: int = 4, gate: str = "input") -> MultiTaskModel:
    """Every task reads its own mixture of the same experts: sum_e softmax(W_t x)_e expert_e(x).

    Experts are whole copies of the encoder, stacked under ``shared/experts``; a task's gate is under
    ``tasks/<t>/gate``. Logged: ``load/<t>/shared_<e>``, expert e's mean weight in task t's mixture, and
    ``gate_entropy/<t>``, the entropy of these means: 0 where one expert is used alone.

    Where it departs from the paper: its experts are single layers and its gates have no bias; here experts are whole
    encoders. Its towers are heads with hidden layers, ``head="vector(hidden=(64,))"`` of a task.

    Source: MMoE, Ma et al., KDD 2018.

    Args:
      encoder: of each expert.
      tasks: on common inputs, or each on its own.
      experts: how many.
      gate: what it reads: "input", flattened, as in the paper; "features", the mean of the experts' features over
        experts and positions, for inputs that are no fixed number of numbers; "static", nothing.

    Raises:
      ValueError: if there is no expert, or the gates cannot read what they should.
    """
    if experts < 1:
        raise ValueError(f"mmoe: experts={experts} must be at least 1")
    return extraction(encoder, tasks, "mmoe", shared=experts, own=0, gate=softmax_gate(gate), reads=gate)
